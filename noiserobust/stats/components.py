"""The two uncertainties of a robustness claim, kept apart.

Model: ``A[m, k] = mu + seed_m + noise_mk``, the accuracy of train seed m on chip (noise draw) k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiserobust.stats.intervals import as_values


def seed_means(values: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Return the mean over noise draws for each train seed.

    Args:
        values: for each train seed the values of its draws; the numbers of draws may differ.
    """
    return np.array([np.mean(as_values(v, finite=False)) for v in values])


def noise_std(values: Sequence[ArrayLike]) -> float:
    """Return the noise uncertainty ``sqrt(mean_m var_k A[m, k])``, ddof = 1: the spread over chips.

    NaN (not estimable) if a seed has fewer than two draws.

    >>> noise_std([[80.0, 82.0], [90.0, 90.0]])
    1.0
    """
    rows = [as_values(v, finite=False) for v in values]
    if not rows or any(row.size < 2 for row in rows):
        return float("nan")
    return float(np.sqrt(np.mean([np.var(row, ddof=1) for row in rows])))


def seed_std(values: Sequence[ArrayLike]) -> float:
    """Return the seed uncertainty, the standard deviation over seeds of the mean over draws, ddof = 1.

    NaN (not estimable) with fewer than two seeds.

    >>> round(seed_std([[80.0, 82.0], [90.0, 92.0]]), 6)
    7.071068
    """
    means = seed_means(values)
    return float(np.std(means, ddof=1)) if means.size >= 2 else float("nan")


@dataclass(frozen=True)
class Components:
    """Variances of the model.

    Attributes:
        noise: variance over chips, sigma_noise^2.
        seed: variance over train seeds, sigma_seed^2, without what is left of the noise in a mean over K chips.
        negative: whether the estimate of ``seed`` was negative, and is 0 for that reason: the trainings differ by no
            more than their chips explain.
    """

    noise: float
    seed: float
    negative: bool


def variance_components(values: Sequence[ArrayLike]) -> Components:
    """Return the variances over chips and over train seeds, by the method of moments.

    ``seed = var_m(mean_k A[m, k]) - noise * mean_m(1 / K_m)``. NaN is what cannot be estimated: ``noise`` if a seed has
    one draw, ``seed`` then and with one seed.

    Args:
        values: for each train seed the values of its draws.

    Source: S. R. Searle, G. Casella and C. E. McCulloch, "Variance Components", Wiley 1992, ch. 3; for unequal numbers
    of draws with means of train seeds that count the same.

    >>> variance_components([[80.0, 84.0], [80.0, 84.0]])
    Components(noise=8.0, seed=0.0, negative=True)
    """
    rows = [as_values(v, finite=False) for v in values]
    known = bool(rows) and all(row.size > 1 for row in rows)
    noise = float(np.mean([np.var(row, ddof=1) for row in rows])) if known else float("nan")
    between = float(np.var(seed_means(rows), ddof=1)) if len(rows) > 1 else float("nan")
    seed = between - noise * float(np.mean([1 / row.size for row in rows])) if known else float("nan")
    return Components(noise, max(seed, 0.0) if np.isfinite(seed) else float("nan"), seed < 0)
