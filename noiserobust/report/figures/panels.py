"""Panels of lines and marks: what is drawn, and the drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from noiserobust.report.figures.levels import time_ticks
from noiserobust.report.figures.looks import DOTTED, Look
from noiserobust.report.figures.style import CARD, GREY, draw, name_marks, shorten
from noiserobust.times import format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES, PATHS, MARKS, LEVELS, DENSITY = "lines", "paths", "marks", "levels", "density"
"""Kinds of panels: over time; one quantity against another, with arrows in the direction of time; a mark a training; a
few values of a setting, marks joined by a line; a distribution."""

_SMALL = 7.5  # points, of what is written beside marks

_SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))  # of a mark, the best first

_ARROWS = (0.3, 0.65)  # where on a path, as shares of its length


@dataclass(frozen=True)
class Series:
    """What one training, or a group of them, has in a panel.

    Attributes:
        label: its name in the legend.
        look: of its lines and marks.
        frame: columns ``train_seed``, ``at`` (what the mean over train seeds is taken at, such as the step), ``x`` and
            ``y``; of marks and levels also ``text``, what is written beside them.
        folders: where it was read.
    """

    label: str
    look: Look
    frame: pd.DataFrame
    folders: tuple[Path, ...] = ()

    @property
    def mean(self) -> pd.DataFrame:
        """Mean over train seeds: columns ``at``, ``x``, ``y``, and ``x_std``, ``y_std`` over them (NaN for one)."""
        grouped = self.frame.groupby("at", sort=True)[["x", "y"]]
        spread = grouped.std(ddof=1).add_suffix("_std")
        mean: pd.DataFrame = grouped.mean().join(spread).assign(n=grouped.size()).reset_index()
        return mean

    @property
    def common_mean(self) -> pd.DataFrame:
        """The same, where all train seeds have a value: elsewhere the mean would jump as one ends."""
        mean = self.mean
        common: pd.DataFrame = mean[mean["n"] == self.frame["train_seed"].nunique()]
        return common


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        kind: see :data:`LINES` and the others.
        title: above it.
        xlabel: of the horizontal axis, with its unit.
        ylabel: of the vertical axis, with its unit.
        series: what is drawn.
        logx: whether the horizontal axis is logarithmic.
        logy: whether the vertical axis is.
        diagonal: whether x = y is drawn.
        verticals: dotted vertical lines, each a label and where.
        times: whether the horizontal axis is of times in seconds.
    """

    kind: str
    title: str
    xlabel: str
    ylabel: str
    series: tuple[Series, ...]
    logx: bool = False
    logy: bool = False
    diagonal: bool = False
    verticals: tuple[tuple[str, float], ...] = ()
    times: bool = False


def panels_size(panels: Sequence[Panel], *, narrow: bool) -> tuple[float, float]:
    """Return width and height in inches at which panels can be read."""
    rows, columns = _grid(len(panels), narrow=narrow)
    width = 3.9 if narrow else (5.0, 8.6, 10.2)[columns - 1]
    names = {s.label for panel in panels for s in panel.series}
    legend = 0.19 * math.ceil(len(names) / _legend_columns(names, width)) + 0.1
    return width, rows * (2.7 if narrow or columns == 3 else 3.1) + legend


def draw_panels(
    panels: Sequence[Panel], size: tuple[float, float] | None = None, kinds: Sequence[str] = ("svg",)
) -> Mapping[str, bytes]:
    """Return panels as the bytes of files: a thin line a train seed, a thick one for their mean.

    Args:
        panels: at least one.
        size: width and height in inches; by default :func:`panels_size`.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
    """
    size = size or panels_size(panels, narrow=False)

    def plot(figure: Figure) -> None:
        rows, columns = _grid(len(panels), narrow=size[0] < 4.5)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, panel in zip(grid, panels, strict=False):
            _plot(axes, panel)
        _name(figure, panels)

    return draw(plot, size, kinds)


def _grid(number: int, *, narrow: bool) -> tuple[int, int]:
    columns = 1 if narrow else {1: 1, 2: 2, 4: 2}.get(number, 3)
    return math.ceil(number / columns), columns


