"""Accuracy against level, both uncertainties shown apart."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from noiserobust.report.tables import CLEAN, NoiseTable, format_number, is_accuracy
from noiserobust.times import SECONDS, format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE = Path(__file__).with_name("noiserobust.mplstyle")

WIDE, NARROW = (8.6, 4.3), (3.9, 4.1)
"""Sizes in inches: for a page or a paper, and for a telephone."""

INK, RULE, CARD = "#24292f", "#d0d7de", "#ffffff"

# Okabe & Ito, "Color universal design" (2008), without the yellow that white paper swallows; ink is their black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

_LANDMARKS = (1.0, 60.0, 3600.0, 86400.0, SECONDS["y"], 10 * SECONDS["y"], 100 * SECONDS["y"])


def draw_figure(table: NoiseTable, methods: Sequence[str], size: tuple[float, float], kind: str) -> bytes:
    """Return the figure of a table as the bytes of a file.

    Args:
        table: the numbers.
        methods: all methods of the report, so that each keeps its colour and marker over all figures.
        size: width and height in inches.
        kind: ``"png"`` or ``"svg"``.
    """
    with matplotlib.style.context(["default", str(STYLE)]):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        _plot(figure, table, methods, narrow=size[0] < 6)
        file = BytesIO()
        empty = ["Date", "Creator", "Format", "Type"] if kind == "svg" else ["Software"]
        with warnings.catch_warnings():
            # A method may be called by signs that the font of the PNG lacks; the SVG and the tables have them.
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
            figure.savefig(file, format=kind, metadata=dict.fromkeys(empty))
    return file.getvalue()


def inline_svg(svg: bytes, prefix: str) -> str:
    """Return an SVG file as an element for the page: own ids, colours of the theme, no sheet of its own."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true" focusable="false">', text, count=1)
    # xlink is history; without it the element needs no namespaces.
    text = text.replace("xlink:href=", "href=")
    for colour, variable in ((INK, "--ink"), (RULE, "--rule"), (CARD, "--card")):
        text = text.replace(colour, f"var({variable})")
    return text.strip()


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
    drift = table.level_name == "t"
    if drift:
        axes.set_xscale("log")
    shown = [m for m in methods if m in table.methods]
    step = min(4.0, 16.0 / len(shown))
    for place, method in enumerate(shown):
        index = list(methods).index(method)
        _plot_method(axes, table, method, index, shift=(place - (len(shown) - 1) / 2) * step)
    _limit_levels(axes, table)
    _limit_values(axes, table)
    _label_axes(axes, table, narrow=narrow)
    _label_methods(axes, table, shown, methods, height=0.75 * 72 * figure.get_figheight())
    figure.legend(handles=_legend(axes, table), loc="outside upper left", ncols=1 if narrow else 3)


def _plot_method(axes: Axes, table: NoiseTable, method: str, index: int, shift: float) -> None:
    drift = table.level_name == "t"
    color, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
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


def _label_axes(axes: Axes, table: NoiseTable, *, narrow: bool) -> None:
    axes.set_ylabel(f"{table.metric} (%)" if is_accuracy(table.metric) else table.metric, parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    name = shorten(table.noise, 30)
    if table.level_name != "t":
        axes.set_xlabel(f"{table.level_name} ({name})", parse_math=False)
        axes.xaxis.set_major_locator(_level_ticks(table, closest=0.12 if narrow else 0.05))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.6g}"))
        return
    followed = "the same chips followed"
    joint = "\n" if narrow else "; "
    axes.set_xlabel(f"time since programming, log scale{joint}{followed} ({name})", parse_math=False)
    axes.xaxis.set_major_locator(FixedLocator(time_ticks(table.levels)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_time(x)))


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


def _label_methods(axes: Axes, table: NoiseTable, shown: Sequence[str], methods: Sequence[str], height: float) -> None:
    """Write each method's name beside the end of its curve, names pushed apart where curves meet."""
    last = {m: max(level for key, level in table.cells if key == m) for m in shown}
    low, high = axes.get_ylim()
    at = [(table.cells[m, last[m]].mean - low) / (high - low) for m in shown]
    names = [shorten(m, 18) for m in shown]
    names = names if len(set(names)) == len(names) else list(shown)
    for method, name, y in zip(shown, names, spread(at, 12 / height), strict=True):
        color = PALETTE[list(methods).index(method) % len(PALETTE)]
        end = table.cells[method, last[method]].mean
        drift_without_levels = table.level_name == "t" and last[method] == CLEAN
        axes.annotate(
            name,
            xy=(1.0, end) if drift_without_levels else (last[method], end),
            xycoords=axes.get_yaxis_transform() if drift_without_levels else "data",
            xytext=(1.03, y),
            textcoords="axes fraction",
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.8, "alpha": 0.7, "shrinkA": 1, "shrinkB": 9},
        )


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Return positions in [0, 1] moved as little as a simple sweep does so that they are ``gap`` apart.

    >>> spread([0.5, 0.5, 0.9], 0.1)
    [0.5, 0.6, 0.9]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    gap = min(gap, 1 / max(1, len(order) - 1))
    placed = [min(max(p, 0.0), 1.0) for p in positions]
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    ceiling = 1.0
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def shorten(name: str, length: int) -> str:
    """Return a name of at most ``length`` signs, its middle left out if need be.

    >>> shorten("a-very-long-method-name", 11)
    'a-ver…-name'
    """
    if len(name) <= length:
        return name
    head = (length - 1 + 1) // 2
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


def _legend(axes: Axes, table: NoiseTable) -> list[Any]:
    """Say which mark is which uncertainty, and which one there is none of."""
    grey = "#6e7781"
    cells = table.cells.values()
    handles: list[Any] = []
    if any(math.isfinite(c.noise_std) for c in cells):
        bar = axes.errorbar(
            [],
            [],
            yerr=[],
            color=grey,
            linestyle="none",
            elinewidth=1.1,
            capsize=2.5,
            label="bar: ± noise std over chips",
        )
        handles.append(bar)
    if any(math.isfinite(c.seed_std) for c in cells):
        some = any(c.n_seeds == 1 for c in cells)
        label = "band: ± seed std over trainings" + (" (one weight file: none)" if some else "")
        handles.append(Patch(facecolor=grey, alpha=0.35, linewidth=0, label=label))
    else:
        handles.append(Line2D([], [], linestyle="none", label="seed std: not estimable (one weight file)"))
    if table.level_name == "t" and table.has_clean:
        handles.append(
            Line2D([], [], color=grey, linestyle=(0, (4, 3)), linewidth=1, label="dashed: clean, without noise")
        )
    return handles
