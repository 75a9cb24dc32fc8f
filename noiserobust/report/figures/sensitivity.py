"""Which layers a network cannot bear noise on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from noiserobust.report.figures.style import CARD, INK, RULE, draw, look, shorten
from noiserobust.results.schema import is_accuracy
from noiserobust.results.sensitivity import ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAR = 1.6  # how far beyond the values a reference line may be to be drawn among them


def natural_size(frame: pd.DataFrame) -> tuple[float, float]:
    """Return width and height in inches at which all layers can be read.

    Args:
        frame: with the columns of ``sensitivity.csv``.
    """
    methods, layers = frame["method"].nunique(), len(ranking(frame))
    return 8.6, 1.25 + 0.21 * methods**0.5 + max(layers, 3) * (0.19 + 0.05 * (min(methods, 4) - 1))


def draw_sensitivity(
    frame: pd.DataFrame,
    methods: Sequence[str] = (),
    size: tuple[float, float] | None = None,
    kinds: Sequence[str] = ("svg",),
) -> Mapping[str, bytes]:
    """Return a picture that ranks the layers as the bytes of files.

    On the left what is lost when noise falls on one layer only, on the right what is gained when it falls on all but
    that one; with intervals over train seeds where they can be estimated.

    Args:
        frame: with the columns of ``sensitivity.csv``, one noise, level and metric.
        methods: all methods of a report, so that each keeps its colour and marker over all figures.
        size: width and height in inches; by default :func:`natural_size`.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
    """
    shown = list(dict.fromkeys([*methods, *frame["method"]]))
    return draw(lambda figure: _plot(figure, frame, shown), size or natural_size(frame), kinds)


def _plot(figure: Figure, frame: pd.DataFrame, named: Sequence[str]) -> None:
    layers, methods = ranking(frame), list(dict.fromkeys(frame["method"]))
    looks = {method: look(named, method) for method in methods}
    narrow = figure.get_figwidth() < 6
    panels = figure.subplots(1, 2, sharey=True)
    step = 0.64 / len(methods)
    cut = dashed = False
    unit = "points" if is_accuracy(str(frame["metric"].iloc[0])) else str(frame["metric"].iloc[0])
    for axes, condition, sign, label in zip(
        panels, ("only", "except"), (-1.0, 1.0), (f"lost, {unit}", f"gained, {unit}"), strict=True
    ):
        shown = frame[frame["condition"] == condition]
        for index, method in enumerate(methods):
            rows = shown[shown["method"] == method].set_index("layer").loc[layers]
            shift = (index - (len(methods) - 1) / 2) * step
            _plot_method(axes, rows, sign, looks[method], shift, bars=len(methods) == 1)
        cut |= _limit(axes, sign * shown["change"], sign * shown[["change_low", "change_high"]])
        dashed |= _reference_lines(axes, frame, looks)
        axes.axvline(0, color=INK, linewidth=0.8, zorder=2)
        axes.grid(visible=True, axis="both", color=RULE)
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 6))
        axes.set_xlabel(label, parse_math=False)
    room = 72 * figure.get_figheight() / (len(layers) + 8)  # points a layer has
    places, names = range(len(layers)), _names(layers, 14 if narrow else 28)
    panels[0].set_yticks(places, names, fontsize=min(9, max(4.5, 0.75 * room)), parse_math=False)
    panels[0].set_ylim(len(layers) - 0.4, -0.6)
    panels[0].set_title("noise on this layer only", fontsize=9)
    panels[1].set_title("all others noisy" if narrow else "this layer digital, noise on all others", fontsize=9)
    handles = _legend(frame, looks, cut=cut, dashed=dashed, narrow=narrow)
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=1)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _plot_method(
    axes: Axes, rows: pd.DataFrame, sign: float, mark: tuple[str, str], shift: float, *, bars: bool
) -> None:
    color, marker = mark
    value, places = sign * rows["change"].to_numpy(), np.arange(len(rows)) + shift
    ends = np.sort(sign * rows[["change_low", "change_high"]].to_numpy(), axis=1)
    known = np.isfinite(ends).all(axis=1)
    if bars:
        axes.barh(places, value, height=0.62, color=color, alpha=0.22, zorder=2)
    axes.hlines(places[known], ends[known, 0], ends[known, 1], color=color, linewidth=1.1, zorder=3)
    (marks,) = axes.plot(value, places, color=color, marker=marker, linestyle="none", markersize=4.5, zorder=4)
    marks.set(markeredgecolor=CARD, markeredgewidth=0.5)


def _limit(axes: Axes, values: pd.Series[float], ends: pd.DataFrame) -> bool:
    """Give the axis room for all values, and for intervals as long as they leave the values apart.

    Returns:
        Whether an interval is cut: with two or three trainings they may be a hundred times as wide as the values.
    """
    low, high = min(0.0, values.min()), max(0.0, values.max())
    span = (high - low) or 1.0
    known = ends.to_numpy()[ends.notna().to_numpy()]
    least, most = known.min(initial=low), known.max(initial=high)
    left, right = max(least, low - span), min(most, high + span)
    room = 0.05 * (right - left) or 0.05
    axes.set_xlim(left - room, right + room)
    return bool(least < left or most > right)


def _reference_lines(axes: Axes, frame: pd.DataFrame, looks: Mapping[str, tuple[str, str]]) -> bool:
    """Draw what noise on all layers costs, where it would not push everything else to one side; tell whether."""
    low, high = axes.get_xlim()
    totals = [_mean(frame, method, "clean") - _mean(frame, method, "all") for method in looks]
    for (color, _), total in zip(looks.values(), totals, strict=True):
        if low <= total <= _FAR * high:
            axes.axvline(total, color=color, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
            axes.set_xlim(right=max(axes.get_xlim()[1], 1.05 * total))
    return any(low <= total <= _FAR * high for total in totals)


def _legend(
    frame: pd.DataFrame, looks: Mapping[str, tuple[str, str]], *, cut: bool, dashed: bool, narrow: bool
) -> list[Line2D]:
    handles = []
    for method, (color, marker) in looks.items():
        clean, noisy = _mean(frame, method, "clean"), _mean(frame, method, "all")
        label = f"{shorten(method, 12 if narrow else 24)}: {clean:.2f} without noise, {noisy:.2f} with noise on all"
        label += "" if narrow else f" layers ({noisy - clean:+.2f})"
        if not narrow and frame.loc[frame["method"] == method, "change_low"].isna().all():
            label += "; one weight file: no interval over trainings"
        handles.append(Line2D([], [], color=color, marker=marker, linestyle="none", markersize=5, label=label))
    row = frame[frame["condition"] == "all"].iloc[0]
    notes = [f"{shorten(row['noise'], 30)}, {row['level_name']} = {row['level']:g}, {row['n_draws']} chips"]
    if frame["change_low"].notna().any():
        notes.append(
            f"lines: {100 * row['ci_level']:g}% interval over trainings" + (", cut at the edges" if cut else "")
        )
    notes += ["dashed: noise on all layers"] if dashed else []
    text = ("\n" if narrow else "; ").join(notes)
    return [*handles, Line2D([], [], linestyle="none", label=text)]


def _mean(frame: pd.DataFrame, method: str, condition: str) -> float:
    return float(frame.loc[(frame["method"] == method) & (frame["condition"] == condition), "mean"].iloc[0])


def _names(layers: Sequence[str], length: int) -> list[str]:
    """Return names of layers of at most ``length`` signs, or as many as it takes to tell them apart.

    What is the same for all is left out where that is needed, and the attribute where it is ``weight``.

    >>> _names(["conv.weight", "fc.weight"], 9), _names(["model.layers.0.proj", "model.layers.1.proj"], 9)
    (['conv', 'fc'], ['…0.proj', '…1.proj'])
    """
    names = [layer.removesuffix(".weight") for layer in layers]
    if max(map(len, names)) > length and len(names) > 1:
        parts = [name.split(".") for name in names]
        same = 0
        while len({tuple(p[: same + 1]) for p in parts}) == 1:
            same += 1
        names = [f"…{'.'.join(p[same:])}" for p in parts] if same else names
    for most in range(length, max(map(len, names))):
        short = [shorten(name, most) for name in names]
        if len(set(short)) == len(names):
            return short
    return names
