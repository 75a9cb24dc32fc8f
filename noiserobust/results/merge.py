"""Join the results of parts of one evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noiserobust.errors import InvalidValueError
from noiserobust.results.files import read_json
from noiserobust.results.schema import DRAW_KEY, MANIFEST_FILE
from noiserobust.results.store import DrawStore, Row, as_frame, differing_keys, read_rows
from noiserobust.results.summary import summarize

DRAWN = ("evaluation", "landscape")
"""Kinds of folders with draws."""

_SETTLED = ("batch_size", "precision")  # of what was settled, what may change a result


def merge_folders(folders: Sequence[Path], out: Path) -> int:
    """Write the draws of result folders of one configuration, overlapping or not, to one folder.

    The folder is what one evaluation of everything would have left, byte for byte in ``draws.csv`` and ``summary.csv``,
    or, if draws are missing, what it would have left if it had been interrupted.

    Args:
        folders: finished or interrupted results of parts; ``out`` may be one of them.
        out: new, or with results of the same configuration, which are kept.

    Returns:
        How many draws are missing.

    Raises:
        InvalidValueError: if configurations differ (the keys are named), or two folders have different values for a
            draw.
        MissingFileError: if a folder has no manifest.
        OutputError: if ``out`` cannot be written to.
    """
    if not folders:
        raise InvalidValueError("Expected `folders` to name at least one result folder, but got none")
    manifests = [_manifest(folder) for folder in folders]
    rows: dict[tuple[Any, ...], tuple[Row, Path]] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        if "until" in manifest["configuration"]:
            raise InvalidValueError(
                f"Expected parts of an evaluation of a fixed number of draws, but {folder} was sampled with `until`"
            )
    reference = next((i for i, m in enumerate(manifests) if "settled" in m), 0)  # one may have ended before it was
    content = manifests[reference]
    for folder, manifest in zip(folders, manifests, strict=True):
        _check_same(folders[reference], content, folder, manifest)
        for row in read_rows(folder):
            key = tuple(row[c] for c in DRAW_KEY)
            first, where = rows.setdefault(key, (row, folder))
            _check_agrees(where, first, folder, row)
    with DrawStore(out, content["configuration"], content["environment"], content["kind"]) as store:
        if "settled" in content:
            kept = store.remember("settled", lambda: content["settled"])
            _check_same(folders[reference], content, out, {**content, "settled": kept})
        known = {tuple(row[c] for c in DRAW_KEY): row for row in store.rows}
        for key, row in known.items():
            if key in rows:
                _check_agrees(rows[key][1], rows[key][0], out, row)
        for key, (row, _) in rows.items():
            if key not in known:
                store.append(row)
        missing = _missing(content["configuration"], store.rows)
        if not missing:
            store.finish(summarize(as_frame(store.rows)))
    return missing


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / MANIFEST_FILE)
    if (
        not isinstance(manifest, dict)
        or manifest.get("kind") not in DRAWN
        or not isinstance(manifest.get("configuration"), dict)
    ):
        raise InvalidValueError(f"Expected {folder} to hold an evaluation, but its {MANIFEST_FILE} is not that of one")
    _check_manifest(folder, manifest)
    return manifest


def _check_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise unless a manifest says what it takes to count draws."""
    configuration = manifest["configuration"]
    levels, draws = configuration.get("levels"), configuration.get("draws")
    said = {
        "environment": isinstance(manifest.get("environment"), dict),
        "settled": isinstance(manifest.get("settled", {}), dict),
        "configuration.levels": isinstance(levels, list) and all(isinstance(v, (int, float)) for v in levels),
        "configuration.draws": isinstance(draws, int),
        "configuration.weights": isinstance(configuration.get("weights"), list),
        "configuration.metrics": isinstance(configuration.get("metrics", []), list),
    }
    for name, valid in said.items():
        if not valid:
            raise InvalidValueError(f"Expected the manifest of {folder} to have a valid `{name}`, but it has not")


def _check_same(folder: Path, manifest: dict[str, Any], other: Path, others: dict[str, Any]) -> None:
    if manifest["kind"] != others["kind"]:
        raise InvalidValueError(f"Expected parts of one evaluation, but {folder} and {other} are of different kinds")
    differing = differing_keys(manifest["configuration"], others["configuration"])
    if not differing and "settled" in manifest and "settled" in others:
        one, two = ({key: m["settled"].get(key) for key in _SETTLED} for m in (manifest, others))
        differing = [f"settled.{key}" for key in differing_keys(one, two)]
    if differing:
        raise InvalidValueError(
            f"Expected parts of one evaluation, but {folder} and {other} differ in {', '.join(differing)}"
        )


def _check_agrees(one: Path, row: Row, other: Path, others: Row) -> None:
    if row != others:
        named = ", ".join(f"{c} {row[c]!r}" for c in ("weights", "level", "draw", "metric"))
        raise InvalidValueError(
            f"Expected {one} and {other} to agree where they hold the same draw, but got {row['value']} and "
            f"{others['value']} for {named}"
        )


def _missing(configuration: dict[str, Any], rows: Sequence[Row]) -> int:
    """Return how many draws are not there: each of the weights on each level, once if it is without noise."""
    levels = configuration["levels"]
    wanted = len(configuration["weights"]) * sum(configuration["draws"] if level else 1 for level in levels)
    metrics = len(configuration.get("metrics", ["accuracy"]))
    found = Counter(tuple(row[c] for c in DRAW_KEY if c != "metric") for row in rows)
    return wanted - sum(number == metrics for number in found.values())  # a draw has a row for each
