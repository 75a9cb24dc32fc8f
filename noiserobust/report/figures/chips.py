"""How chips are spread at one level, and how many of them are good enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from noiserobust.report.figures.levels import scale_levels
from noiserobust.report.figures.style import GREY, INK, draw, look, name_marks, shorten
from noiserobust.report.tables import NoiseTable
from noiserobust.results.cells import Curve
from noiserobust.results.schema import is_accuracy
from noiserobust.stats.tails import performance_profile

_SPECS = 61


@dataclass(frozen=True)
class Profiles:
    """Shares of chips that reach what is asked for, at one level.

    Attributes:
        specs: what is asked for, ascending.
        shares: by method the share that reaches each, and the ends of its interval.
    """

    specs: NDArray[np.float64]
    shares: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]


def profiles_of(curves: Sequence[Curve], level: float, spec: float) -> Profiles:
    """Return the profiles of methods over the range of their chips.

    Args:
        curves: one a method, each with chips at the level.
        level: the level.
        spec: a specification that the range is to contain.
    """
    values = {curve.method: [c.values for c in curve.chips[level].values()] for curve in curves}
    everything = np.concatenate([v for rows in values.values() for v in rows])
    low, high = min(everything.min(), spec), max(everything.max(), spec)
    room = 0.04 * (high - low) or 0.5
    specs = np.linspace(low - room, high + room, _SPECS)
    return Profiles(specs, {method: performance_profile(rows, specs) for method, rows in values.items()})


def draw_chips(
    curves: Sequence[Curve],
    level: float,
    spec: float | None,
    methods: Sequence[str],
    at: str,
    size: tuple[float, float],
    kinds: Sequence[str] = ("svg",),
) -> Mapping[str, bytes]:
    """Return violins of the chips of each method, with a point a chip and a column a weight file.

    Args:
        curves: one a method, each with chips at the level.
        level: the level.
        spec: a line is drawn there; None for none.
        methods: all methods of the report.
        at: what the level is called.
        size: width and height in inches.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
    """

    def plot(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, curve in enumerate(curves):
            color, _ = look(methods, curve.method)
            seeds = [chips.values for chips in curve.chips[level].values()]
            together = np.concatenate(seeds)
            if np.ptp(together) > 0:
                body = axes.violinplot([together], [place], widths=0.85, showextrema=False)["bodies"][0]  # type: ignore[index]
                body.set(facecolor=color, alpha=0.18, linewidth=0)
            columns = np.linspace(-0.25, 0.25, len(seeds)) if len(seeds) > 1 else [0.0]
            for shift, values in zip(columns, seeds, strict=True):
                axes.plot(np.full(values.size, place + shift), values, "o", color=color, markersize=2.6, alpha=0.55)
                axes.plot([place + shift - 0.06, place + shift + 0.06], [values.mean()] * 2, color=INK, linewidth=1.4)
        if spec is not None:
            axes.axhline(spec, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.set_xticks(range(len(curves)))
        names = [shorten(c.method, 18) for c in curves]
        slanted = sum(map(len, names)) > 14 * size[0]
        axes.set_xticklabels(
            names, rotation=35 if slanted else 0, ha="right" if slanted else "center", parse_math=False
        )
        axes.tick_params(axis="x", length=0)
        metric = curves[0].metric
        axes.set_ylabel(f"{metric} (%)" if is_accuracy(metric) else metric, parse_math=False)
        axes.set_xlabel(at, parse_math=False)
        handles = [
            Line2D(
                [], [], color=GREY, marker="o", markersize=2.6, linestyle="none", label="a chip; a column: one training"
            ),
            Line2D([], [], color=INK, linewidth=1.4, label="mean of a training"),
        ]
        if spec is not None:
            handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"spec {spec:g}"))
        name_marks(figure, handles, 1 if size[0] < 6 else 3)

    return draw(plot, size, kinds)


def draw_yield(
    profiles: Profiles,
    level: float,
    spec: float,
    table: NoiseTable,
    yields: Mapping[tuple[str, float], tuple[float, float, float]],
    methods: Sequence[str],
    size: tuple[float, float],
    kinds: Sequence[str] = ("svg",),
) -> Mapping[str, bytes]:
    """Return the yield curves: against what is asked for at one level, and against the level for one specification.

    Args:
        profiles: the first.
        level: at which they are.
        spec: the specification of the second.
        table: what the levels are called.
        yields: share and interval by method and level, for the second.
        methods: all methods of the report.
        size: width and height in inches.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
    """
    narrow = size[0] < 6

    def plot(figure: Figure) -> None:
        left, right = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        unit = "%" if is_accuracy(table.metric) else ""
        _plot_profiles(left, profiles, spec, methods)
        left.set_xlabel(f"{table.metric} ({unit}) that is asked for" if unit else table.metric, parse_math=False)
        left.set_title(f"at {table.level_name} = {table.format_level(level)}", parse_math=False)
        for method in profiles.shares:
            color, marker = look(methods, method)
            levels = [v for v in table.levels if (method, v) in yields]
            share, low, high = 100 * np.array([yields[method, v] for v in levels]).T
            right.plot(levels, share, color=color, marker=marker, markersize=4.5)
            right.fill_between(levels, low, high, color=color, alpha=0.13, linewidth=0)
        scale_levels(right, table, narrow=narrow)
        right.set_title(f"for {spec:g}{unit}", parse_math=False)
        for axes in (left, right):
            axes.set_ylim(-3, 103)
            axes.set_ylabel("yield, % of chips")
        handles = [
            Line2D([], [], color=look(methods, m)[0], marker=look(methods, m)[1], label=shorten(m, 24))
            for m in profiles.shares
        ]
        name_marks(figure, handles, 2 if narrow else 5)

    return draw(plot, size, kinds)


def _plot_profiles(axes: Axes, profiles: Profiles, spec: float, methods: Sequence[str]) -> None:
    """Draw the share of chips that reach each value, with its interval."""
    for method, (share, low, high) in profiles.shares.items():
        color, _ = look(methods, method)
        axes.plot(profiles.specs, 100 * share, color=color)
        axes.fill_between(profiles.specs, 100 * low, 100 * high, color=color, alpha=0.13, linewidth=0)
    axes.axvline(spec, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(profiles.specs[0], profiles.specs[-1])
