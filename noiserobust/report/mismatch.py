"""Trained for one noise level, used at another: the matrix of training levels by test levels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiserobust.report.gather import Gathered
from noiserobust.report.tables import NoiseTable
from noiserobust.results.schema import is_accuracy

_ADD_NOISE = ("robust", "rwp", "arwp")


@dataclass(frozen=True)
class Mismatch:
    """Means by training level and test level.

    Attributes:
        trained: what the rows were trained with, such as ``rwp, gaussian noise``.
        rows: name of the method and its training level, ascending; 0 for one trained without noise.
        columns: the test levels.
        means: shape ``(n_rows, n_columns)``; NaN is what is missing.
        best: for each column the row with the highest mean; None where all are missing.
    """

    trained: str
    rows: tuple[tuple[str, float], ...]
    columns: tuple[float, ...]
    means: NDArray[np.float64]
    best: tuple[int | None, ...]


def find_mismatches(table: NoiseTable, gathered: Gathered) -> list[Mismatch]:
    """Return a matrix for each training method that was trained with at least two levels of a noise."""
    if not is_accuracy(table.metric):
        return []
    trained = trained_with(gathered)
    kinds: dict[tuple[str, str, str, str], dict[str, float]] = {}
    for method in table.methods:
        how = trained.get(method, {})
        if "level" in how:
            kind = how["method"], how["noise"], how.get("rest", ""), how.get("around", "")
            kinds.setdefault(kind, {})[method] = how["level"]
    found = []
    for (name, noise, _, around), levels in kinds.items():
        if len(set(levels.values())) < 2:
            continue
        # Others that add no noise, such as SAM, differ in more than the level.
        plain = (m for m in table.methods if trained.get(m, {}).get("method") == "sgd")
        without = {m: 0.0 for m in plain if trained[m].get("around") in (None, around)}
        rows = sorted([*without.items(), *levels.items()], key=lambda row: row[1])
        cells = [[table.cells.get((method, level)) for level in table.columns] for method, _ in rows]
        means = np.array([[np.nan if c is None else c.mean for c in row] for row in cells])
        best = tuple(None if np.isnan(column).all() else int(np.nanargmax(column)) for column in means.T)
        found.append(Mismatch(f"{name}, {noise} noise", tuple(rows), table.columns, means, best))
    return found


def trained_with(gathered: Gathered) -> dict[str, dict[str, Any]]:
    """Return how methods were trained.

    Returns:
        For each method ``method``, ``noise`` and ``level`` of those trained at one level, ``rest``, all else that is
        known of the method's settings, and ``around``, what is known of the others: the network, the optimizer.
    """
    known: dict[str, dict[str, Any]] = {}
    for source in gathered.sources:
        for entry in source.weights:
            how = entry.get("trained")
            if isinstance(how, dict) and isinstance(how.get("method"), str):
                known.setdefault(str(entry.get("method")), _checked(how))
    for run in gathered.trainings:
        how = _from_configuration(run.configuration) | known.get(run.method, {})
        known[run.method] = how | {"rest": _rest(run.configuration), "around": _around(run.configuration)}
    return known


def _rest(configuration: Mapping[str, Any]) -> str:
    """Return all settings of the method but the level: in a matrix nothing else may differ."""
    method = configuration.get("method")
    if not isinstance(method, dict):
        return ""
    noise = method.get("noise")
    same = {"noise": {k: v for k, v in noise.items() if k != "level"}} if isinstance(noise, dict) else {}
    return json.dumps(method | same, sort_keys=True, default=str)


def _around(configuration: Mapping[str, Any]) -> str:
    """Return all settings but those of the method, and what only names or follows from them."""
    others = {k: v for k, v in configuration.items() if k not in ("method", "label", "record", "files_sha256")}
    return json.dumps(others, sort_keys=True, default=str)


def _from_configuration(configuration: Mapping[str, Any]) -> dict[str, Any]:
    method = configuration.get("method")
    if not isinstance(method, dict):
        return {}
    noise = method.get("noise")
    how = {"method": method.get("name")}
    if isinstance(noise, dict) and not method.get("level_range"):
        how |= {"noise": noise.get("name") or "gaussian", "level": noise.get("level")}
    return _checked(how)


def _checked(how: Mapping[str, Any]) -> dict[str, Any]:
    level, noise = how.get("level"), how.get("noise")
    name = {"method": str(how.get("method"))}
    if isinstance(level, int | float) and not isinstance(level, bool) and isinstance(noise, str):
        return {**name, "noise": noise, "level": float(level)}
    return name
