"""Confidence intervals that hold their level."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from noiserobust.errors import InvalidValueError, check_number


def mean_interval(seed_means: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the Student-t interval for the mean over train seeds.

    The train seed is the unit of replication: the draws of one seed share its weights, so pooling them would claim
    far too much (a nominal 95% interval then covers about 30%).

    Args:
        seed_means: the mean over draws for each train seed, shape ``(n_seeds,)``.
        level: confidence level in (0, 1).

    Returns:
        ``(low, high)``; NaN, not estimable, with fewer than two seeds.

    Source: Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    if not 0 < check_number("level", level) < 1:
        raise InvalidValueError(f"Expected `level` to be a finite number > 0 and < 1, but got {level!r}")
    means = np.asarray(seed_means, dtype=np.float64)
    if means.size < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, means.size - 1) * np.std(means, ddof=1) / np.sqrt(means.size)
    return float(np.mean(means) - half), float(np.mean(means) + half)
