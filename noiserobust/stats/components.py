"""The two uncertainties of a robustness claim, kept apart.

Model: ``A[m, k] = mu + seed_m + noise_mk``, the accuracy of train seed m on chip (noise draw) k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def seed_means(values: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Return the mean over noise draws for each train seed.

    Args:
        values: for each train seed the values of its draws; the numbers of draws may differ.
    """
    return np.array([np.mean(np.asarray(v, dtype=np.float64)) for v in values])


def noise_std(values: Sequence[ArrayLike]) -> float:
    """Return the noise uncertainty ``sqrt(mean_m var_k A[m, k])``, ddof = 1: the spread over chips.

    NaN (not estimable) if a seed has fewer than two draws.

    >>> noise_std([[80.0, 82.0], [90.0, 90.0]])
    1.0
    """
    rows = [np.asarray(v, dtype=np.float64) for v in values]
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
