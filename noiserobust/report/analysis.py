"""Everything that is claimed under one noise, beside the means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from noiserobust.report.criteria import Criteria
from noiserobust.report.gather import Gathered
from noiserobust.report.mismatch import Mismatch, find_mismatches
from noiserobust.report.tables import NoiseTable
from noiserobust.results.cells import Curve, curves
from noiserobust.results.claims import chip_table, comparison_table, tolerance_table
from noiserobust.results.schema import CHIP_COLUMNS, COMPARISON_COLUMNS, TOLERANCE_COLUMNS, is_accuracy


@dataclass(frozen=True)
class Analysis:
    """The claims under one noise, for one metric.

    Attributes:
        table: the means.
        target: the level that counts; None if there is none with noise.
        spec: the least accuracy of a good chip; None for other metrics.
        asked: whether the reader asked for that one.
        baseline: the method that others are compared with; None if it is not here, or alone.
        curves: the chips by method, in the order of the table.
        chips: see :func:`noiserobust.results.claims.chip_table`; empty for other metrics than accuracies.
        comparison: see :func:`noiserobust.results.claims.comparison_table`; empty without a baseline.
        best: the method with the highest mean at the target; None for other metrics, and without a target.
        against_best: others minus the best at the target, as ``comparison``.
        tolerance: see :func:`noiserobust.results.claims.tolerance_table`; empty for other metrics than accuracies.
        mismatches: training levels by test levels, if methods differ in them.
    """

    table: NoiseTable
    target: float | None
    spec: float | None
    asked: bool
    baseline: str | None
    curves: Mapping[str, Curve]
    chips: pd.DataFrame
    comparison: pd.DataFrame
    tolerance: pd.DataFrame
    best: str | None
    against_best: pd.DataFrame
    mismatches: tuple[Mismatch, ...]

    def chip_row(self, method: str, level: float) -> Mapping[str, object] | None:
        """Return the row of ``chips`` of a method at a level."""
        return _row(self.chips, method, level)

    def comparison_row(self, method: str, level: float) -> Mapping[str, object] | None:
        """Return the row of ``comparison`` of a method at a level."""
        return _row(self.comparison, method, level)

    def tolerance_row(self, method: str) -> Mapping[str, object] | None:
        """Return the row of ``tolerance`` of a method."""
        return _row(self.tolerance, method)


def analyse(tables: Sequence[NoiseTable], gathered: Gathered, criteria: Criteria) -> list[Analysis]:
    """Return the claims, one for each table.

    Raises:
        InvalidValueError: if the criteria name what the results do not have.
    """
    criteria.check(tables, gathered.methods)
    baseline = criteria.baseline or gathered.methods[0]
    specs = {t.metric: criteria.specification(tables, t.metric) for t in tables}
    return [_analyse(table, gathered, criteria, specs[table.metric], baseline) for table in tables]


def _analyse(table: NoiseTable, gathered: Gathered, criteria: Criteria, spec: float | None, baseline: str) -> Analysis:
    compared = baseline in table.methods and len(table.methods) > 1
    chips = pd.DataFrame(columns=CHIP_COLUMNS)
    comparison = pd.DataFrame(columns=COMPARISON_COLUMNS)
    tolerance = pd.DataFrame(columns=TOLERANCE_COLUMNS)
    if spec is not None:
        chips = _ordered(chip_table(table.draws, spec), table)
        tolerance = _ordered(tolerance_table(table.draws, criteria.drop), table)
    if compared:
        comparison = _ordered(comparison_table(table.draws, baseline), table)
    found = {curve.method: curve for curve in curves(table.draws)}
    target = criteria.level(table)
    best, against_best = None, pd.DataFrame(columns=COMPARISON_COLUMNS)
    means = {m: table.cells[m, target].mean for m in table.methods if target is not None and (m, target) in table.cells}
    if means and is_accuracy(table.metric):
        best = max(means, key=lambda method: means[method])
        against_best = _ordered(comparison_table(table.draws[table.draws["level"] == target], best), table)
    return Analysis(
        table,
        target,
        spec,
        criteria.asks(table.metric),
        baseline if compared else None,
        {method: found[method] for method in table.methods},
        chips,
        comparison,
        tolerance,
        best,
        against_best,
        tuple(find_mismatches(table, gathered)),
    )


def _ordered(frame: pd.DataFrame, table: NoiseTable) -> pd.DataFrame:
    """Return rows in the order in which the methods were asked for."""
    places = frame["method"].map({method: place for place, method in enumerate(table.methods)})
    rows: pd.DataFrame = frame.iloc[places.argsort(kind="stable")].reset_index(drop=True)
    return rows


def _row(frame: pd.DataFrame, method: str, level: float | None = None) -> Mapping[str, object] | None:
    rows = frame[frame["method"] == method]
    rows = rows if level is None else rows[rows["level"] == level]
    return rows.iloc[0].to_dict() if len(rows) else None
