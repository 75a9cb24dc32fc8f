"""Comparison of two methods on the same train seeds and the same chips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from noiserobust.errors import InvalidValueError
from noiserobust.stats.intervals import as_values, mean_interval
from noiserobust.stats.tails import Estimated, improvement

_EXACT = 15
"""Up to so many differences all changes of sign are counted, 2^14 of them; beyond as many are drawn."""


@dataclass(frozen=True)
class Comparison:
    """How much higher one method is than another. NaN is what cannot be estimated.

    Attributes:
        difference: mean over train seeds of the mean over chips, with the interval of Student.
        p_value: of Student's t-test, two-sided.
        p_sign_flip: of the exact test that changes signs, two-sided.
        least_p_sign_flip: the smallest value that test can have, ``2^(1 - n)`` for n differences.
        improvement: probability that the one method is higher on a chip, with its interval.
        n_seeds: how many train seeds both methods have.
        over: what the interval and the tests are over, ``"train seeds"``, or ``"chips"`` with one train seed: then they
            hold for these two weight files only, and not for the methods.
    """

    difference: Estimated
    p_value: float
    p_sign_flip: float
    least_p_sign_flip: float
    improvement: Estimated
    n_seeds: int
    over: str


def compare(a: Sequence[ArrayLike], b: Sequence[ArrayLike], level: float = 0.95) -> Comparison:
    """Compare two methods.

    Differences that are all the same, and not 0, have no interval and no p of a t-test.

    Args:
        a: for each train seed the values of the draws of one method.
        b: of the other: the same train seeds and the same chips in the same order.
        level: confidence level in (0, 1).

    Raises:
        InvalidValueError: if train seeds or numbers of chips differ, or values are none or not finite.
    """
    pairs = [(as_values(x), as_values(y)) for x, y in zip(a, b, strict=False)]
    differences = [x - y for x, y in pairs if x.shape == y.shape]
    if not differences or len(differences) != len(a) or len(a) != len(b):
        raise InvalidValueError(
            "Expected `a` and `b` to have the same train seeds and chips, but got "
            f"{[np.size(x) for x in a]} and {[np.size(y) for y in b]} draws"
        )
    seeds = len(differences) > 1
    improved = improvement(differences, level)  # refuses a train seed without draws
    units = np.array([d.mean() for d in differences]) if seeds else differences[0]
    mean, ends = float(units.mean()), mean_interval(units, level)
    if mean and _all_equal(units):
        ends = float("nan"), float("nan")  # no spread to judge by: accuracies come in steps
    return Comparison(
        Estimated(mean, *ends),
        _t_test(units),
        sign_flip(units),
        least_p_sign_flip(units.size),
        improved,
        len(differences),
        "train seeds" if seeds else "chips",
    )


def sign_flip(differences: ArrayLike) -> float:
    """Return the p-value, two-sided, of the test of a mean of 0 that changes the signs of differences.

    Exact for differences that are as likely x as -x, whatever else their distribution.

    Args:
        differences: shape ``(n,)``. For more than 15 the changes of sign are a sample.

    Returns:
        The share of changes whose mean is as far from 0; NaN with fewer than two differences, or with NaN.

    Source: R. A. Fisher, "The Design of Experiments", Oliver and Boyd 1935, sec. 21.

    >>> sign_flip([1.0, 2.0, 3.0])
    0.25
    """
    if np.size(differences) < 2:
        return float("nan")
    x = as_values(differences, "differences", finite=False)
    if not np.isfinite(x).all():
        return float("nan")
    observed = abs(x.sum())
    x = np.sort(np.abs(x))  # so that neither their order nor the direction of the comparison matters
    observed -= 1e-12 * x.sum()  # sums of the same numbers in another order differ by rounding
    if x.size <= _EXACT:
        signs = np.array(list(product((1.0, -1.0), repeat=x.size - 1))).reshape(-1, x.size - 1)
        return float(np.mean(np.abs(x[0] + signs @ x[1:]) >= observed))  # a change of all signs changes nothing
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([0x666C6970, x.size])))
    number = 2 ** (_EXACT - 1)
    sums = (2.0 * generator.integers(0, 2, (number, x.size)) - 1) @ x
    return float((1 + np.sum(np.abs(sums) >= observed)) / (1 + number))


def least_p_sign_flip(number: int) -> float:
    """Return the smallest p-value that :func:`sign_flip` can have for so many differences.

    >>> least_p_sign_flip(5)
    0.0625
    """
    return float("nan") if number < 2 else max(2.0 ** (1 - number), 1 / (1 + 2 ** (_EXACT - 1)))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted for being several: all below alpha are wrong with probability alpha at most.

    Args:
        p_values: shape ``(n,)``, in [0, 1]; NaN is not counted and stays.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).

    >>> [round(float(p), 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    if not np.size(p_values):
        return np.zeros(0)
    p = as_values(p_values, "p_values", finite=False)
    if ((p < 0) | (p > 1)).any():
        raise InvalidValueError(f"Expected `p_values` to be in [0, 1], but got {p.tolist()}")
    adjusted: NDArray[np.float64] = p.copy()
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)), 1)
    return adjusted


def _all_equal(values: NDArray[np.float64]) -> bool:
    """Tell whether values differ by rounding at most."""
    return bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


def _t_test(values: NDArray[np.float64]) -> float:
    if values.size < 2:
        return float("nan")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size)
    if _all_equal(values):
        return float("nan") if mean else 1.0
    return float(2 * stats.t.sf(abs(mean) / error, values.size - 1))
