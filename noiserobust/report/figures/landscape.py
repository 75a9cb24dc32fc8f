"""The loss around trained weights: along a line, over a plane, and as a surface."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import NDArray

from noiserobust.report.figures.looks import Look
from noiserobust.report.figures.panels import LINES, Panel, Series, draw_panels
from noiserobust.report.figures.style import CARD, INK, draw, look, shorten
from noiserobust.results.landscapes import SPLITS
from noiserobust.results.schema import is_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEPS = 12  # colours between the lowest and the highest level
_ROBUST = 0.9  # share of all points at or below the highest level
_DEEPEST = 1e-3  # the lowest level, at least, as a share of the highest: a loss may be zero
_MAP = "viridis"


@dataclass(frozen=True)
class Plane:
    """A landscape over a plane.

    Attributes:
        method: whose.
        split: of the data.
        x: multiples of the first direction, ascending.
        y: multiples of the second direction, ascending.
        z: values, shape ``(len(y), len(x))``; infinite where the loss explodes, NaN is what is missing.
    """

    method: str
    split: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    z: NDArray[np.float64]

    @property
    def lowest(self) -> tuple[float, float, float]:
        """x, y and value of the minimum."""
        row, column = np.unravel_index(np.nanargmin(self.z), self.z.shape)
        return float(self.x[column]), float(self.y[row]), float(self.z[row, column])


def planes_of(frame: pd.DataFrame, metric: str = "loss") -> list[Plane]:
    """Return the landscapes over planes, by method in the order of the rows, training data first.

    Args:
        frame: with the columns of ``landscape.csv``; of several weights of a method the first train seed is taken.
        metric: ``loss`` or ``accuracy``.
    """
    own = frame[(frame["metric"] == metric) & frame["y"].notna()]
    planes = []
    for method in dict.fromkeys(own["method"]):
        for split in SPLITS:
            rows = own[(own["method"] == method) & (own["split"] == split)]
            if len(rows):
                first = rows.sort_values(["train_seed", "weights"], kind="stable").iloc[0]
                rows = rows[(rows["train_seed"] == first["train_seed"]) & (rows["weights"] == first["weights"])]
                table = rows.pivot(index="y", columns="x", values="value").sort_index().sort_index(axis=1)
                x, y = table.columns.to_numpy(dtype=float), table.index.to_numpy(dtype=float)
                if len(x) > 1 and len(y) > 1:
                    planes.append(Plane(str(method), split, x, y, table.to_numpy(dtype=float)))
    return planes


def levels_of(planes: Sequence[Plane], metric: str = "loss") -> NDArray[np.float64]:
    """Return the levels at which the colours of all planes change, ascending.

    They are spaced logarithmically for a loss, evenly for an accuracy, and end where nine in ten of all points lie
    below: a corner in which the loss explodes would leave one colour for all the rest.
    """
    values = np.concatenate([plane.z[np.isfinite(plane.z)] for plane in planes])
    if not len(values):  # it explodes everywhere
        return _flat(0.0)
    low, high = float(values.min()), float(np.quantile(values, _ROBUST))
    if is_accuracy(metric):
        low, high = float(np.quantile(values, 1 - _ROBUST)), float(values.max())
    elif high > 0:
        return np.geomspace(max(low, _DEEPEST * high), high * (1 + 1e-9), _STEPS) if high > low else _flat(low)
    return np.linspace(low, high, _STEPS) if high > low else _flat(low)


def _flat(value: float) -> NDArray[np.float64]:
    return value + max(abs(value), 1.0) * np.linspace(-0.01, 0.01, _STEPS)


def curves_of(
    frame: pd.DataFrame, looks: Mapping[str, Look] | None = None, folders: Mapping[str, Any] | None = None
) -> list[Panel]:
    """Return panels of landscapes along one direction: training data left, test data right, loss above accuracy.

    A line ends where the loss explodes.

    Args:
        frame: with the columns of ``landscape.csv``; of several weights of a train seed the first are taken.
        looks: of the methods; by default those of a report.
        folders: where each method was read.
    """
    own = frame[frame["y"].isna()]
    methods = [str(m) for m in dict.fromkeys(own["method"])]
    looks = looks or {m: Look(*look(methods, m)) for m in methods}
    panels: list[Panel] = []
    names = {"loss": "loss", "accuracy": "accuracy (%)"}
    splits = [split for split in SPLITS if split in set(own["split"])]
    for metric in [m for m in names if m in set(own["metric"])]:
        for split in splits:
            rows = own[(own["metric"] == metric) & (own["split"] == split)]
            first = rows.groupby(["method", "train_seed"])["weights"].transform("min")
            rows = rows[rows["weights"] == first]
            series = []
            for method in methods:
                part = rows[rows["method"] == method]
                if len(part):
                    part = part[np.isfinite(part["value"])]
                    points = pd.DataFrame({"train_seed": part["train_seed"], "at": part["x"], "x": part["x"]})
                    where = (folders or {}).get(method, ())
                    series.append(Series(method, looks[method], points.assign(y=part["value"]), where))
            if series:
                title = f"({'abcd'[len(panels)]}) {'training' if split == 'train' else 'test'} data"
                panels.append(Panel(LINES, title, "distance along the direction", names[metric], tuple(series)))
    return panels


def draw_landscape(
    frame: pd.DataFrame, size: tuple[float, float] | None = None, kinds: Sequence[str] = ("svg",), *, metric: str = ""
) -> Mapping[str, bytes]:
    """Return a picture of landscapes as the bytes of files: curves of one direction, contours of two.

    Args:
        frame: with the columns of ``landscape.csv``; if both kinds are in it, contours are drawn.
        size: width and height in inches; by default what can be read.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
        metric: of contours; by default the first.
    """
    planes = planes_of(frame, metric or str(frame["metric"].iloc[0]))
    if planes:
        return draw_contours(planes, size, kinds, metric=metric or str(frame["metric"].iloc[0]))
    return draw_panels(curves_of(frame), size, kinds)


def draw_contours(
    planes: Sequence[Plane],
    size: tuple[float, float] | None = None,
    kinds: Sequence[str] = ("svg",),
    *,
    metric: str = "loss",
) -> Mapping[str, bytes]:
    """Return contours as the bytes of files, a panel a method and split, colours alike in all; minima have a cross.

    Args:
        planes: at least one.
        size: width and height in inches; by default what can be read.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
        metric: what the values are.
    """
    levels = levels_of(planes, metric)

    def plot(axes: Axes, plane: Plane) -> Any:
        norm, shades = BoundaryNorm(levels, 256, extend="both"), colormaps[_MAP]
        values = np.where(np.isposinf(plane.z), 2 * levels[-1], plane.z)
        filled = axes.contourf(plane.x, plane.y, values, levels, cmap=shades, norm=norm, extend="both")
        filled.set_rasterized(True)  # as outlines they would take ten times as much
        inks = [CARD if place < _STEPS / 2 else INK for place in range(1, _STEPS, 2)]  # against dark and light colours
        lines = axes.contour(plane.x, plane.y, values, levels[1::2], colors=inks, linewidths=0.5)
        lines.clabel(fontsize=6, fmt=_short, inline_spacing=2)
        x, y, lowest = plane.lowest
        if np.isfinite(lowest):
            axes.plot(x, y, "+", color="#d55e00", markersize=7, markeredgewidth=1.4)
        axes.set_aspect("equal", adjustable="box")
        axes.grid(visible=False)
        _ticks(axes, plane)
        return filled

    def figure_of(figure: Figure) -> None:
        grid = _grid(figure, planes, None)
        drawn = [plot(axes, plane) for axes, plane in zip(grid, planes, strict=True)]
        bar = figure.colorbar(drawn[0], ax=list(grid), shrink=min(1.0, 2.6 / figure.get_figheight()), pad=0.02)
        bar.set_ticks(list(levels[::2]), labels=[_short(v) for v in levels[::2]])
        bar.set_label(_unit(metric))

    return draw(figure_of, size or planes_size(planes, narrow=False), kinds)


def draw_surfaces(
    planes: Sequence[Plane],
    size: tuple[float, float] | None = None,
    kinds: Sequence[str] = ("svg",),
    *,
    metric: str = "loss",
) -> Mapping[str, bytes]:
    """Return the same in three dimensions; values above the highest level are cut there.

    Args:
        planes: at least one.
        size: width and height in inches; by default what can be read.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
        metric: what the values are.
    """
    levels = levels_of(planes, metric)
    logarithmic = not is_accuracy(metric) and levels[0] > 0

    def figure_of(figure: Figure) -> None:
        for axes, plane in zip(_grid(figure, planes, "3d"), planes, strict=True):
            solid: Any = axes  # of mplot3d, which has no types
            height = np.clip(plane.z, levels[0], levels[-1])
            height = np.log10(height) if logarithmic else height
            x, y = np.meshgrid(plane.x, plane.y)
            ends = np.log10(levels[[0, -1]]) if logarithmic else levels[[0, -1]]
            shape = {"rcount": 60, "ccount": 60, "linewidth": 0, "antialiased": False}
            surface = solid.plot_surface(x, y, height, cmap=_MAP, vmin=ends[0], vmax=ends[1], **shape)
            solid.set_zlim(*ends)
            surface.set_rasterized(True)
            shown = levels[:: (_STEPS - 1) // 3]
            solid.set_zticks(np.log10(shown) if logarithmic else shown, labels=[_short(v) for v in shown])
            solid.view_init(elev=28, azim=-60)
            solid.tick_params(labelsize=6, pad=-2)
            _ticks(solid, plane)
        figure.supxlabel(f"height: {_unit(metric)}", fontsize=9)

    return draw(figure_of, size or planes_size(planes, narrow=False), kinds)


def planes_size(planes: Sequence[Plane], *, narrow: bool) -> tuple[float, float]:
    """Return width and height in inches at which planes can be read."""
    columns = 2 if narrow else _columns(planes)
    rows = math.ceil(len(_places(planes, columns)) / columns)
    side = 1.7 if narrow else 2.2 if columns > 2 else 2.8
    return columns * side + (0.7 if narrow else 1.2), rows * (side + 0.25) + 0.2


def _columns(planes: Sequence[Plane]) -> int:
    methods = len({plane.method for plane in planes})
    return min(4 if methods == 4 else 3, methods) if methods > 2 else min(2, len(planes))


def _places(planes: Sequence[Plane], columns: int) -> list[Plane | None]:
    """Return the planes by rows: a row a method where there are two columns, else a block of rows a split."""
    if columns <= 2:
        return list(planes)
    placed: list[Plane | None] = []
    for split in SPLITS:
        own = [plane for plane in planes if plane.split == split]
        placed += [*own, *[None] * (-len(own) % columns)]
    return placed


def _grid(figure: Figure, planes: Sequence[Plane], projection: str | None) -> list[Axes]:
    """Return axes for the planes, in their order, with titles."""
    narrow = figure.get_figwidth() < 4.5
    columns = min(2, len(planes)) if narrow else _columns(planes)
    placed = _places(planes, columns)
    rows = math.ceil(len(placed) / columns)
    found: dict[int, Axes] = {}
    for place, plane in enumerate(placed, start=1):
        if plane is not None:
            axes = figure.add_subplot(rows, columns, place, projection=projection)
            data = "training" if plane.split == "train" else "test"
            title = f"{shorten(plane.method, 14 if narrow else 22)}, {data}"
            axes.set_title(title, fontsize=7.5 if narrow else 8.5, color=INK, parse_math=False)
            found[id(plane)] = axes
    return [found[id(plane)] for plane in planes]


def _ticks(axes: Any, plane: Plane) -> None:
    for axis, places in ((axes.xaxis, plane.x), (axes.yaxis, plane.y)):
        axis.set_major_locator(FixedLocator(sorted({places[0], 0.0, places[-1]})))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _unit(metric: str) -> str:
    return "accuracy (%)" if is_accuracy(metric) else f"{metric}, log scale"


def _short(value: float) -> str:
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.2g}"
