"""Which layers a network cannot bear noise on: what a diagnosis writes, read again and drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from noiserobust.errors import InvalidValueError, MissingFileError, check_choice
from noiserobust.report.figures import CARD, INK, MARKERS, PALETTE, RULE, STYLE, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SENSITIVITY_FILE, DIGITAL_FILE = "sensitivity.csv", "digital.csv"

SENSITIVITY_DTYPES = {
    "method": "str",
    "noise": "str",
    "level_name": "str",
    "level": "float64",
    "metric": "str",
    "condition": "str",
    "layer": "str",
    "n_weights": "int64",
    "mean": "float64",
    "noise_std": "float64",
    "seed_std": "float64",
    "n_seeds": "int64",
    "n_draws": "int64",
    "ci_low": "float64",
    "ci_high": "float64",
    "ci_level": "float64",
    "change": "float64",
    "change_low": "float64",
    "change_high": "float64",
}
"""Columns of ``sensitivity.csv``, in order; one row a (method, condition, layer). ``layer`` is empty for ``clean`` and
``all``, of which ``n_weights`` is the number of weights in all layers. ``change`` is the mean over train seeds of the
paired change against ``clean`` (of ``all`` and ``only``) or ``all`` (of ``except``), with its Student-t interval. Empty
cells are quantities that cannot be estimated."""

DIGITAL_DTYPES = {
    "method": "str",
    "step": "int64",
    "kind": "str",
    "layer": "str",
    "digital": "str",
    "digital_share": "float64",
    "mean": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n_draws": "int64",
    "seed": "int64",
    "reached": "bool",
    "wanted": "float64",
}
"""Columns of ``digital.csv``, in order; one row a (method, step). ``digital`` names the layers, joined by spaces, that
are digital in that step and ``digital_share`` is their share of the weights in all layers. ``add`` makes ``layer``
digital; ``drop`` tries to give it back to the crossbar, which holds if the wanted mean is ``reached`` nevertheless;
``verify`` evaluates the layers that were chosen on other chips, of root seed ``seed``."""

CONDITIONS, KINDS = ("clean", "all", "only", "except"), ("add", "drop", "verify")
FORMATS = ("png", "svg", "pdf")

_MAY_BE_EMPTY = {"noise_std", "seed_std", "ci_low", "ci_high", "change", "change_low", "change_high"}
_NO_METADATA = {
    "png": ["Software"],
    "svg": ["Date", "Creator", "Format", "Type"],
    "pdf": ["CreationDate", "Creator", "Producer"],
}
_FAR = 1.6  # how far beyond the values a reference line may be to be drawn among them


@dataclass(frozen=True)
class Sensitivity:
    """How sensitive layers are.

    Args:
        layers: one row a (method, condition, layer), with the columns of ``sensitivity.csv``.
        digital: one row a (method, step) of the search for layers to keep digital, with the columns of
            ``digital.csv``; None if there was no search.
    """

    layers: pd.DataFrame
    digital: pd.DataFrame | None = None


def read_sensitivity(folder: str | Path) -> Sensitivity:
    """Read what ``noiserobust diagnose sensitivity`` has written.

    Args:
        folder: its ``--out``.

    Raises:
        MissingFileError: if there is no ``sensitivity.csv``, as when the diagnosis was interrupted.
        InvalidValueError: if a file has other columns or a value that cannot be one.
    """
    path = Path(folder) / SENSITIVITY_FILE
    if not path.is_file():
        raise MissingFileError(
            f"Expected {folder} to hold a {SENSITIVITY_FILE}, but there is none; is the diagnosis finished?"
        )
    layers = _read(path, SENSITIVITY_DTYPES, {"condition": CONDITIONS})
    _check_layers(layers, path)
    digital = Path(folder) / DIGITAL_FILE
    return Sensitivity(layers, _read(digital, DIGITAL_DTYPES, {"kind": KINDS}) if digital.is_file() else None)


def _read(path: Path, dtypes: dict[str, str], choices: dict[str, Sequence[str]]) -> pd.DataFrame:
    try:  # as text: a layer may be called NA
        text = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:  # what pandas raises for bytes and lines that are no table is a ValueError
        reason = " ".join(str(error).split())
        raise InvalidValueError(f"Expected {path} to be comma-separated values, but got: {reason}") from None
    if list(text) != list(dtypes):
        raise InvalidValueError(
            f"Expected {path} to have the columns {', '.join(dtypes)}, but got {', '.join(map(str, text)) or 'none'}"
        )
    columns = {name: _column(path, text[name], kind, choices.get(name)) for name, kind in dtypes.items()}
    frame: pd.DataFrame = pd.DataFrame(columns).astype(dtypes)
    return frame


def _column(path: Path, cells: pd.Series[str], kind: str, choices: Sequence[str] | None) -> list[Any]:
    wanted = {"int64": "an integer", "float64": "a finite number", "bool": "True or False"}.get(kind, "text")
    values: list[Any] = []
    for line, cell in enumerate(cells, start=2):
        try:
            values.append(_value(cell, kind, empty=cells.name in _MAY_BE_EMPTY))
        except ValueError:
            values.append(None)
        if values[-1] is None or (choices and cell not in choices):
            expected = f"one of {', '.join(choices)}" if choices else wanted
            raise InvalidValueError(
                f"Expected `{cells.name}` in line {line} of {path} to be {expected}, but got {cell!r}"
            )
    return values


def _value(cell: str, kind: str, *, empty: bool) -> Any:
    if kind == "str":
        return cell
    if kind == "bool":
        return {"True": True, "False": False}.get(cell)
    if kind == "int64":
        return int(cell)
    value = math.nan if empty and not cell else float(cell)
    return value if math.isfinite(value) or not cell else None


def _check_layers(frame: pd.DataFrame, path: Path) -> None:
    """Raise unless each method has each condition once, and with the same layers as every other."""
    key = ["method", "condition", "layer"]
    if frame.empty:
        raise InvalidValueError(f"Expected {path} to have at least one row, but got none")
    if (twice := frame.duplicated(key)).any():
        named = ", ".join(f"{name} {value!r}" for name, value in frame.loc[twice, key].iloc[0].items())
        raise InvalidValueError(f"Expected {path} to have one row a (method, condition, layer), but got two of {named}")
    layers = set(frame["layer"]) - {""}
    for method, own in frame.groupby("method", sort=False):
        for condition in CONDITIONS:
            found = set(own.loc[own["condition"] == condition, "layer"])
            expected = layers if condition in ("only", "except") else {""}
            if found != expected:
                odd = sorted(found ^ expected)[0]
                raise InvalidValueError(
                    f"Expected {path} to have the same layers for each method and condition, but {method!r} "
                    f"{'lacks' if odd in expected else 'has'} {condition!r} with layer {odd!r}"
                )


def ranking(frame: pd.DataFrame) -> list[str]:
    """Return the layers, the one first that is most worth keeping digital.

    Args:
        frame: with the columns of ``sensitivity.csv``.
    """
    gains = frame[frame["condition"] == "except"].groupby("layer", sort=False)["change"].mean()
    return [str(layer) for layer in gains.sort_values(ascending=False, kind="stable").index]


def natural_size(frame: pd.DataFrame) -> tuple[float, float]:
    """Return width and height in inches at which all layers can be read.

    Args:
        frame: with the columns of ``sensitivity.csv``.
    """
    methods, layers = frame["method"].nunique(), len(ranking(frame))
    return 8.6, 1.25 + 0.21 * methods**0.5 + max(layers, 3) * (0.19 + 0.05 * (min(methods, 4) - 1))


def draw_sensitivity(frame: pd.DataFrame, size: tuple[float, float] | None = None, kind: str = "png") -> bytes:
    """Return a picture that ranks the layers as the bytes of a file.

    On the left what is lost when noise falls on one layer only, on the right what is gained when it falls on all but
    that one; with intervals over train seeds where they can be estimated.

    Args:
        frame: with the columns of ``sensitivity.csv``, one noise, level and metric.
        size: width and height in inches; by default :func:`natural_size`.
        kind: ``"png"``, ``"svg"`` or ``"pdf"``.

    Raises:
        InvalidValueError: if the kind is another.
    """
    check_choice("kind", kind, FORMATS)
    with matplotlib.style.context(["default", str(STYLE), {"pdf.fonttype": 42}]):
        figure = Figure(figsize=size or natural_size(frame), layout="constrained")
        FigureCanvasAgg(figure)
        _plot(figure, frame)
        file = BytesIO()
        with warnings.catch_warnings():
            # A layer may be called by signs that the font of the picture lacks; the table has them.
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
            figure.savefig(file, format=kind, metadata=dict.fromkeys(_NO_METADATA[kind]))
    return file.getvalue()


def _plot(figure: Figure, frame: pd.DataFrame) -> None:
    layers, methods = ranking(frame), list(dict.fromkeys(frame["method"]))
    narrow = figure.get_figwidth() < 6
    panels = figure.subplots(1, 2, sharey=True)
    step = 0.64 / len(methods)
    cut = dashed = False
    unit = "points" if "accuracy" in str(frame["metric"].iloc[0]) else str(frame["metric"].iloc[0])
    for axes, condition, sign, label in zip(
        panels, ("only", "except"), (-1.0, 1.0), (f"lost, {unit}", f"gained, {unit}"), strict=True
    ):
        shown = frame[frame["condition"] == condition]
        for index, method in enumerate(methods):
            rows = shown[shown["method"] == method].set_index("layer").loc[layers]
            shift = (index - (len(methods) - 1) / 2) * step
            _plot_method(axes, rows, sign, index, shift, bars=len(methods) == 1)
        cut |= _limit(axes, sign * shown["change"], sign * shown[["change_low", "change_high"]])
        dashed |= _reference_lines(axes, frame, methods)
        axes.axvline(0, color=INK, linewidth=0.8, zorder=2)
        axes.grid(visible=True, axis="both", color=RULE)
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 6))
        axes.set_xlabel(label)
    room = 72 * figure.get_figheight() / (len(layers) + 8)  # points a layer has
    places, names = range(len(layers)), _names(layers, 14 if narrow else 28)
    panels[0].set_yticks(places, names, fontsize=min(9, max(4.5, 0.75 * room)), parse_math=False)
    panels[0].set_ylim(len(layers) - 0.4, -0.6)
    panels[0].set_title("noise on this layer only", fontsize=9)
    panels[1].set_title("all others noisy" if narrow else "this layer digital, noise on all others", fontsize=9)
    handles = _legend(frame, methods, cut=cut, dashed=dashed, narrow=narrow)
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=1)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _plot_method(axes: Axes, rows: pd.DataFrame, sign: float, index: int, shift: float, *, bars: bool) -> None:
    color, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
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


def _reference_lines(axes: Axes, frame: pd.DataFrame, methods: Sequence[str]) -> bool:
    """Draw what noise on all layers costs, where it would not push everything else to one side; tell whether."""
    low, high = axes.get_xlim()
    totals = [_mean(frame, method, "clean") - _mean(frame, method, "all") for method in methods]
    for index, total in enumerate(totals):
        if low <= total <= _FAR * high:
            axes.axvline(total, color=PALETTE[index % len(PALETTE)], linestyle=(0, (4, 3)), linewidth=1, zorder=1)
            axes.set_xlim(right=max(axes.get_xlim()[1], 1.05 * total))
    return any(low <= total <= _FAR * high for total in totals)


def _legend(frame: pd.DataFrame, methods: Sequence[str], *, cut: bool, dashed: bool, narrow: bool) -> list[Line2D]:
    handles = []
    for index, method in enumerate(methods):
        clean, noisy = _mean(frame, method, "clean"), _mean(frame, method, "all")
        label = f"{shorten(method, 12 if narrow else 24)}: {clean:.2f} without noise, {noisy:.2f} with noise on all"
        label += "" if narrow else f" layers ({noisy - clean:+.2f})"
        if not narrow and frame.loc[frame["method"] == method, "change_low"].isna().all():
            label += "; one weight file: no interval over trainings"
        color, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
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
