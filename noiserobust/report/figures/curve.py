"""Accuracy against level, both uncertainties shown apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from noiserobust.report.figures.levels import scale_levels
from noiserobust.report.figures.style import CARD, GREY, draw, look, shorten, spread
from noiserobust.report.tables import CLEAN, NoiseTable, format_number
from noiserobust.results.schema import is_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_curve(
    table: NoiseTable, methods: Sequence[str], size: tuple[float, float], kinds: Sequence[str] = ("svg",)
) -> Mapping[str, bytes]:
    """Return the figure of a table as the bytes of files.

    Args:
        table: the numbers.
        methods: all methods of the report, so that each keeps its colour and marker over all figures.
        size: width and height in inches.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
    """
    return draw(lambda figure: _plot(figure, table, methods, narrow=size[0] < 6), size, kinds)


def describe(table: NoiseTable) -> str:
    """Return the figure in words: its main numbers, for those who cannot see it."""
    what = f"{table.metric} in percent" if is_accuracy(table.metric) else table.metric
    against = "time since programming" if table.level_name == "t" else table.level_name
    sentences = []
    for method in table.methods:
        points = [level for level in table.columns if (method, level) in table.cells]
        ends = [points[0], points[-1]] if len(points) > 1 else points
        said = [
            f"{format_number(table.cells[method, level].mean, table.metric)} "
            + ("without noise" if level == CLEAN else f"at {table.format_level(level)}")
            for level in ends
        ]
        sentences.append(f"{method}: {', '.join(said)}")
    return f"Mean {what} against {against} under {table.noise}. {'; '.join(sentences)}."


def _plot(figure: Figure, table: NoiseTable, methods: Sequence[str], *, narrow: bool) -> None:
    axes = figure.add_subplot()
    shown = [m for m in methods if m in table.methods]
    step = min(4.0, 16.0 / len(shown))
    for place, method in enumerate(shown):
        _plot_method(axes, table, method, look(methods, method), shift=(place - (len(shown) - 1) / 2) * step)
    scale_levels(axes, table, narrow=narrow, said="the same chips followed")
    _limit_values(axes, table)
    axes.set_ylabel(f"{table.metric} (%)" if is_accuracy(table.metric) else table.metric, parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    _label_methods(axes, table, shown, methods, height=0.75 * 72 * figure.get_figheight())
    figure.legend(handles=_legend(axes, table), loc="outside upper left", ncols=1 if narrow else 3)


def _plot_method(axes: Axes, table: NoiseTable, method: str, mark: tuple[str, str], shift: float) -> None:
    drift = table.level_name == "t"
    color, marker = mark
    # A time of 0 has no place on a log axis, and no noise is not an early time: it is a line of its own.
    levels = [level for level in (table.levels if drift else table.columns) if (method, level) in table.cells]
    cells = [table.cells[method, level] for level in levels]
    mean = np.array([c.mean for c in cells])
    # Sideways by points, not by data: the bars of the methods would hide one another.
    moved = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    if any(math.isfinite(c.seed_std) for c in cells):
        seed = np.array([c.seed_std for c in cells])
        axes.fill_between(
            levels, mean - seed, mean + seed, color=color, alpha=0.2, linewidth=0, zorder=2, transform=moved
        )
    noise = np.array([c.noise_std for c in cells])
    axes.errorbar(
        levels,
        mean,
        yerr=np.where(np.isfinite(noise), noise, 0.0) if np.isfinite(noise).any() else None,
        color=color,
        marker=marker,
        markeredgecolor=CARD,
        markeredgewidth=0.6,
        elinewidth=1.1,
        capsize=2.5,
        zorder=3,
        transform=moved,
    )
    if drift and (method, CLEAN) in table.cells:
        axes.axhline(table.cells[method, CLEAN].mean, color=color, linestyle=(0, (4, 3)), linewidth=1, zorder=1)


def _limit_values(axes: Axes, table: NoiseTable) -> None:
    ends = []
    for cell in table.cells.values():
        reach = max(np.nan_to_num([cell.noise_std, cell.seed_std]))
        ends += [cell.mean - reach, cell.mean + reach]
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low) or 0.5
    top = high + room
    if is_accuracy(table.metric):
        # No tick above 100%, though a bar may reach there.
        top = max(high, min(top, 100.8))
    axes.set_ylim(low - room, top)


def _label_methods(axes: Axes, table: NoiseTable, shown: Sequence[str], methods: Sequence[str], height: float) -> None:
    """Write each method's name beside the end of its curve, names pushed apart where curves meet."""
    last = {m: max(level for key, level in table.cells if key == m) for m in shown}
    low, high = axes.get_ylim()
    at = [(table.cells[m, last[m]].mean - low) / (high - low) for m in shown]
    names = [shorten(m, 18) for m in shown]
    names = names if len(set(names)) == len(names) else list(shown)
    for method, name, y in zip(shown, names, spread(at, 12 / height), strict=True):
        color, _ = look(methods, method)
        end = table.cells[method, last[method]].mean
        drift_without_levels = table.level_name == "t" and last[method] == CLEAN
        # To the start of the name: by default it would go for the middle, and through the name where it is steep.
        leader = {"arrowstyle": "-", "relpos": (0, 0.5), "color": color, "linewidth": 0.8, "alpha": 0.7}
        axes.annotate(
            name,
            xy=(1.0, end) if drift_without_levels else (last[method], end),
            xycoords=axes.get_yaxis_transform() if drift_without_levels else "data",
            xytext=(1.03, y),
            textcoords="axes fraction",
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={**leader, "shrinkA": 1, "shrinkB": 9},
        )


def _legend(axes: Axes, table: NoiseTable) -> list[Any]:
    """Say which mark is which uncertainty, and which one there is none of."""
    cells = table.cells.values()
    handles: list[Any] = []
    if any(math.isfinite(c.noise_std) for c in cells):
        bar = axes.errorbar(
            [],
            [],
            yerr=[],
            color=GREY,
            linestyle="none",
            elinewidth=1.1,
            capsize=2.5,
            label="bar: ± noise std over chips",
        )
        handles.append(bar)
    if any(math.isfinite(c.seed_std) for c in cells):
        some = any(c.n_seeds == 1 for c in cells)
        label = "band: ± seed std over trainings" + (" (one weight file: none)" if some else "")
        handles.append(Patch(facecolor=GREY, alpha=0.35, linewidth=0, label=label))
    else:
        handles.append(Line2D([], [], linestyle="none", label="seed std: not estimable (one weight file)"))
    if table.level_name == "t" and table.has_clean:
        handles.append(
            Line2D([], [], color=GREY, linestyle=(0, (4, 3)), linewidth=1, label="dashed: clean, without noise")
        )
    return handles