def _plot(axes: Axes, panel: Panel) -> None:
    {LINES: _plot_lines, PATHS: _plot_paths, MARKS: _plot_marks, LEVELS: _plot_levels, DENSITY: _plot_density}[
        panel.kind
    ](axes, panel.series)
    axes.set_xlabel(panel.xlabel, parse_math=False)
    axes.set_ylabel(panel.ylabel, parse_math=False)
    axes.set_title(panel.title, fontsize=9, loc="left", parse_math=False)
    _scale(axes, panel)
    if panel.kind in (MARKS, LEVELS):
        _write(axes, panel.series)
    if panel.diagonal:
        low = max(axes.get_xlim()[0], axes.get_ylim()[0])
        high = min(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.9, linestyle=DOTTED, zorder=1)
    for _, place in panel.verticals:
        axes.axvline(place, color=GREY, linewidth=1.0, linestyle=DOTTED, zorder=1)


def _scale(axes: Axes, panel: Panel) -> None:
    for axis, wanted, values in ((axes.xaxis, panel.logx, "x"), (axes.yaxis, panel.logy, "y")):
        if wanted and all((s.frame[values] > 0).all() for s in panel.series):
            (axes.set_xscale if values == "x" else axes.set_yscale)("log")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
            axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        elif values == "x":
            axis.set_major_locator(_ticks(panel))

    if panel.times:
        axes.xaxis.set_major_locator(FixedLocator(time_ticks(sorted({x for s in panel.series for x in s.frame["x"]}))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_time(x)))
        axes.xaxis.set_minor_locator(NullLocator())


def _ticks(panel: Panel) -> Locator:
    """Put the ticks where the few values of a setting are, unless they are too close for their labels."""
    places = sorted({float(x) for one in panel.series for x in one.frame["x"]}) if panel.kind == LEVELS else []
    if 1 < len(places) <= 8 and min(b - a for a, b in pairwise(places)) >= 0.1 * (places[-1] - places[0]):
        return FixedLocator(places)
    return MaxNLocator(6 if panel.kind == LINES else 5, steps=[1, 2, 5, 10])


def _plot_lines(axes: Axes, series: Sequence[Series]) -> None:
    for one in series:
        seeds = list(one.frame.groupby("train_seed"))
        alone = len(seeds) == 1
        for _, rows in seeds:
            rows = rows.sort_values("at")
            thin: dict[str, Any] = {} if alone else {"linewidth": 0.6, "alpha": 0.4}
            dot = one.look.marker if len(rows) == 1 else None  # no line goes through one point
            axes.plot(rows["x"], rows["y"], color=one.look.color, linestyle=one.look.dash, marker=dot, **thin)
        if not alone:
            mean = one.common_mean
            axes.plot(mean["x"], mean["y"], color=one.look.color, linestyle=one.look.dash)


def _plot_paths(axes: Axes, series: Sequence[Series]) -> None:
    _plot_lines(axes, series)
    axes.autoscale_view()
    for one in series:
        mean = one.common_mean if one.frame["train_seed"].nunique() > 1 else one.mean
        for share in _ARROWS:
            _arrow(axes, mean[["x", "y"]].to_numpy(), share, one.look.color)


