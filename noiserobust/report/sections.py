"""The parts of the page: what is shown of one noise, of the trainings, and of single layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from noiserobust.report.analysis import Analysis
from noiserobust.report.figures.chips import draw_chips, draw_yield, profiles_of
from noiserobust.report.figures.curve import describe, draw_curve
from noiserobust.report.figures.differences import draw_differences
from noiserobust.report.figures.matrix import draw_matrix
from noiserobust.report.figures.sensitivity import draw_sensitivity, natural_size
from noiserobust.report.figures.style import KINDS, NARROW, WIDE, inline_svg, look
from noiserobust.report.figures.trainings import draw_trainings
from noiserobust.report.gather import Gathered
from noiserobust.report.mismatch import Mismatch
from noiserobust.report.strips import draw_strip, scale_of
from noiserobust.report.text import format_parts, legend
from noiserobust.report.verdict import format_share, make_verdict
from noiserobust.results.cells import Curve
from noiserobust.results.sensitivity import Sensitivity, ranking
from noiserobust.results.trainings import TrainingRun

Drawing = Callable[..., Mapping[str, bytes]]


class Figures:
    """Draws the figures of a report and keeps them for the folder beside the page."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._number = 0

    def add(self, name: str, drawing: Drawing, alt: str, narrow: tuple[float, float] | None = NARROW) -> dict[str, Any]:
        """Draw a figure for page, paper and telephone, and return what the page needs of it.

        Args:
            name: of its files.
            drawing: takes ``size`` and ``kinds``.
            alt: the figure in words.
            narrow: size for a telephone; None shows the wide one there too.
        """
        wide = self.save(name, drawing)
        self._number += 1
        small = drawing(size=narrow, kinds=("svg",))["svg"] if narrow else None
        # Made here from text that matplotlib has escaped.
        return {
            "alt": alt,
            "wide": Markup(inline_svg(wide["svg"], f"w{self._number}")),
            "narrow": Markup(inline_svg(small, f"n{self._number}")) if small else None,
        }

    def save(self, name: str, drawing: Drawing, size: tuple[float, float] = WIDE) -> Mapping[str, bytes]:
        """Draw a figure for the folder alone."""
        made = drawing(size=size, kinds=KINDS)
        self.files |= {f"{name}.{kind}": content for kind, content in made.items()}
        return made


def noise_section(
    analysis: Analysis, name: str, number: int, figures: Figures, methods: Sequence[str]
) -> dict[str, Any]:
    """Return what the page shows of one noise.

    Args:
        analysis: its numbers.
        name: of its files.
        number: of the section, from 1.
        figures: where its figures are kept.
        methods: all methods of the report.
    """
    table, target = analysis.table, analysis.target
    section: dict[str, Any] = {
        "id": f"noise-{number}",
        "analysis": analysis,
        "table": table,
        "legend": legend(table),
        "widths": {level: _widths(analysis, level) for level in table.columns},
        "verdict": make_verdict(analysis),
        "panels": [_panel(analysis, level, methods) for level in table.levels],
        "curve": figures.add(name, lambda **how: draw_curve(table, methods, **how), describe(table)),
        "yield": None,
        "differences": None,
        "matrices": [
            _matrix(m, f"{name}-training-levels{i or ''}", analysis, figures) for i, m in enumerate(analysis.mismatches)
        ],
    }
    shown = _with_chips(analysis, target)
    if target is not None and shown:
        at = f"{table.level_name} = {table.format_level(target)} ({table.noise})"
        figures.save(f"{name}-chips", lambda **how: draw_chips(shown, target, analysis.spec, methods, at, **how))
    if target is not None and shown and analysis.spec is not None:
        spec = analysis.spec
        profiles = profiles_of(shown, target, spec)
        rows = analysis.chips.dropna(subset=["yield"])
        yields = {
            (str(r["method"]), float(r["level"])): (r["yield"], r["yield_low"], r["yield_high"])
            for r in rows.to_dict("records")
        }
        said = [f"{m} {format_share(yields[m, target][0])}" for m in analysis.curves if (m, target) in yields]
        at = f"{table.level_name} = {table.format_level(target)}"
        section["yield"] = figures.add(
            f"{name}-yield",
            lambda **how: draw_yield(profiles, target, spec, table, yields, methods, **how),
            f"Share of chips that reach what is asked for. At {at} and {spec:g}%: {', '.join(said)}.",
            narrow=(NARROW[0], 5.6),
        )
    if analysis.baseline is not None and analysis.comparison["difference"].notna().any():
        baseline = analysis.baseline
        section["differences"] = figures.add(
            f"{name}-differences",
            lambda **how: draw_differences(analysis.comparison, table, baseline, methods, **how),
            f"Paired differences to {baseline} against {table.level_name}, with intervals, as in the tables.",
        )
    return section


