"""The summary: what somebody in a hurry takes away from one noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from noiserobust.report.analysis import Analysis
from noiserobust.report.tables import CLEAN, Cell, NoiseTable, format_number
from noiserobust.report.words import listed
from noiserobust.results.schema import is_accuracy
from noiserobust.times import round_time


@dataclass(frozen=True)
class Line:
    """One method in the summary; texts, each with what stands below it in small, and the number to sort by."""

    method: str
    parts: Mapping[str, tuple[str, str, float]]


@dataclass(frozen=True)
class Verdict:
    """The summary of one noise.

    Attributes:
        headline: one or two sentences.
        columns: names of the columns, in order, each with what stands below it in small.
        lines: one a method.
    """

    headline: str
    columns: Mapping[str, str]
    lines: tuple[Line, ...]


DASH = "—"

ALPHA = 0.05
"""What p, after Holm, has to be below for a difference to be shown."""


def make_verdict(analysis: Analysis) -> Verdict | None:
    """Return the summary; None if there is no level with noise."""
    table, target = analysis.table, analysis.target
    if target is None:
        return None
    at = f"{table.level_name} = {table.format_level(target)}"
    columns = {"Clean": "without noise"} if table.has_clean else {}
    columns |= {f"At {at}": "95% interval"}
    if analysis.tolerance["tolerable"].notna().any():
        columns["Tolerable"] = f"{table.level_name}, −{analysis.tolerance['drop'].iloc[0]:g} from own clean"
    if not analysis.chips.empty and analysis.chips["yield"].notna().any():
        columns["Yield"] = f"chips ≥ {analysis.spec:g}% at {table.format_level(target)}"
    if analysis.baseline is not None:
        columns["Difference"] = (
            f"to {analysis.baseline}, points" if is_accuracy(table.metric) else f"to {analysis.baseline}"
        )
    lines = []
    for method in table.methods:
        cells = {
            "Clean": _mean(table.cells.get((method, CLEAN)), table),
            f"At {at}": _mean(table.cells.get((method, target)), table),
            "Tolerable": _tolerable(analysis.tolerance_row(method), table),
            "Yield": _marked(_yield(analysis.chip_row(method, target)), table.cells.get((method, target))),
            "Difference": _marked(_difference(analysis, method, target), table.cells.get((method, target))),
        }
        lines.append(Line(method, {name: cells[name] for name in columns}))
    return Verdict(_headline(analysis, target, at), columns, tuple(lines))


def format_interval(low: float, high: float, write: Any) -> str:
    """Return an interval as text; a dash for what cannot be estimated."""
    if math.isnan(low) and math.isnan(high):
        return DASH
    return f"{DASH if math.isnan(low) else write(low)} to {DASH if math.isnan(high) else write(high)}"


def interval_of(row: Mapping[str, Any], name: str, write: Callable[[float], str]) -> str:
    """Return the interval of a column as text."""
    return format_interval(row[f"{name}_low"], row[f"{name}_high"], write)


def format_share(share: float) -> str:
    """Return a share of chips in percent.

    >>> format_share(0.9996), format_share(1.0)
    ('>99.9%', '100%')
    """
    if math.isnan(share):
        return DASH
    if share in (0, 1):
        return f"{100 * share:.0f}%"
    return ">99.9%" if share > 0.9995 else "<0.1%" if share < 0.0005 else f"{100 * share:.1f}%"


def format_p(p: float) -> str:
    """Return a p-value.

    >>> format_p(0.0312), format_p(0.00001)
    ('0.031', '<0.001')
    """
    return DASH if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def format_signed(value: float, metric: str) -> str:
    """Return a difference with its sign."""
    text = format_number(abs(value), metric)
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"


def format_tolerable(level: float, table: NoiseTable, largest: float) -> str:
    """Return a level at which something is lost, which may be below the first or beyond the largest of a method."""
    if math.isnan(level):
        return DASH
    if math.isinf(level):
        return f"> {table.format_level(largest)}"
    if level == 0:
        return f"< {table.format_level(table.levels[0])}"
    return round_time(level) if table.level_name == "t" else f"{level:#.3g}"


def _mean(cell: Cell | None, table: NoiseTable) -> tuple[str, str, float]:
    if cell is None:
        return "missing", "", math.nan
    ends = format_interval(cell.low, cell.high, lambda v: format_number(v, table.metric))
    below = "no interval: one weight file" if cell.n_seeds == 1 else ends
    return format_number(cell.mean, table.metric) + ("" if cell.complete else "†"), below, cell.mean


def _tolerable(row: Mapping[str, Any] | None, table: NoiseTable) -> tuple[str, str, float]:
    if row is None or math.isnan(row["tolerable"]):
        return DASH, "" if table.has_clean else "no clean number", math.nan
    largest = row["largest_level"]
    ends = format_interval(row["tolerable_low"], row["tolerable_high"], lambda v: format_tolerable(v, table, largest))
    text = format_tolerable(row["tolerable"], table, largest)
    files = max(c.n_seeds for (m, _), c in table.cells.items() if m == row["method"])
    if row["n_seeds"] < files:
        ends = f"of {row['n_seeds']} of {files} weight files: {ends}"
    elif files == 1:
        ends = "no interval: one weight file"
    elif row["tolerable_low"] == row["tolerable_high"]:  # both ends beyond the levels
        ends = ""
    return text, ends, row["tolerable"]


def _yield(row: Mapping[str, Any] | None) -> tuple[str, str, float]:
    if row is None or math.isnan(row["yield"]):
        return DASH, "", math.nan
    ends = format_interval(row["yield_low"], row["yield_high"], format_share)
    return format_share(row["yield"]), ends + ("" if row["over"] == "trainings" else ", these weights"), row["yield"]


def _difference(analysis: Analysis, method: str, level: float) -> tuple[str, str, float]:
    row: Mapping[str, Any] | None = analysis.comparison_row(method, level)
    if row is None:
        return ("baseline" if method == analysis.baseline else DASH), "", math.nan
    metric = analysis.table.metric
    if math.isnan(row["difference"]):
        return DASH, "no common train seed" if row["n_seeds"] == 0 else "not estimable", math.nan
    ends = format_interval(row["difference_low"], row["difference_high"], lambda v: format_signed(v, metric))
    chance = ", n.s." if row["over"] == "train seeds" and row["p_holm"] >= ALPHA else ""
    return format_signed(row["difference"], metric), ends + chance + _over(row), row["difference"]


def _marked(part: tuple[str, str, float], cell: Cell | None) -> tuple[str, str, float]:
    """Return what stands in a cell with the mark of missing draws, if it rests on such."""
    text, below, value = part
    return (text if cell is None or cell.complete or math.isnan(value) else f"{text}†"), below, value


def _over(row: Mapping[str, Any]) -> str:
    return "" if row["over"] == "train seeds" else ", these weights"


def _headline(analysis: Analysis, target: float, at: str) -> str:
    table, metric = analysis.table, analysis.table.metric
    under = f"On {table.noise} at {at}" if table.level_name == "t" else f"Under {table.noise} noise of {at}"
    cells = {m: table.cells[m, target] for m in table.methods if (m, target) in table.cells}
    if not cells:
        return f"{under} there is no number."
    if analysis.best is None:
        said = [f"{m} {format_number(c.mean, metric)}" for m, c in cells.items()]
        return f"{under} the {metric} is: {'; '.join(said)}."
    best = analysis.best
    mean = f"{format_number(cells[best].mean, metric)}%"
    good = _said_of_yield(analysis, best, target)
    if len(cells) == 1:
        clean = table.cells.get((best, CLEAN))
        against = f" of {format_number(clean.mean, metric)}% without noise" if clean else ""
        return f"{under} {best} keeps {mean}{against}.{good}"
    return f"{under} {best} has the highest mean, {mean}{_against_baseline(analysis, target)}. {_rank(analysis)}{good}"


def _against_baseline(analysis: Analysis, target: float) -> str:
    """Say how far the best is from the baseline, if that is known of the methods and not of two weight files alone."""
    row: Any = None if analysis.best is None else analysis.comparison_row(analysis.best, target)
    if row is None or math.isnan(row["difference_low"]) or row["over"] != "train seeds" or row["difference"] <= 0:
        return ""
    ends = format_interval(row["difference_low"], row["difference_high"], partial(format_signed, metric=row["metric"]))
    return (
        f": {format_signed(row['difference'], row['metric'])} points against {analysis.baseline} (95% interval {ends})"
    )


def _rank(analysis: Analysis) -> str:
    """Say which methods the best is shown to be above."""
    rows = analysis.against_best
    tested = rows[(rows["over"] == "train seeds") & rows["p_holm"].notna()]
    shown = tested[(tested["p_holm"] < ALPHA) & (tested["difference"] < 0)]["method"]
    open_ = tested[~tested["method"].isin(shown)]["method"]
    untold = rows[~rows["method"].isin(tested["method"])]["method"]
    parts = [f"It is shown to be above {listed(shown, 6)}"] if len(shown) else []
    if len(open_):
        parts.append(f"{'not' if parts else 'It is not shown to be'} above {listed(open_, 6)}")
    how = " (paired over train seeds, Holm over these methods, 5%)" if parts else ""
    said = f"{', and '.join(parts)}{how}." if parts else ""
    if len(untold):
        few = rows[rows["method"].isin(untold)]["n_seeds"].max() < 2
        why = ": there are no two train seeds in common" if few else ""
        said += f"{' ' if said else ''}Whether it is above {listed(untold, 6)} cannot be told{why}."
    return said


def _said_of_yield(analysis: Analysis, method: str, target: float) -> str:
    row: Any = analysis.chip_row(method, target)
    if not analysis.asked or row is None or math.isnan(row["yield"]):
        return ""
    ends = format_interval(row["yield_low"], row["yield_high"], format_share)
    which = "any training" if row["over"] == "trainings" else "these weights"
    return f" {format_share(row['yield'])} of its chips reach {analysis.spec:g}% (interval {ends}, chips of {which})."
