"""One number for a curve of values against noise levels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from noiserobust.errors import InvalidValueError, check_number
from noiserobust.stats.intervals import as_values, check_level, mean_interval
from noiserobust.stats.tails import Estimated

Array = NDArray[np.float64]

_STEPS = 1000
"""Into how many steps the way from a level to the next is cut to find where a curve crosses."""


def curve_area(levels: ArrayLike, curves: ArrayLike, level: float = 0.95) -> Estimated:
    """Return the area under the curves divided by the range of levels: the mean value over them.

    Trapezoids for each train seed, then Student-t over train seeds; levels share their weights and chips, so they are
    not averaged before.

    Args:
        levels: ascending, shape ``(n_levels,)``, at least two.
        curves: for each train seed the mean over chips at each level, shape ``(n_seeds, n_levels)``.
        level: confidence level in (0, 1).
    """
    x, y = _curves(levels, curves)
    areas = np.sum((y[:, 1:] + y[:, :-1]) / 2 * np.diff(x), axis=1) / (x[-1] - x[0])
    return Estimated(float(areas.mean()), *mean_interval(areas, level))


def tolerable_level(levels: ArrayLike, drops: ArrayLike, allowed: float, level: float = 0.95) -> Estimated:
    """Return the level at which the mean curve has fallen by what is allowed.

    Between levels curves are straight. The interval begins where the upper end of the Student-t interval of the mean
    drop over train seeds is first ``allowed``, and ends where the lower end is so for good (Fieller's way). So it holds
    its level for any shape of curve, and may be open.

    Args:
        levels: ascending, shape ``(n_levels,)``, at least two; for times their logarithms.
        drops: for each train seed the clean value minus the mean over chips at each level, shape
            ``(n_seeds, n_levels)``.
        allowed: drop that is allowed, > 0.
        level: confidence level in (0, 1).

    Returns:
        The first level at which the drop is ``allowed``: ``-inf`` if it is so at the first already, ``inf`` if it is
        not up to the last, and the ends likewise. With one train seed the ends are NaN.

    Source: E. C. Fieller, "Some problems in interval estimation", J. R. Statist. Soc. B 16 (1954).
    """
    x, y = _curves(levels, drops)
    check_number("allowed", allowed, above=0)
    check_level(level)
    # Ends of segments are met exactly, for both of their neighbours.
    at = np.concatenate([np.linspace(a, b, _STEPS, endpoint=False) for a, b in pairwise(x)])
    at = np.append(at, x[-1])
    fine = np.array([np.interp(at, x, row) for row in y])
    mean, number = fine.mean(axis=0), len(fine)
    value = _first(at, mean - allowed)
    if number < 2:
        return Estimated(value, float("nan"), float("nan"))
    half = stats.t.ppf((1 + level) / 2, number - 1) * fine.std(axis=0, ddof=1) / np.sqrt(number)
    # The last, not the first: a curve that runs close below what is allowed has many chances to seem above it.
    return Estimated(value, _first(at, mean + half - allowed), _last(at, mean - half - allowed))


def _first(at: Array, excess: Array) -> float:
    """Return where an excess is first 0 or more."""
    reached = np.flatnonzero(excess >= 0)
    if not reached.size:
        return float("inf")
    return _crossing(at, excess, int(reached[0]) - 1) if reached[0] > 0 else float("-inf")


def _last(at: Array, excess: Array) -> float:
    """Return from where on an excess is 0 or more."""
    below = np.flatnonzero(excess < 0)
    if not below.size:
        return float("-inf")
    return _crossing(at, excess, int(below[-1])) if below[-1] < at.size - 1 else float("inf")


def _crossing(at: Array, excess: Array, i: int) -> float:
    """Return where the line from below 0 at i to 0 or more at the next crosses 0."""
    part = -excess[i] / (excess[i + 1] - excess[i])
    return float(at[i] + part * (at[i + 1] - at[i]))


def _curves(levels: ArrayLike, curves: ArrayLike) -> tuple[Array, Array]:
    x = as_values(levels, "levels")
    y = np.array([as_values(curve, "curves") for curve in curves])  # type: ignore[union-attr]
    if x.ndim != 1 or x.size < 2 or not (np.diff(x) > 0).all():
        raise InvalidValueError(f"Expected `levels` to be at least two, ascending, but got {x.tolist()}")
    if y.ndim != 2 or not len(y) or y.shape[1] != x.size:
        raise InvalidValueError(f"Expected `curves` to be of shape (n_seeds, {x.size}), but got {y.shape}")
    return x, y