def training_section(gathered: Gathered, figures: Figures) -> dict[str, Any] | None:
    """Return what the page shows of the trainings of the methods; None if nothing is known of them."""
    runs = [run for run in gathered.trainings if run.method in gathered.methods]
    if not runs:
        return None
    metrics = {
        m: [r.metrics for r in runs if r.method == m] for m in gathered.methods if any(r.method == m for r in runs)
    }
    lines = []
    for method in metrics:
        own = [run for run in runs if run.method == method]
        first = own[0].configuration
        passes = sorted({run.passes for run in own if run.passes is not None})
        lines.append(
            {
                "method": method,
                "seeds": sorted(run.train_seed for run in own),
                "epochs": _epochs(own),
                "batch_size": first.get("batch_size"),
                "passes": f"{passes[0]:,}" if len(passes) == 1 else f"{passes[0]:,}–{passes[-1]:,}" if passes else "—",
                "minutes": float(np.median([run.seconds for run in own])) / 60,
                "selected": _selection(first),
            }
        )
    alt = f"Training loss and held-out accuracy by epoch of {', '.join(metrics)}, a line a training."
    figure = figures.add(
        "trainings", lambda **how: draw_trainings(metrics, gathered.methods, **how), alt, narrow=(NARROW[0], 5.6)
    )
    return {"figure": figure, "lines": lines}


def sensitivity_section(
    folder: Path, found: Sensitivity, number: int, figures: Figures, methods: Sequence[str]
) -> dict[str, Any]:
    """Return what the page shows of the sensitivity of layers.

    Args:
        folder: where it was found.
        found: the numbers.
        number: of the section, from 1.
        figures: where its figure is kept.
        methods: all methods of the report.
    """
    frame = found.layers
    order = ranking(frame)
    name = f"sensitivity{'' if number == 1 else f'-{number}'}"
    gains = frame[frame["condition"] == "except"].set_index(["method", "layer"])["change"]
    best = ", ".join(f"{m}: {order[0]}, {gains[m, order[0]]:+.2f}" for m in dict.fromkeys(frame["method"]))
    rows = {(r["method"], r["condition"], r["layer"]): r for r in frame.to_dict("records")}
    figure = figures.add(
        name,
        lambda **how: draw_sensitivity(frame, methods, **(how | {"size": _fitting(how["size"], frame)})),
        f"Layers by what is gained when they are digital. First {best}.",
        narrow=(NARROW[0], 0.0),
    )
    return {
        "id": name,
        "folder": folder,
        "methods": list(dict.fromkeys(frame["method"])),
        "order": order,
        "rows": rows,
        "first": frame[frame["condition"] == "all"].iloc[0],
        "digital": _verified(found),
        "figure": figure,
    }


