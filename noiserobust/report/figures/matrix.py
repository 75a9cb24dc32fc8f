"""Training levels against test levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from noiserobust.report.figures.style import draw, shorten


def draw_matrix(
    means: NDArray[np.float64],
    best: Sequence[int | None],
    rows: Sequence[str],
    columns: Sequence[str],
    labels: tuple[str, str],
    size: tuple[float, float],
    kinds: Sequence[str] = ("svg",),
) -> Mapping[str, bytes]:
    """Return a matrix of means, training levels by test levels, the best of each column framed.

    Args:
        means: shape ``(n_rows, n_columns)``; NaN is what is missing.
        best: for each column its best row, None where there is none.
        rows: names of the rows.
        columns: names of the columns.
        labels: what rows and columns are.
        size: width and height in inches.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
    """

    def plot(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.grid(visible=False)
        axes.imshow(means, cmap="Blues", aspect="auto", vmin=np.nanmin(means) - 0.3 * np.ptp(means[~np.isnan(means)]))
        middle = (np.nanmin(means) + np.nanmax(means)) / 2
        for (i, j), value in np.ndenumerate(means):
            if np.isfinite(value):
                ink = "white" if value > middle + 0.2 * (np.nanmax(means) - middle) else "black"
                weight = "bold" if best[j] == i else "normal"
                axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=ink, fontweight=weight)
        for j, i in ((j, i) for j, i in enumerate(best) if i is not None):
            axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, linewidth=1.6, edgecolor="#d55e00"))
        axes.set_xticks(range(len(columns)), labels=columns, parse_math=False)
        axes.set_yticks(range(len(rows)), labels=[shorten(r, 22) for r in rows], parse_math=False)
        axes.set_ylabel(labels[0], parse_math=False)
        axes.set_xlabel(labels[1], parse_math=False)

    return draw(plot, size, kinds)
