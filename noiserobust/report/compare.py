"""Two or more result folders against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from noiserobust.errors import InvalidValueError
from noiserobust.report.analysis import Analysis, analyse
from noiserobust.report.criteria import Criteria
from noiserobust.report.gather import Gathered, check_one_split, gather
from noiserobust.report.notes import find_notes
from noiserobust.report.tables import make_tables
from noiserobust.report.text import differences, explained, latex_rows, markdown_rows
from noiserobust.report.words import listed
from noiserobust.results.export import to_csv, to_records
from noiserobust.results.schema import SAMPLED_DTYPES
from noiserobust.results.store import with_sampling


@dataclass(frozen=True)
class Compared:
    """Methods against one of them.

    Attributes:
        analyses: one a noise and metric that the baseline has too.
        notes: what to know before believing them.
    """

    analyses: tuple[Analysis, ...]
    notes: tuple[str, ...]


def compare_folders(folders: Sequence[Path], baseline: str | None = None, *, apart: bool = False) -> Compared:
    """Compare the methods in result folders with one of them, paired by train seed and chip.

    Args:
        folders: result folders, or folders that hold such.
        baseline: the method that others are compared with; by default the first.
        apart: take each folder for a method of its own that is called as the folder is.

    Raises:
        MissingFileError: if a folder does not exist or holds no results.
        InvalidValueError: if results are damaged, contradict each other or were evaluated on different splits of the
            data, or there are no two methods.
    """
    gathered = _apart(folders) if apart else gather(folders)
    if len(gathered.methods) < 2:
        raise InvalidValueError(
            f"Expected two methods or more to compare, but got {' and '.join(gathered.methods)} alone; evaluate under "
            "names of their own (--method), or take each folder for one (--apart)"
        )
    everything = analyse(make_tables(gathered), gathered, Criteria(baseline=baseline))
    found = [a for a in everything if len(a.comparison)]
    if not found:
        raise InvalidValueError(
            f"Expected methods that were evaluated under the same noise as {baseline or gathered.methods[0]}, "
            "but there is none"
        )
    notes = find_notes(gathered, everything)
    if alone := [a.table.noise for a in everything if not len(a.comparison)]:
        base = baseline or gathered.methods[0]
        notes.append(
            f"Nothing is compared under {listed(dict.fromkeys(alone))}: {base} was not evaluated there, or alone."
        )
    return Compared(tuple(found), tuple(notes))


def write_comparison(compared: Compared, kind: str) -> str:
    """Return comparisons as text.

    Args:
        compared: of :func:`compare_folders`.
        kind: ``"text"``, ``"markdown"``, ``"latex"``, ``"csv"`` or ``"json"``.
    """
    analyses = compared.analyses
    frame = pd.concat([a.comparison for a in analyses])
    if kind == "csv":
        return to_csv(frame).rstrip("\n")
    if kind == "json":
        return json.dumps(to_records(frame), indent=1, allow_nan=False, ensure_ascii=False)
    blocks = []
    for number, analysis in enumerate(analyses, start=1):
        title = f"{analysis.table.metric} under {analysis.table.noise}"
        rows, said = differences(analysis), explained(analysis)
        if kind == "markdown":
            blocks.append(markdown_rows(rows, title, said))
        elif kind == "latex":
            blocks.append(latex_rows(rows, f"Differences of {title}. {said}", f"tab:noiserobust-comparison-{number}"))
        else:
            widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
            lines = [[name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])] for name, *cells in rows]
            blocks.append("\n".join([title, *map("  ".join, lines), said]))
    return "\n\n".join(blocks)


def _without_weights(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    configuration = (manifest or {}).get("configuration")
    kept = {k: v for k, v in configuration.items() if k != "weights"} if isinstance(configuration, dict) else {}
    return {**(manifest or {}), "configuration": kept}


def _apart(folders: Sequence[Path]) -> Gathered:
    folders = list({folder.resolve(): folder for folder in folders}.values())  # named twice it is no second method
    parts = [gather([folder]) for folder in folders]
    check_one_split([source for part in parts for source in part.sources])
    names = [folder.resolve().name for folder in folders]
    names = [str(f) if names.count(n) > 1 else n for n, f in zip(names, folders, strict=True)]
    frames = []
    for name, part in zip(names, parts, strict=True):
        several = len(part.methods) > 1
        label = part.draws["method"].map(lambda m, n=name: f"{n}: {m}") if several else name
        frames.append(part.draws.assign(method=label))
    # What the manifests say of weights goes by other names than these.
    sources = tuple(replace(s, manifest=_without_weights(s.manifest)) for part in parts for s in part.sources)
    draws = pd.concat(frames, ignore_index=True)
    return Gathered(with_sampling(draws) if set(SAMPLED_DTYPES) <= set(draws) else draws, sources)