def file_names(analyses: Sequence[Analysis]) -> list[str]:
    """Return a safe file name a noise, its own where it is one."""
    tables = [a.table for a in analyses]
    names: list[str] = []
    for table in tables:
        shared = [t for t in tables if t.noise == table.noise]
        full = table.noise if len(shared) == 1 else f"{table.noise}-{table.level_name}-{table.metric}"
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", full)[:80].strip("-.") or "noise"
        name, tries = stem, 1
        # Compared without case: some file systems do not tell `A` from `a`.
        while name.casefold() in [n.casefold() for n in names]:
            tries += 1
            name = f"{stem}-{tries}"
        names.append(name)
    return names


def _verified(found: Sensitivity) -> list[dict[Hashable, Any]]:
    """Return what is said of the layers that are to be digital."""
    if found.digital is None:
        return []
    rows: list[dict[Hashable, Any]] = found.digital[found.digital["kind"] == "verify"].to_dict("records")
    return rows


def _with_chips(analysis: Analysis, level: float | None) -> list[Curve]:
    """Return the methods whose single chips can be shown at a level."""
    return [
        curve
        for curve in analysis.curves.values()
        if level is not None and level in curve.chips and not any(c.sampled for c in curve.chips[level].values())
    ]


def _panel(analysis: Analysis, level: float, methods: Sequence[str]) -> dict[str, Any]:
    """Return chips and differences at one level."""
    shown = _with_chips(analysis, level)
    scale = scale_of(shown, level, analysis.spec) if shown else None
    strips = {c.method: draw_strip(c, level, scale, look(methods, c.method)[0]) for c in shown} if scale else {}
    present = [m for m in analysis.table.methods if (m, level) in analysis.table.cells]
    return {
        "level": level,
        "name": analysis.table.format_level(level),
        "target": level == analysis.target,
        "scale": scale,
        "strips": strips,
        "methods": present,
        "chips": {m: analysis.chip_row(m, level) for m in present},
        "differences": {m: row for m in present if (row := analysis.comparison_row(m, level)) is not None},
    }


def _matrix(found: Mismatch, name: str, analysis: Analysis, figures: Figures) -> dict[str, Any]:
    table = analysis.table
    rows = [f"{level:g} ({method})" for method, level in found.rows]
    columns = [table.format_level(v) for v in found.columns]
    labels = "training level", f"test level: {table.level_name} ({table.noise})"
    size = (min(8.6, 2.6 + 0.85 * len(columns)), 1.2 + 0.42 * len(rows))
    figures.save(name, lambda **how: draw_matrix(found.means, found.best, rows, columns, labels, **how), size)
    low, high = float(np.nanmin(found.means)), float(np.nanmax(found.means))
    shades = (found.means - low) / ((high - low) or 1.0)
    return {"found": found, "rows": rows, "columns": columns, "shades": shades}


def _epochs(runs: Sequence[TrainingRun]) -> str:
    """Say how many epochs trainings have, and of how many if they were cut short."""
    done, planned = min(len(run.metrics) for run in runs), runs[0].configuration.get("epochs")
    return f"{done}" if done == planned or not isinstance(planned, int) else f"{done} of {planned}"


def _selection(configuration: Mapping[str, Any]) -> str:
    """Say how the epoch was chosen."""
    share = configuration.get("held_out")
    if not isinstance(share, int | float) or not share:
        return "last epoch"
    return f"best on {100 * share:g}% held out"


def _fitting(size: tuple[float, float], frame: Any) -> tuple[float, float]:
    """Return a size for a picture of layers: as wide as asked for, as high as it has to be."""
    return size[0], natural_size(frame)[1] + (0.7 if size[0] < 6 else 0)


def _widths(analysis: Analysis, level: float) -> list[int]:
    """Return how many signs mean, noise std and seed std need in a column, so that they line up."""
    table = analysis.table
    cells = [c for (_, at), c in table.cells.items() if at == level]
    printed = [[p or "—" for p in format_parts(c, level, table.metric)] for c in cells]
    return [max(map(len, column)) for column in zip(*printed, strict=True)]
