"""The summary: what somebody in a hurry takes away from one noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noiserobust.report.analysis import Analysis
from noiserobust.report.tables import CLEAN, Cell, NoiseTable, format_number
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


def make_verdict(analysis: Analysis) -> Verdict | None:
    """Return the summary; None if there is no level with noise."""
    table, target = analysis.table, analysis.target
    if target is None:
        return None
    at = f"{table.level_name} = {table.format_level(target)}"
    columns = {"Clean": "without noise"} if table.has_clean else {}
    columns |= {f"At {at}": "95% interval"}
    if not analysis.tolerance.empty:
        columns["Tolerable"] = f"{table.level_name} for −{analysis.tolerance['drop'].iloc[0]:g} points"
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
            "Yield": _yield(analysis.chip_row(method, target)),
            "Difference": _difference(analysis, method, target),
        }
        lines.append(Line(method, {name: cells[name] for name in columns}))
    return Verdict(_headline(analysis, target, at), columns, tuple(lines))


def format_interval(low: float, high: float, write: Any) -> str:
    """Return an interval as text; a dash for what cannot be estimated."""
    if math.isnan(low) and math.isnan(high):
        return DASH
    return f"{DASH if math.isnan(low) else write(low)} to {DASH if math.isnan(high) else write(high)}"


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
    if row["n_seeds"] == 1:
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
        return DASH, "no common train seed", math.nan
    ends = format_interval(row["difference_low"], row["difference_high"], lambda v: format_signed(v, metric))
    return format_signed(row["difference"], metric), ends + _over(row), row["difference"]


def _over(row: Mapping[str, Any]) -> str:
    return "" if row["over"] == "train seeds" else ", these weights"


def _headline(analysis: Analysis, target: float, at: str) -> str:
    table, metric = analysis.table, analysis.table.metric
    unit = "%" if is_accuracy(metric) else ""
    under = f"On {table.noise} at {at}" if table.level_name == "t" else f"Under {table.noise} noise of {at}"
    cells = {m: table.cells[m, target] for m in table.methods if (m, target) in table.cells}
    if not cells:
        return f"{under} there is no number."
    if not is_accuracy(metric):
        said = [f"{m} {format_number(c.mean, metric)}" for m, c in cells.items()]
        return f"{under} the {metric} is: {'; '.join(said)}."
    best = max(cells, key=lambda m: cells[m].mean)
    mean = format_number(cells[best].mean, metric) + unit
    if len(cells) == 1 or analysis.baseline is None:
        clean = table.cells.get((best, CLEAN))
        against = f" of {format_number(clean.mean, metric)}% without noise" if clean else ""
        who = best if len(cells) == 1 else f"{best} is highest and"
        return f"{under} {who} keeps {mean}{against}.{_said_of_yield(analysis, best, target)}"
    if best == analysis.baseline:
        rows: list[Any] = [analysis.comparison_row(m, target) for m in cells if m != best]
        # What chips of one training each show is said of those two weight files, and not of the methods.
        seeds = [row for row in rows if row is not None and row["over"] == "train seeds"]
        if not seeds:
            return (
                f"{under} no method is above {best}, which keeps {mean}; one training each, or none in common, does "
                f"not tell which method is better.{_said_of_yield(analysis, best, target)}"
            )
        behind = sum(1 for row in seeds if row["difference_high"] < 0 and row["p_holm"] < 0.05)
        return (
            f"{under} no method is above {best}, which keeps {mean}; {behind} of {len(rows)} "
            f"{'is' if behind == 1 else 'are'} shown to be below it.{_said_of_yield(analysis, best, target)}"
        )
    row: Any = analysis.comparison_row(best, target)
    text = f"{under} {best} keeps the most, {mean}"
    if row is None or math.isnan(row["difference"]):
        return f"{text}; it shares no train seed with {analysis.baseline}, so they are not compared."
    signed = format_signed(row["difference"], metric)
    ends = format_interval(row["difference_low"], row["difference_high"], lambda v: format_signed(v, metric))
    text += f": {signed} points against {analysis.baseline} ({ends}"
    if row["over"] == "chips":
        return f"{text}, over chips of these two weight files: one training each does not tell which method is better)."
    if math.isnan(row["p_holm"]):
        return f"{text})."
    shown = row["p_holm"] < 0.05
    text += f"; p = {format_p(row['p_holm'])})" if not format_p(row["p_holm"]).startswith("<") else "; p < 0.001)"
    more = "" if shown else ", which may be chance"
    return f"{text}{more}.{_said_of_yield(analysis, best, target)}"


def _said_of_yield(analysis: Analysis, method: str, target: float) -> str:
    row: Any = analysis.chip_row(method, target)
    if not analysis.asked or row is None or math.isnan(row["yield"]):
        return ""
    ends = format_interval(row["yield_low"], row["yield_high"], format_share)
    which = "any training" if row["over"] == "trainings" else "these weights"
    return f" {format_share(row['yield'])} of its chips reach {analysis.spec:g}% (interval {ends}, chips of {which})."
