"""Yield, quantiles and what the worst chips reach.

With several train seeds the numbers are of a chip of any training of the method, with one of a chip of these weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from noiserobust.errors import InvalidValueError, check_integer, check_number
from noiserobust.stats.intervals import as_values, check_level
from noiserobust.stats.population import CHIPS, populations

Array = NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True)
class Estimated:
    """A number with its interval; NaN is what cannot be estimated."""

    value: float
    low: float
    high: float


def draws_needed(share: float, level: float = 0.95) -> int:
    """Return the least number of draws from which anything can be claimed of the worst ``share`` of chips.

    With fewer, even draws that are all good do not show that no more than ``share`` of the chips are bad:
    ``(1 - share)^n <= 1 - level``.

    >>> draws_needed(0.05), draws_needed(0.01)
    (59, 299)
    """
    check_share(share)
    return max(1, math.ceil(math.log1p(-check_level(level)) / math.log1p(-share)))


def share_interval(successes: float, number: int, level: float = 0.95) -> tuple[float, float]:
    """Return the mid-P interval for a share, from independent trials.

    Without a failure in n trials its lower end is ``(1 - level)^(1 / n)``.

    Args:
        successes: how many, in [0, ``number``]; halves are ties.
        number: of how many, >= 1.
        level: confidence level in (0, 1).

    Source: H. O. Lancaster, "Significance tests in discrete distributions", JASA 56 (1961); A. Agresti and
    A. Gottard, "Comment: Randomized confidence intervals and the mid-P approach", Statist. Sci. 20 (2005).
    """
    check_integer("number", number, minimum=1)
    alpha = 1 - check_level(level)
    x, n = check_number("successes", successes, minimum=0, maximum=number), number

    def at_least(p: float) -> float:
        """P(X > x) + P(X = x) / 2, between neighbours for halves."""
        whole = [0.5 * (stats.binom.sf(y, n, p) + stats.binom.sf(y - 1, n, p)) for y in (math.floor(x), math.ceil(x))]
        return float(np.mean(whole))

    tiny = 1e-12

    def where(probability: float) -> float:
        """The p at which it is so; it rises with p, but near 0 and n not from 0 to 1."""
        if at_least(tiny) >= probability:
            return 0.0
        if at_least(1 - tiny) <= probability:
            return 1.0
        return float(optimize.brentq(lambda p: at_least(p) - probability, tiny, 1 - tiny))

    return where(alpha / 2), where(1 - alpha / 2)


def chip_yield(values: Sequence[ArrayLike], spec: float, level: float = 0.95) -> Estimated:
    """Return the share of chips that reach a specification; see :meth:`ChipSample.chip_yield`."""
    return ChipSample(values).chip_yield(spec, level)


def quantile(values: Sequence[ArrayLike], share: float = 0.05, level: float = 0.95) -> Estimated:
    """Return what all but the worst ``share`` of chips reach; see :meth:`ChipSample.quantile`."""
    return ChipSample(values).quantile(share, level)


def cvar(values: Sequence[ArrayLike], share: float = 0.05, level: float = 0.95) -> Estimated:
    """Return the mean of the worst ``share`` of chips; see :meth:`ChipSample.cvar`."""
    return ChipSample(values).cvar(share, level)


def improvement(differences: Sequence[ArrayLike], level: float = 0.95) -> Estimated:
    """Return the probability that a difference is above 0, ties counting half.

    Args:
        differences: for each train seed the differences between two methods on the same chips.
        level: confidence level in (0, 1).

    Source: R. Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021,
    sec. 4.3; there over pairs of runs, here over chips that both methods meet.
    """
    rows = _rows(differences)
    check_level(level)
    wins = [float(np.sum(row > 0) + np.sum(row == 0) / 2) for row in rows]
    share = float(np.mean([w / row.size for w, row in zip(wins, rows, strict=True)]))
    if len(rows) == 1:
        return Estimated(share, *share_interval(wins[0], rows[0].size, level))
    if min(row.size for row in rows) < 2:
        return Estimated(share, NAN, NAN)
    chips, unlike = populations(rows)
    return _around(share, *_ends((np.mean(chips > 0, axis=1) + np.mean(chips >= 0, axis=1)) / 2, unlike, level))


def performance_profile(
    values: Sequence[ArrayLike], specs: ArrayLike, level: float = 0.95
) -> tuple[Array, Array, Array]:
    """Return the share of chips that reach each specification: the yield as a function of what is asked for.

    Args:
        values: for each train seed the values of its draws.
        specs: the specifications, shape ``(n_specs,)``.
        level: confidence level in (0, 1) of the interval at each specification by itself.

    Returns:
        Shares and the ends of their intervals, shape ``(n_specs,)`` each.

    Source: E. D. Dolan and J. J. Moré, "Benchmarking optimization software with performance profiles", Math. Program.
    91 (2002).
    """
    chips = ChipSample(values)
    found = [chips.chip_yield(float(spec), level) for spec in as_values(specs, "specs")]
    return np.array([f.value for f in found]), np.array([f.low for f in found]), np.array([f.high for f in found])


class ChipSample:
    """The draws of one method at one level.

    Args:
        values: for each train seed the values of its draws.

    Raises:
        InvalidValueError: if a train seed has none.
    """

    def __init__(self, values: Sequence[ArrayLike]) -> None:
        self.rows = _rows(values)
        self.number = sum(row.size for row in self.rows)

    def chip_yield(self, spec: float, level: float = 0.95) -> Estimated:
        """Return the share of chips that reach a specification.

        Args:
            spec: the least value that a chip has to have.
            level: confidence level in (0, 1).

        Returns:
            The share, in [0, 1], the mean over train seeds. With one seed the interval is that of trials on these
            weights (:func:`share_interval`), with several that of :func:`populations`, for chips of any training.
        """
        check_number("spec", spec)
        check_level(level)
        share = float(np.mean([np.mean(row >= spec) for row in self.rows]))
        if len(self.rows) == 1:
            return Estimated(share, *share_interval(float((self.rows[0] >= spec).sum()), self.number, level))
        if not self._has_populations:
            return Estimated(share, NAN, NAN)
        chips, unlike = self._populations
        return _around(share, *_ends(np.mean(chips >= self._asked(spec), axis=1), unlike, level))

    def quantile(self, share: float = 0.05, level: float = 0.95) -> Estimated:
        """Return what all but the worst ``share`` of chips reach.

        Args:
            share: of chips, in (0, 1).
            level: confidence level in (0, 1).

        Returns:
            The quantile and its interval. NaN if there are fewer draws, of all train seeds together, than
            :func:`draws_needed`; an end alone is NaN where draws do not bound it, and with several train seeds both
            are for less than one chip in :data:`~noiserobust.stats.population.CHIPS`.
        """
        if self.number < draws_needed(share, level):
            return Estimated(NAN, NAN, NAN)
        value = _pooled_quantile(self.rows, share)
        if len(self.rows) == 1:
            return Estimated(value, *_order_interval(self.rows[0], share, level))
        if not self._has_populations or share < 1 / CHIPS:
            return Estimated(value, NAN, NAN)
        unlike = self._populations[1]
        chips = self._worst(float(share / (1 - unlike.max())))
        # Chips unlike any that was drawn may all be worse, or all be better.
        worse = _row_quantiles(chips, (share - unlike) / (1 - unlike), CHIPS)
        better = _row_quantiles(chips, share / (1 - unlike), CHIPS)
        low = np.quantile(worse, (1 - level) / 2, method="lower")
        high = np.quantile(better, (1 + level) / 2, method="higher")
        return _around(value, *(float(end) if np.isfinite(end) else NAN for end in (low, high)))

    def cvar(self, share: float = 0.05, level: float = 0.95) -> Estimated:
        """Return the mean of the worst ``share`` of chips, the conditional value at risk.

        Args:
            share: of chips, in (0, 1).
            level: confidence level in (0, 1).

        Returns:
            The mean, and its interval if there are several train seeds, with the same exceptions as that of
            :meth:`quantile`. NaN if there are fewer draws than :func:`draws_needed`. Of chips unlike any that was drawn
            nothing enters: with a few in a hundred that are broken it is too high.

        Source: R. T. Rockafellar and S. Uryasev, "Conditional value-at-risk for general loss distributions", J. Bank.
        Finance 26 (2002).
        """
        if self.number < draws_needed(share, level):
            return Estimated(NAN, NAN, NAN)
        value = _pooled_tail(self.rows, share)
        if len(self.rows) == 1 or not self._has_populations or share < 1 / CHIPS:
            return Estimated(value, NAN, NAN)
        tails = _row_tails(self._worst(share), share)
        return _around(value, *(float(np.quantile(tails, q)) for q in ((1 - level) / 2, (1 + level) / 2)))

    def _asked(self, spec: float) -> float:
        """Return what chips of a population need: of values in steps, such as accuracies, half a step less.

        Values in steps are rounded, and chips of a population lie anywhere between.
        """
        step, origin = self._step
        if not step:
            return spec
        return origin + (math.ceil((spec - origin) / step - 1e-6) - 0.5) * step

    @cached_property
    def _step(self) -> tuple[float, float]:
        """Return the step of which all differences are multiples, 0 without one, and a value."""
        values = np.unique(np.concatenate(self.rows))
        differences = np.diff(values)
        least = 1e-4 * float(values[-1] - values[0])
        step = 0.0
        for difference in differences[differences > 1e-3 * least]:  # others are rounding
            step = _common(step, float(difference), least)
            if not step:
                break
        return step, float(values[0])

    @property
    def _has_populations(self) -> bool:
        return min(row.size for row in self.rows) > 1

    @cached_property
    def _populations(self) -> tuple[Array, Array]:
        return populations(self.rows)

    def _worst(self, share: float) -> Array:
        """Return at least the worst ``share`` of the chips of each population, the worst first."""
        return self._lowest if share < 0.19 else np.sort(self._populations[0], axis=1)

    @cached_property
    def _lowest(self) -> Array:
        """The lowest fifth, which costs half of sorting all, and is all that tails take."""
        last = CHIPS // 5
        return np.sort(np.partition(self._populations[0], last, axis=1)[:, : last + 1], axis=1)


def check_share(share: float) -> float:
    """Return a share of chips, or raise an error."""
    if not 0 < check_number("share", share) < 1:
        raise InvalidValueError(f"Expected `share` to be a finite number > 0 and < 1, but got {share!r}")
    return share


def _rows(values: Sequence[ArrayLike]) -> list[Array]:
    rows = [as_values(v) for v in values]
    if not rows:
        raise InvalidValueError("Expected `values` to have at least one value for each train seed, but got none")
    return rows


def _around(value: float, low: float, high: float) -> Estimated:
    """Return an interval from populations; what was found is in it, as it may not be when all chips are good."""
    return Estimated(value, min(low, value), max(high, value))


def _common(a: float, b: float, least: float) -> float:
    """Return the greatest common divisor of two lengths, as Euclid found it, or 0 if it is below ``least``."""
    while b >= least:
        a, b = b, abs(a - round(a / b) * b)
    return a if a >= least and b < least * 1e-3 else 0.0


def _ends(shares: Array, unlike: Array, level: float) -> tuple[float, float]:
    """Return the interval of a share: chips unlike any that was drawn may all fail, or all pass."""
    low = np.quantile(shares * (1 - unlike), (1 - level) / 2)
    high = np.quantile(shares * (1 - unlike) + unlike, (1 + level) / 2)
    return float(low), float(high)


def _row_quantiles(rows: Array, shares: Array, number: int) -> Array:
    """Return a quantile of each row of ``number`` values; infinite where the share is below 0 or above 1.

    Args:
        rows: sorted, or as many of the lowest values as it takes.
        shares: one a row.
        number: how many values a row has, with those left out.
    """
    at = np.clip(shares * number - 0.5, 0, number - 1)
    below = np.floor(at).astype(np.intp)
    above = np.minimum(below + 1, number - 1)
    line = np.arange(len(rows))
    found = rows[line, below] + (at - below) * (rows[line, above] - rows[line, below])
    return np.where(shares < 0, -np.inf, np.where(shares > 1, np.inf, found))


def _row_tails(rows: Array, share: float) -> Array:
    """Return the mean of the worst share of populations, sorted; of the last chip as much as it takes."""
    number = share * CHIPS
    whole = int(number)
    found: Array = (rows[:, :whole].sum(axis=1) + (number - whole) * rows[:, min(whole, CHIPS - 1)]) / number
    return found


def _pooled(rows: list[Array]) -> tuple[Array, Array]:
    """Return all values in order, and the share that each stands for; each train seed counts the same."""
    everything = np.concatenate(rows)
    weights = np.concatenate([np.full(row.size, 1 / (row.size * len(rows))) for row in rows])
    order = np.lexsort((weights, everything))
    return everything[order], weights[order]


def _pooled_quantile(rows: list[Array], share: float) -> float:
    everything, weights = _pooled(rows)
    centres = np.cumsum(weights) - weights / 2
    return float(np.interp(share, centres, everything))


def _pooled_tail(rows: list[Array], share: float) -> float:
    everything, weights = _pooled(rows)
    ends = np.cumsum(weights)
    taken = np.clip(share - (ends - weights), 0, weights)
    return float(np.sum(taken * everything) / share)


def _order_interval(values: Array, share: float, level: float) -> tuple[float, float]:
    """Return the interval of a quantile from order statistics, which bound it whatever the distribution.

    The quantile is below the r-th smallest of n values with probability P(X < r), X binomial of n and ``share``;
    between neighbours it is interpolated on the normal scale. An end that no value bounds is NaN.

    Source: after J. Nyblom, "Note on interpolated order statistics", Statist. Probab. Lett. 14 (1992), who interpolates
    otherwise.
    """
    below = stats.norm.ppf(stats.binom.cdf(np.arange(values.size), values.size, share))
    wanted = [float(stats.norm.ppf(p)) for p in ((1 - level) / 2, (1 + level) / 2)]
    useful = np.isfinite(below)
    at, ordered = below[useful], np.sort(values)[useful]
    return tuple(float(np.interp(w, at, ordered, left=NAN, right=NAN)) for w in wanted)  # type: ignore[return-value]
