"""Chips and, of each, some of the images: the fewest passes for an interval of a given half-width.

The mean over chips is wanted, of a value that each chip has on a fixed set of N images. A chip is run on n of them
only, one of each of n strata, and what is averaged is the change of an image's value against the network without
noise, whose values are known (difference estimator). The variance of the mean over D chips is

    (sigma_chip^2 + (1 - n / N) s^2 / n) / D

with s^2 the variance of the change between images of a stratum.

Sources: Cochran, *Sampling Techniques*, 3rd ed. (1977), sections 5A.12 (strata of one unit, collapsed), 7.2
(differences) and 10.6 (the best n in two stages). Chips on unlike numbers of images are a random-effects
meta-analysis: sigma_chip is estimated as in Paule and Mandel, J. Res. Natl. Bur. Stand. 87 (1982), its interval is that
of Viechtbauer, Stat. Med. 26 (2007), and the variance of the weighted mean that of Horn, Horn and Duncan, J. Am. Stat.
Assoc. 70 (1975), which for equal weights is Student's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from noiserobust.errors import check_integer, check_number

PILOT = 20
"""Chips from which variances are first estimated, and the fewest that an interval is trusted with."""

LEAST_IMAGES = 32
"""On how many images a chip is run at least, if there are as many."""

_TINY = 1e-12  # in squared points: keeps weights finite where all chips agree
_LEAST_STEP = 4  # chips
_UNCHANGED = 12  # images that may yet change where few have done so, of all that are seen
_CHIP_VARIANCE = 0.01  # as a share of that of the images, before anything is known: sets the images of the pilot


def strata_edges(population: int, n: int) -> NDArray[np.int64]:
    """Return where each of n strata of nearly equal size begins among ordered images, and the end, shape (n + 1,)."""
    return np.arange(n + 1, dtype=np.int64) * population // n


def sampled_mean(changes: ArrayLike, population: int) -> tuple[float, float]:
    """Return the mean of the changes of all images, estimated from one image of each stratum, and its variance.

    The variance is that between neighbouring strata, in pairs, which is at least that within them.

    Args:
        changes: shape (n,), in the order of the strata of :func:`strata_edges`.
        population: number of all images, N >= n.
    """
    values = np.asarray(changes, dtype=np.float64)
    n = values.size
    weighted = values * np.diff(strata_edges(population, n)) / population
    if n == population:
        return float(weighted.sum()), 0.0
    if n < 2:
        return float(weighted.sum()), math.nan
    pairs = weighted[: n - 3 if n % 2 else n].reshape(-1, 2)
    variance = np.square(pairs[:, 0] - pairs[:, 1]).sum()
    if n % 2:
        variance += 3 * weighted[-3:].var(ddof=1)
    return float(weighted.sum()), float((1 - n / population) * variance)


@dataclass(frozen=True)
class Estimate:
    """The mean over chips.

    Args:
        mean: of the chips' values.
        half_width: of its interval; infinite for one chip.
        chip_variance: of the value between chips on all images, >= 0; NaN for one chip.
        chip_variance_error: standard error of that.
        chip_variance_interval: of that, at the level of the mean's; (0, infinity) for one chip.
        image_variance: between images of a stratum; over n it is what measuring n images adds to a chip's value.
        chips: how many.
    """

    mean: float
    half_width: float
    chip_variance: float
    chip_variance_error: float
    chip_variance_interval: tuple[float, float]
    image_variance: float
    chips: int


def estimate(
    values: ArrayLike,
    variances: ArrayLike,
    images: ArrayLike,
    population: int,
    level: float,
    largest_change: float = 0.0,
) -> Estimate:
    """Return the mean over chips with its interval, and the two components of its variance.

    Args:
        values: of each chip, shape (D,).
        variances: of the values, for measuring some of the images only, shape (D,).
        images: how many were measured, shape (D,).
        population: number of all images.
        level: of the interval, in (0, 1).
        largest_change: of the value of one image, if there is one. Images that nobody has seen change may do so: the
            interval is no narrower than three of them in all that were seen (the rule of three).
    """
    v, n = np.asarray(values, dtype=np.float64), np.asarray(images, dtype=np.float64)
    missing = (1 - n / population) / n
    # One for all chips: a chip's own would be correlated with its value.
    image_variance = float(np.sum(np.asarray(variances, dtype=np.float64)) / max(missing.sum(), 1e-300))
    within = missing * image_variance
    if v.size < 2:
        nothing = math.inf, math.nan, math.nan, (0.0, math.inf)
        return Estimate(float(v.mean()), *nothing, image_variance, v.size)
    chip_variance = _between(v, within, v.size - 1)
    low, high = (_between(v, within, stats.chi2.ppf(p, v.size - 1)) for p in ((1 + level) / 2, (1 - level) / 2))
    weights = 1 / (chip_variance + within + _TINY)
    error = math.sqrt(2 / np.square(weights).sum())
    least = 3 * largest_change / n.sum() if (n < population).any() else 0.0
    # A chip variance that is close to nothing within its error would leave all weight to the chips on most images.
    shares = 1 / (max(chip_variance, error) + within + _TINY)
    shares /= shares.sum()
    mean = float(np.average(v, weights=shares))
    # Whatever the weights: each chip tells its own variance, and as many chips count as have weight.
    variance = np.sum(np.square(shares * (v - mean)) / (1 - shares))
    half = stats.t.ppf((1 + level) / 2, max(1 / np.square(shares).sum() - 1, 1)) * math.sqrt(variance)
    return Estimate(mean, max(float(half), least), chip_variance, error, (low, high), image_variance, v.size)


def _between(values: NDArray[np.float64], within: NDArray[np.float64], squares: float) -> float:
    """Return the variance between chips for which the weighted sum of squares is a given one, 0 if it is below anyway.

    With what is expected of the sum, one less than there are values, it is the estimate of Paule and Mandel; with
    quantiles of its chi-square distribution the ends of Viechtbauer's interval.
    """

    def excess(between: float) -> float:
        weights = 1 / (between + within + _TINY)
        return float(np.sum(weights * np.square(values - np.average(values, weights=weights)))) - squares

    if excess(0.0) <= 0:
        return 0.0
    # With this much between chips the weighted sum is too small, whatever the weights.
    most = 2 * float(np.square(values - values.mean()).sum()) / min(squares, 1.0)
    return float(optimize.brentq(excess, 0.0, most))


@dataclass(frozen=True)
class Step:
    """What to do next.

    Args:
        until: how many chips there are to be after it.
        images: on how many images each of the new ones is run.
        expected: how many chips there will be in the end, as far as is known.
    """

    until: int
    images: int
    expected: int


@dataclass(frozen=True)
class Design:
    """How chips and images are chosen, one step after the other, until the interval is narrow enough.

    Args:
        half_width: of the interval that is asked for, > 0.
        population: number of all images, >= 1.
        chip_cost: what a chip costs beside its images, in images, >= 0.
        most: chips at most, >= 2.
        level: of the interval, in (0, 1).
        largest_change: of the value of one image, if there is one, as in :func:`estimate`.
    """

    half_width: float
    population: int
    chip_cost: float
    most: int = 10_000
    level: float = 0.95
    largest_change: float = 0.0

    def __post_init__(self) -> None:
        check_number("half_width", self.half_width, above=0)
        check_number("chip_cost", self.chip_cost, minimum=0)
        check_integer("population", self.population, minimum=1)
        check_integer("most", self.most, minimum=2)

    def next(self, chips: Sequence[tuple[float, float, int]]) -> Step | None:
        """Return what to do after some chips; None if the interval is narrow enough or no more chips are allowed.

        Args:
            chips: value, variance of the value, images of each chip so far, the first first.
        """
        done = len(chips)
        if done < PILOT and done < self.most:
            first = min(PILOT, self.most)
            return Step(first, self._images_of_pilot(), first)
        now = self.summary(chips)
        if done >= self.most:
            return None
        if not self._tells(chips):
            # Few images change: more of them, or variances that are small by chance pass for the true ones.
            choices = self._choices()
            twice = min(int(np.searchsorted(choices, 2 * chips[-1][2])), choices.size - 1)
            until = min(done + PILOT // 2, self.most)
            return Step(until, int(choices[twice]), until)
        if now.half_width <= self.half_width:
            return None
        more, images = self._cheapest(now)
        # Halfway: the variances are not known well before, and no chip is to be run in vain.
        until = min(done + max(math.ceil(more / 2), _LEAST_STEP), self.most)
        return Step(until, images, min(max(done + math.ceil(more), until), self.most))

    def summary(self, chips: Sequence[tuple[float, float, int]]) -> Estimate:
        """Return the mean over chips with its interval."""
        values, variances, images = zip(*chips, strict=True)
        return estimate(values, variances, images, self.population, self.level, self.largest_change)

    def _tells(self, chips: Sequence[tuple[float, float, int]]) -> bool:
        """Tell whether variances can be believed: enough chips have changed images, or so many images are unchanged."""
        telling = sum(variance > 0 or images == self.population for _, variance, images in chips)
        seen = sum(images for *_, images in chips)
        return telling >= PILOT or 0 < _UNCHANGED * self.largest_change / seen <= self.half_width

    def _cheapest(self, now: Estimate) -> tuple[float, int]:
        """Return how many chips more it takes, and on how many images each, at the least cost."""
        images = self._choices()
        quantile = stats.t.ppf((1 + self.level) / 2, now.chips - 1)
        # What is close to nothing within its error is taken for a part of that: many images are run in vain if in
        # truth the chips differ, while few cost little if they do not.
        between = max(now.chip_variance, now.chip_variance_error / 2)
        information = (quantile / self.half_width) ** 2 - (quantile / now.half_width) ** 2
        more = information * (between + (1 - images / self.population) * now.image_variance / images)
        more = np.maximum(more, _LEAST_STEP)
        best = np.argmin(more * (self.chip_cost + images))
        return float(more[best]), int(images[best])

    def _images_of_pilot(self) -> int:
        images = self._choices()
        best = math.sqrt(max(self.chip_cost, 1.0) / _CHIP_VARIANCE)
        return int(images[np.argmin(np.abs(np.log(images / best)))])

    def _choices(self) -> NDArray[np.int64]:
        """Return the numbers of images into which all of them can be divided evenly, but for a remainder."""
        return np.unique(self.population // np.arange(1, max(self.population // LEAST_IMAGES, 1) + 1))


def chips_for(half_width: float, chip_variance: float, level: float) -> int:
    """Return how many chips, run on all images, have an interval that is no wider; at least two.

    Args:
        half_width: > 0.
        chip_variance: variance between chips, >= 0.
        level: of the interval, in (0, 1).
    """
    if not chip_variance:
        return 2
    normal = float(stats.norm.ppf((1 + level) / 2))
    chips = max(math.ceil(chip_variance * (normal / half_width) ** 2), 2)  # Student's quantile is a little larger
    while stats.t.ppf((1 + level) / 2, chips - 1) * math.sqrt(chip_variance / chips) > half_width:
        chips += 1
    return chips
