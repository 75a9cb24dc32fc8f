"""The settings of method ``robust`` where none are given."""

from __future__ import annotations

from dataclasses import replace
from math import lcm
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
CHIPS, EXAMPLES = (4, 2), 32
"""Chips a step, the first number that leaves each of them enough examples: batch norm takes its statistics of them."""


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
    return 1 if config.method.split_ranks else divided(config.batch_size, config.accumulate)


def divided(examples: int, micro_batches: int) -> int:
    """Return how many chips, of 32 examples or more, a batch is divided among equally.

    Args:
        examples: of the batch.
        micro_batches: into how many it is cut to save memory; chips do not make those smaller than 32 examples.
    """
    enough = min(EXAMPLES, examples // micro_batches)
    fits = (n for n in CHIPS if examples % n == 0 and examples // n >= EXAMPLES)
    return next((n for n in fits if examples // lcm(n, micro_batches) >= enough), 1)


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
