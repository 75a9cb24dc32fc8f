"""What is known of the chips of trainings that have not been made: populations that agree with the draws.

Model: ``A[m, k] = mu + seed_m + noise_mk``, train seeds normal, chips of any distribution that is the same for all
train seeds but for its place. A share of chips, such as a yield, is no mean of the train seeds for which Student's t
would hold: with three seeds and a yield of 92% its nominal 95% cover about 74%. Here mu, the variance of the seeds and
the distribution of the chips are drawn from their fiducial distributions instead, and with them whole populations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from noiserobust.errors import InvalidValueError

Array = NDArray[np.float64]

POPULATIONS, CHIPS = 1000, 500
"""How many populations are drawn, and of how many chips each."""

# Even quantiles in random order, a Latin hypercube: with so few draws chance would show in the coverage.
_EVEN = (np.arange(POPULATIONS) + 0.5) / POPULATIONS

_KEY = 0x6E6F697365  # the same numbers for all methods and levels: what differs between them is not the drawing


def populations(values: Sequence[ArrayLike]) -> tuple[Array, Array]:
    """Return populations of chips that agree with the draws.

    Args:
        values: for each train seed, at least two, the values of its draws, at least two; numbers may differ.

    Returns:
        Chips, shape ``(POPULATIONS, CHIPS)``, and for each population the share of chips that are unlike any that was
        drawn, of which nothing is known, shape ``(POPULATIONS,)``.

    Raises:
        InvalidValueError: if there are fewer than two train seeds, or draws of one.

    Source: generalised pivotal quantities of the one-way model with random effects, K. Krishnamoorthy and T. Mathew,
    "Statistical Tolerance Regions", Wiley 2009, ch. 5; the chips by the Bayesian bootstrap, D. B. Rubin, Ann. Statist.
    9 (1981), with half a value more that stands for those not drawn.
    """
    rows = [np.asarray(v, dtype=np.float64) for v in values]
    if len(rows) < 2 or min(row.size for row in rows) < 2:
        raise InvalidValueError(
            f"Expected `values` to have two train seeds with two draws at least, but got {[row.size for row in rows]}"
        )
    sizes = np.array([row.size for row in rows])
    means = np.array([row.mean() for row in rows])
    freedom = int((sizes - 1).sum())
    # In order, so that the order of draws and of train seeds does not matter.
    residuals = np.sort(np.concatenate([(row - row.mean()) * np.sqrt(row.size / (row.size - 1)) for row in rows]))
    within = sum(float(np.var(row, ddof=1)) * (row.size - 1) for row in rows)
    seeds, chips, normal = _pivots(len(rows), freedom)
    between = np.sum((means - means.mean()) ** 2) / seeds  # variance of the mean of a train seed
    centre = means.mean() + normal * np.sqrt(between / len(rows))
    spread = np.sqrt(np.maximum(between - within / chips * np.mean(1 / sizes), 0.0))
    picked, unlike = _picks(residuals.size)
    found = residuals[picked]
    # How far the mean may be off is in the centre already.
    found += (centre - found.mean(axis=1))[:, None]
    found += spread[:, None] * _scores()
    return found, unlike


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([_KEY, *key])))


@lru_cache(maxsize=64)
def _pivots(seeds: int, freedom: int) -> tuple[Array, Array, Array]:
    """Return what the sums of squares of train seeds and of chips are divided by, and a normal variable."""
    first, second, third = _generator(1, seeds, freedom).permuted(np.tile(_EVEN, (3, 1)), axis=1)
    return stats.chi2.ppf(first, seeds - 1), stats.chi2.ppf(second, freedom), stats.norm.ppf(third)


@lru_cache(maxsize=1)
def _scores() -> Array:
    """Return the places of train seeds among all, in standard deviations: each population has all of them."""
    even = stats.norm.ppf((np.arange(CHIPS) + 0.5) / CHIPS)
    return _generator(2).permuted(np.tile(even, (POPULATIONS, 1)), axis=1)


@lru_cache(maxsize=16)
def _picks(number: int) -> tuple[NDArray[np.int32], Array]:
    """Return for each population which of so many values its chips have, and the share of those not drawn."""
    generator = _generator(3, number)
    picked = np.empty((POPULATIONS, CHIPS), dtype=np.int32)
    unlike = np.empty(POPULATIONS)
    for i in range(POPULATIONS):
        ends = np.cumsum(generator.standard_exponential(number))
        # Half a value more, as in Jeffreys' interval of a share; with a whole one intervals cover more than they claim.
        rest = generator.standard_gamma(0.5)
        unlike[i] = rest / (rest + ends[-1])
        at = (np.arange(CHIPS) + generator.random()) / CHIPS * ends[-1]
        picked[i] = np.minimum(np.searchsorted(ends, at), number - 1)
    return picked, unlike
