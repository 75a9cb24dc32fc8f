"""The axis of levels: numbers as they are, times on a logarithmic scale with names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, MaxNLocator, NullLocator

from noiserobust.report.figures.style import shorten
from noiserobust.report.tables import NoiseTable
from noiserobust.times import SECONDS, format_time

_LANDMARKS = (1.0, 60.0, 3600.0, 86400.0, SECONDS["y"], 10 * SECONDS["y"], 100 * SECONDS["y"])


def scale_levels(axes: Axes, table: NoiseTable, *, narrow: bool, said: str = "") -> None:
    """Give the horizontal axis its scale, limits, ticks and label.

    Args:
        axes: of a figure.
        table: what the levels are.
        narrow: whether there is little room.
        said: what else to say of times.
    """
    name = shorten(table.noise, 30)
    if table.level_name != "t":
        _limit_levels(axes, table)
        axes.set_xlabel(f"{table.level_name} ({name})", parse_math=False)
        axes.xaxis.set_major_locator(_level_ticks(table, closest=0.12 if narrow else 0.05))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.6g}"))
        return
    axes.set_xscale("log")
    _limit_levels(axes, table)
    joint = "\n" if narrow else "; "
    log = f"time since programming, log scale{joint}{said} ({name})" if said else f"time since programming ({name})"
    axes.set_xlabel(log, parse_math=False)
    axes.xaxis.set_major_locator(FixedLocator(time_ticks(table.levels)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_time(x)))


def _limit_levels(axes: Axes, table: NoiseTable) -> None:
    """Leave 4% beside the outermost levels; what is drawn sideways does not count for matplotlib's own limits."""
    if table.level_name == "t":
        low, high = np.log10([min(table.levels, default=1.0), max(table.levels, default=1.0)])
        room = 0.04 * (high - low) or 0.5
        axes.set_xlim(10 ** (low - room), 10 ** (high + room))
    else:
        low, high = table.columns[0], table.columns[-1]
        room = 0.04 * (high - low) or 0.5 * high or 0.5
        axes.set_xlim(low - room, high + room)


def _level_ticks(table: NoiseTable, closest: float) -> Locator:
    """Put the ticks where the measurements are, unless they are too close for their labels."""
    levels = table.columns
    if len(levels) > 1 and min(b - a for a, b in pairwise(levels)) >= closest * (levels[-1] - levels[0]):
        return FixedLocator(levels)
    return MaxNLocator(5)


def time_ticks(levels: Sequence[float]) -> list[float]:
    """Return the ticks of a time axis: 1 s, 1 min, 1 h, 1 d, 1 y where they fall into it, else the levels."""
    ticks = [t for t in _LANDMARKS if levels and levels[0] <= t <= levels[-1]]
    return ticks if len(ticks) > 1 else list(levels)