def _arrow(axes: Axes, points: Any, share: float, color: str) -> None:
    """Draw the head of an arrow on a path at a share of its length as it is seen."""
    spans = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())])
    lengths = np.hypot(*(np.diff(points, axis=0) / spans).T)
    total = lengths.cumsum()
    if not len(total) or not total[-1] > 0:
        return
    step = int(np.searchsorted(total, share * total[-1]))
    start, end = points[max(0, step - len(points) // 20)], points[step + 1]  # over several: samples are noisy
    tail = end - (end - start) * min(1.0, 0.01 / max(np.hypot(*((end - start) / spans)), 1e-9))
    style = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9, "linewidth": 0.8}
    axes.annotate("", xy=end, xytext=tail, arrowprops=style)


def _plot_marks(axes: Axes, series: Sequence[Series]) -> None:
    for one in series:
        for _, row in one.mean.iterrows():
            _mark(axes, row, one.look, ("x_std", "y_std"))
    axes.margins(0.09)
    axes.grid(visible=True, axis="both")


def _plot_levels(axes: Axes, series: Sequence[Series]) -> None:
    for one in series:
        mean = one.mean.sort_values("x")
        axes.plot(mean["x"], mean["y"], color=one.look.color, linestyle=one.look.dash, linewidth=1.3)
        for _, row in mean.iterrows():
            _mark(axes, row, one.look, ("y_std",))
    axes.margins(y=0.09)


def _plot_density(axes: Axes, series: Sequence[Series]) -> None:
    for one in series:
        line = {"color": one.look.color, "linestyle": one.look.dash, "linewidth": 1.3}
        axes.plot(one.frame["x"], one.frame["y"], drawstyle="steps-mid", **line)
        axes.fill_between(one.frame["x"], one.frame["y"], step="mid", color=one.look.color, alpha=0.07, linewidth=0)
    axes.set_ylim(bottom=0)


def _mark(axes: Axes, row: pd.Series[Any], look: Look, spreads: Sequence[str]) -> None:
    error = {f"{name[0]}err": row[name] for name in spreads if np.isfinite(row[name])}
    drawn = axes.errorbar(
        row["x"],
        row["y"],
        **error,
        color=look.color,
        marker=look.marker,
        markersize=5.5,
        markerfacecolor=CARD if look.hollow else look.color,
        elinewidth=0.9,
        zorder=3,
    )
    for bar in drawn.lines[2]:
        bar.set_alpha(0.45)


def _write(axes: Axes, series: Sequence[Series]) -> None:
    """Write beside the marks what they are, where there is room."""
    marks, texts = [], []
    for one in series:
        if "text" in one.frame:
            said = one.frame.groupby("at")["text"].first()
            for _, row in one.mean.iterrows():
                marks.append((float(row["x"]), float(row["y"])))
                texts.append(str(said.loc[row["at"]]))
    if not any(texts):
        return
    axes.autoscale_view()
    points = axes.transData.transform(marks) * 72 / axes.figure.get_dpi()
    # Of text and of marks, from the lower left to the upper right.
    taken = [np.array([*(point - 3), *(point + 3)]) for point in points]
    for mark, point, text in zip(marks, points, texts, strict=True):
        if text:
            size = np.array([0.62 * _SMALL * len(text), _SMALL])
            centres = [point + np.array(side) * (size / 2 + gap) for gap in (4, 11) for side in _SIDES]
            boxes = [np.array([*(centre - size / 2), *(centre + size / 2)]) for centre in centres]
            crowded = [sum(_overlap(box, other) for other in taken) for box in boxes]
            best = int(np.argmin(crowded))
            taken.append(boxes[best])
            style: dict[str, Any] = {"fontsize": _SMALL, "color": GREY, "parse_math": False, "zorder": 4}
            offset = tuple(boxes[best][:2] - point)
            axes.annotate(text, mark, offset, textcoords="offset points", va="bottom", ha="left", **style)


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the area that two boxes share."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(np.prod(sides.clip(0)))


def _name(figure: Figure, panels: Sequence[Panel]) -> None:
    handles: dict[str, Line2D] = {}
    for panel in panels:
        for one in panel.series:
            marks: dict[str, Any] = {
                "marker": one.look.marker,
                "markersize": 5.5,
                "markerfacecolor": CARD if one.look.hollow else one.look.color,
            }
            line: Any = "none" if panel.kind == MARKS else one.look.dash
            handles.setdefault(
                one.label,
                Line2D(
                    [],
                    [],
                    color=one.look.color,
                    linestyle=line,
                    label=shorten(one.label, 30),
                    **(marks if panel.kind in (MARKS, LEVELS) else {}),
                ),
            )
    for panel in panels:
        for label, _ in panel.verticals[:1]:
            handles.setdefault(label, Line2D([], [], color=GREY, linewidth=1.0, linestyle=DOTTED, label=label))
    name_marks(figure, list(handles.values()), _legend_columns(handles, figure.get_figwidth()))


def _legend_columns(names: Any, width: float) -> int:
    longest = max((min(len(name), 30) for name in names), default=1)
    return max(1, int(13 * width / (longest + 6)))
