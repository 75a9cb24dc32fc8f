"""The settings of method ``robust`` where none are given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from noiserobust.config.method import NoiseConfig, ScheduleConfig

if TYPE_CHECKING:
    from noiserobust.config.training import TrainConfig

LEVELS = {"gaussian": 0.2, "laplace": 0.14}
"""Of the noise that is trained with; both have nearly the same variance."""

SCHEDULE = ScheduleConfig("quadratic", fraction=0.7)
WEIGHT_STDS, GRANULARITY = 1.5, "filter"
DECAY = 0.99


def completed(config: TrainConfig) -> TrainConfig:
    """Return a training with the settings of ``robust`` where none are given.

    The noise is strong and ramped up quadratically ("Incorruptible neural networks", table 3); weights are kept within
    1.5 root mean squares of their filter, because noise is a share of the largest of them; and what is kept is an
    average over about the last 100 steps. What each part is worth: ``experiments/robust``.
    """
    method, clip, average = config.method, config.clip, config.average
    noise = method.noise
    if noise.level is None and method.level_range is None:
        noise = replace(noise, level=LEVELS.get(noise.name or "gaussian"))
    schedule = SCHEDULE if method.schedule == ScheduleConfig() else method.schedule
    if clip.weight_stds is None and clip.weight_value is None:
        clip = replace(clip, weight_stds=WEIGHT_STDS, granularity=GRANULARITY)
    if average.decay is None:
        average = replace(average, decay=DECAY)
    return replace(config, method=replace(method, noise=noise, schedule=schedule), clip=clip, average=average)


def expected(noise: NoiseConfig) -> NoiseConfig:
    """Return the noise that a network trained with ``robust`` under ``noise`` is meant for: of half the level."""
    known = (noise.name or "gaussian") in LEVELS and isinstance(noise.level, int | float)
    return replace(noise, level=float(noise.level) / 2) if known else noise  # type: ignore[arg-type]
