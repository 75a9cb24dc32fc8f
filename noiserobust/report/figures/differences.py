"""How far methods are from one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from noiserobust.report.figures.levels import scale_levels
from noiserobust.report.figures.style import INK, draw, look, name_marks, shorten
from noiserobust.report.tables import CLEAN, NoiseTable
from noiserobust.results.schema import is_accuracy


def draw_differences(
    comparison: pd.DataFrame,
    table: NoiseTable,
    baseline: str,
    methods: Sequence[str],
    size: tuple[float, float],
    kinds: Sequence[str] = ("svg",),
) -> Mapping[str, bytes]:
    """Return paired differences to a baseline against the level, with their intervals.

    Args:
        comparison: rows of :func:`noiserobust.results.claims.comparison_table` of one noise and metric.
        table: what the levels are called.
        baseline: what methods are compared with.
        methods: all methods of the report.
        size: width and height in inches.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
    """
    narrow = size[0] < 6

    def plot(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(0, color=INK, linewidth=0.9)
        shown = [m for m in methods if m in set(comparison["method"])]
        step = min(4.0, 16.0 / max(1, len(shown)))
        handles = []
        for place, method in enumerate(shown):
            color, marker = look(methods, method)
            rows = comparison[comparison["method"] == method].sort_values("level")
            if table.level_name == "t":
                rows = rows[rows["level"] > CLEAN]
            moved = axes.transData + ScaledTranslation(
                (place - (len(shown) - 1) / 2) * step / 72, 0, figure.dpi_scale_trans
            )
            known = rows.dropna(subset=["difference_low"])
            axes.vlines(
                known["level"],
                known["difference_low"],
                known["difference_high"],
                color=color,
                linewidth=1.2,
                transform=moved,
            )
            axes.plot(rows["level"], rows["difference"], color=color, marker=marker, markersize=4.5, transform=moved)
            handles.append(Line2D([], [], color=color, marker=marker, label=shorten(method, 24)))
        scale_levels(axes, table, narrow=narrow)
        _limit(axes, comparison)
        unit = "points" if is_accuracy(table.metric) else table.metric
        axes.set_ylabel(f"difference to {shorten(baseline, 18)} ({unit})", parse_math=False)
        name_marks(figure, handles, 2 if narrow else 5)

    return draw(plot, size, kinds)


def _limit(axes: Axes, comparison: pd.DataFrame) -> None:
    """Show all differences, and of their intervals what does not press them flat."""
    middle = comparison["difference"].dropna()
    if middle.empty:
        return
    reach = 3 * max(middle.max(), 0) - 3 * min(middle.min(), 0) or 1.0
    low = max(comparison["difference_low"].min(), min(middle.min(), 0) - reach)
    high = min(comparison["difference_high"].max(), max(middle.max(), 0) + reach)
    low, high = (v if pd.notna(v) else w for v, w in ((low, min(middle.min(), 0.0)), (high, max(middle.max(), 0.0))))
    low, high = min(low, middle.min()), max(high, middle.max())
    room = 0.06 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)
