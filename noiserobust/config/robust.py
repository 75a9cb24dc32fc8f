"""The settings of method ``robust`` where none are given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from noiserobust.config.method import MethodConfig, NoiseConfig, ScheduleConfig
from noiserobust.errors import InvalidValueError

if TYPE_CHECKING:
    from noiserobust.config.training import TrainConfig

LEVELS = {"gaussian": 0.2, "laplace": 0.14}
"""Of the noise that is trained with; both have nearly the same variance."""

SCHEDULE = ScheduleConfig("quadratic", fraction=0.7)
WEIGHT_STDS, GRANULARITY = 1.5, "filter"
DECAY = 0.99
CHIPS, EXAMPLES = 4, 32
"""Chips a step at most, and examples of each at least: batch norm takes its statistics of them."""


def completed(config: TrainConfig) -> TrainConfig:
    """Return a training with the settings of ``robust`` where none are given.

    The noise is strong and ramped up quadratically ("Incorruptible neural networks", table 3); weights are kept within
    1.5 root mean squares of their filter, because noise is a share of the largest of them; parts of a batch have noise
    of their own, as each example has in aihwkit; and what is kept is an average over about the last 100 steps. What
    each part is worth: ``experiments/robust``.
    """
    method, clip, average = config.method, config.clip, config.average
    schedule = SCHEDULE if method.schedule.name is None else method.schedule
    if clip.weight_stds is None and clip.weight_value is None:
        clip = replace(clip, weight_stds=WEIGHT_STDS)
    if clip.granularity is None and clip.weight_stds:
        clip = replace(clip, granularity=GRANULARITY)
    if average.decay is None:
        average = replace(average, decay=DECAY)
    method = replace(method, noise=noise_of(method), schedule=schedule, chips=method.chips or chips_of(config))
    return replace(config, method=method, clip=clip, average=average)


def chips_of(config: TrainConfig) -> int:
    """Return how many chips a step has where it is not said."""
    return 1 if config.method.split_ranks else largest_division(config.batch_size, CHIPS)


def largest_division(examples: int, most: int) -> int:
    """Return into how many parts of 32 examples or more a batch can be divided equally, if not more than ``most``."""
    return next((n for n in range(most, 1, -1) if examples % n == 0 and examples // n >= EXAMPLES), 1)


def noise_of(method: MethodConfig) -> NoiseConfig:
    """Return the noise that is trained with.

    Raises:
        InvalidValueError: if its level is not given, and there is no default for its reference.
    """
    noise = method.noise
    if noise.level is not None or method.level_range is not None or _name(noise) not in LEVELS:
        return noise
    if noise.reference not in (None, "max"):
        raise InvalidValueError(
            f"Expected `method.noise.level` to be given with reference {noise.reference!r}, but got None"
        )
    return replace(noise, level=LEVELS[_name(noise)])


def expected(noise: NoiseConfig) -> NoiseConfig:
    """Return the noise that a network trained with ``robust`` under ``noise`` is meant for: of half the level."""
    if _name(noise) in LEVELS and isinstance(noise.level, int | float):
        return replace(noise, level=float(noise.level) / 2)
    return noise


def _name(noise: NoiseConfig) -> str:
    return noise.name or "gaussian"
