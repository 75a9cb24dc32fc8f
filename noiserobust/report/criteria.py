"""What the reader wants to know: how good is good enough, and at which level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from noiserobust.errors import InvalidValueError, check_number, unknown_name
from noiserobust.report.tables import CLEAN, NoiseTable
from noiserobust.results.schema import is_accuracy, is_milder_upwards
from noiserobust.times import parse_time


@dataclass(frozen=True)
class Criteria:
    """By what methods are judged.

    Args:
        spec: the least ``accuracy`` in percent that a chip has to have; by default, and for other accuracies, ``drop``
            below the best method without noise, rounded down to a whole percent.
        target: the levels that count, ``"0.1"`` or ``"1d"`` for each noise that has it, ``"gaussian=0.1"`` for one; by
            default the strongest of each.
        drop: what may be lost against no noise, in points of accuracy, > 0: the level at which it is lost is the
            tolerable one.
        baseline: the method that others are compared with; by default the first.
    """

    spec: float | None = None
    target: Sequence[str] = ()
    drop: float = 5.0
    baseline: str | None = None

    def __post_init__(self) -> None:
        if self.spec is not None:
            check_number("spec", self.spec, minimum=0, maximum=100)
        check_number("drop", self.drop, above=0, maximum=100)

    def check(self, tables: Sequence[NoiseTable], methods: Sequence[str]) -> None:
        """Raise an error if the criteria name what the results do not have."""
        if self.baseline is not None and self.baseline not in methods:
            raise unknown_name("baseline", self.baseline, methods)
        for wanted in self.target:
            noise, equals, _ = wanted.rpartition("=")
            named = [t for t in tables if t.noise == noise] if equals else list(tables)
            if not named:
                raise unknown_name("target", noise, {t.noise for t in tables})
            if not any(_level(wanted, table) in table.levels for table in named):
                known = "; ".join(f"{t.noise} {', '.join(map(t.format_level, t.levels)) or 'none'}" for t in named)
                raise InvalidValueError(
                    f"Expected `target` to be a level that was evaluated ({known}), but got {wanted}"
                )

        for table in tables:
            meant = {_level(w, table) for w in self.target if "=" not in w} & set(table.levels)
            if len(meant) > 1:
                raise InvalidValueError(
                    f"Expected `target` to be one level for each noise, but got {' and '.join(self.target)} for "
                    f"{table.noise}"
                )

    def level(self, table: NoiseTable) -> float | None:
        """Return the level of a noise that counts; None if it has no level with noise."""
        for wanted in sorted(self.target, key=lambda text: "=" not in text):  # what is said of one noise comes first
            noise, equals, _ = wanted.rpartition("=")
            level = _level(wanted, table)
            if (not equals or noise == table.noise) and level in table.levels:
                return level
        if not table.levels:
            return None
        return table.levels[0] if is_milder_upwards(table.level_name) else table.levels[-1]

    def asks(self, metric: str) -> bool:
        """Tell whether the specification of the reader is one of this metric: that of ``top5`` would be another."""
        return self.spec is not None and metric == "accuracy"

    def specification(self, tables: Sequence[NoiseTable], metric: str) -> float | None:
        """Return the specification for a metric; None if nothing tells one."""
        if self.asks(metric):
            return self.spec
        if not is_accuracy(metric):
            return None
        cells = [(level, c) for t in tables if t.metric == metric for (_, level), c in t.cells.items()]
        best = [c.mean for level, c in cells if level == CLEAN] or [c.mean for _, c in cells]
        return float(max(0, math.floor(max(best) - self.drop))) if best else None


def _level(wanted: str, table: NoiseTable) -> float:
    """Return the level that a text means; NaN if it means none."""
    text = wanted.rpartition("=")[2].strip()
    try:
        value = parse_time(text) if table.level_name == "t" else float(text)
    except ValueError:  # ours is one
        return math.nan
    return min(table.levels, key=lambda v: abs(v - value)) if _near(value, table.levels) else math.nan


def _near(value: float, levels: Sequence[float]) -> bool:
    return any(math.isclose(value, v, rel_tol=1e-6) for v in levels)
