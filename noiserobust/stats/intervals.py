"""Confidence intervals that hold their level."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
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
    check_level(level)
    means = np.asarray(seed_means, dtype=np.float64)
    if means.ndim != 1:
        raise InvalidValueError(f"Expected `seed_means` to be one number a train seed, but got shape {means.shape}")
    if means.size < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, means.size - 1) * np.std(means, ddof=1) / np.sqrt(means.size)
    return float(np.mean(means) - half), float(np.mean(means) + half)


def std_interval(std: float, freedom: int, level: float = 0.95) -> tuple[float, float]:
    """Return the chi-square interval of a standard deviation of normal values.

    Args:
        std: the standard deviation found, >= 0.
        freedom: its degrees of freedom: n - 1 for one over n train seeds, the sum of K - 1 over train seeds with K
            draws each for the noise uncertainty.
        level: confidence level in (0, 1).

    Returns:
        ``(low, high)``; NaN, not estimable, without a degree of freedom or a standard deviation.

    >>> [round(end, 2) for end in std_interval(1.0, 4)]
    [0.6, 2.87]
    """
    check_level(level)
    if np.isfinite(std):
        check_number("std", std, minimum=0)
    if freedom < 1 or not np.isfinite(std):
        return float("nan"), float("nan")
    factors = [float(np.sqrt(freedom / stats.chi2.ppf(p, freedom))) for p in ((1 + level) / 2, (1 - level) / 2)]
    return std * factors[0], std * factors[1]


def test_set_std(accuracy: float, n_examples: int) -> float:
    """Return how far an accuracy is off for having been measured on so many examples, one standard deviation.

    ``100 sqrt(p (1 - p) / n)``, the binomial one. That of a mean over chips is at most this: chips are run on the same
    examples. It is part of no other uncertainty.

    Args:
        accuracy: in percent.
        n_examples: how many test examples; NaN is returned for 0.
    """
    p = min(max(accuracy / 100, 0.0), 1.0)
    return 100 * float(np.sqrt(p * (1 - p) / n_examples)) if n_examples > 0 else float("nan")


test_set_std.__test__ = False  # type: ignore[attr-defined]  # the name is the field's; it is no test of pytest


def check_level(level: float) -> float:
    """Return a confidence level, or raise an error."""
    if not 0 < check_number("level", level) < 1:
        raise InvalidValueError(f"Expected `level` to be a finite number > 0 and < 1, but got {level!r}")
    return level


def as_values(values: ArrayLike, name: str = "values", *, finite: bool = True) -> NDArray[np.float64]:
    """Return a row of numbers, shape ``(n,)``, such as the values of the draws of a train seed.

    Args:
        values: the numbers, at least one.
        name: what they are called in the error.
        finite: whether NaN and infinity are refused.

    Raises:
        InvalidValueError: if they are none.
    """
    try:
        row = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidValueError(f"Expected `{name}` to be rows of numbers, but got {values!r}") from None
    if not row.size:
        raise InvalidValueError(f"Expected `{name}` to have at least one value for each train seed, but got none")
    if row.ndim != 1:
        raise InvalidValueError(f"Expected `{name}` to be rows of numbers, but got an array of shape {row.shape}")
    if finite and not np.isfinite(row).all():
        raise InvalidValueError(f"Expected `{name}` to be finite numbers, but got others")
    return row
