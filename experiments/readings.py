"""Other noises as Gaussian noise by filter of another strength, over the same trained networks.

The paper's N(0, max|w| sigma^2) can be read in more ways than one: the largest weight of a filter or of the whole
tensor, a standard deviation or a variance. If another reading, at some level, does to each network what the default
does at another level, only the scale of sigma at test depends on how it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from recorded import SMALL, summary, table
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.stats import spearmanr

HERE = Path(__file__).parent
HEADS = ["noise", "at", "like sigma", "ratio", "RMS, points", "rank correlation"]
READINGS = {"gaussian-tensor": "largest weight of the tensor", "gaussian-sqrt-max": "variance"}


@dataclass(frozen=True)
class Likeness:
    """How alike a noise and Gaussian noise by filter are.

    Args:
        sigma: at which the mean over networks is the same.
        rms: root mean square over networks of what then differs, in points.
        rank: Spearman's correlation over networks, or NaN if there are fewer than three.
    """

    sigma: float
    rms: float
    rank: float


def likeness(levels: Sequence[float], curves: NDArray[np.float64], found: NDArray[np.float64]) -> Likeness | None:
    """Return how a noise of one level is like the default noise.

    Args:
        levels: of the default noise, ascending, ``(n,)``.
        curves: accuracy of each network at them, ``(networks, n)``.
        found: accuracy of each network under the other noise, ``(networks,)``.

    Returns:
        None if it is stronger or weaker than at any of the levels.
    """
    curve = PchipInterpolator(levels, curves, axis=1)

    def excess(sigma: float) -> float:
        return float(curve(sigma).mean() - found.mean())

    if excess(levels[0]) < 0 or excess(levels[-1]) > 0:
        return None
    sigma = float(brentq(excess, levels[0], levels[-1]))
    differences = curve(sigma) - found
    rank = spearmanr(curve(sigma), found).statistic if len(found) > 2 else float("nan")
    return Likeness(sigma, float(np.sqrt(np.mean(differences**2))), float(rank))


def rows() -> list[list[str]]:
    """Return a row for each noise and level: of the paper, Laplace only; of what is recorded, all."""
    ours = summary(SMALL)["mean"]
    methods = sorted(set(ours.xs("gaussian-tensor", level="noise").index.get_level_values("method")))
    return [
        *paper(),
        *_rows("Laplace", ours, "laplace", methods),
        *(row for noise, said in READINGS.items() for row in _rows(said, ours, noise, methods)),
    ]


def paper() -> list[list[str]]:
    """Return the rows of the paper's own numbers, of its tables 1, 2 and 4."""
    numbers = pd.read_csv(HERE / "incorruptible" / "published.csv").query("table in (1, 2, 4)")
    means = numbers.drop_duplicates(["method", "noise", "level"]).set_index(["method", "noise", "level"])["mean"]
    return _rows("paper, Laplace", means, "laplace", sorted(set(numbers.query("table == 4")["method"])))


def _rows(said: str, means: pd.Series[float], noise: str, methods: Sequence[str]) -> list[list[str]]:
    grid = means.loc[list(methods)].unstack("level")
    levels = [level for level, column in grid.xs("gaussian", level="noise").items() if column.notna().all()]
    curves = grid.xs("gaussian", level="noise")[levels].loc[list(methods)].to_numpy(float)
    rows = []
    for level, column in grid.xs(noise, level="noise").loc[list(methods)].items():
        if level == 0 or column.isna().any():
            continue
        like = likeness(levels, curves, column.to_numpy(float))
        cells = ["outside", "", "", ""]
        if like is not None:
            cells = [f"{like.sigma:.3f}", f"{like.sigma / level:.2f}", f"{like.rms:.1f}", f"{like.rank:.2f}"]
        rows.append([said, f"{level:g}", *cells])
    return rows


def readings() -> list[str]:
    """Return the table for a README."""
    return table(HEADS, rows())
