"""The page: one file that needs nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from scipy import stats

from noiserobust.report.figures import NARROW, WIDE, describe, draw_figure, inline_svg
from noiserobust.report.gather import Gathered
from noiserobust.report.notes import listed, plural
from noiserobust.report.tables import (
    CLEAN,
    TRAINING,
    Cell,
    NoiseTable,
    format_number,
    is_accuracy,
    test_set_error,
)
from noiserobust.report.text import format_parts, legend


def render_html(gathered: Gathered, tables: Sequence[NoiseTable], notes: Sequence[str]) -> tuple[str, dict[str, bytes]]:
    """Return the page and, by file name, the figures for the folder beside it."""
    figures: dict[str, bytes] = {}
    sections = []
    for number, (table, name) in enumerate(zip(tables, _file_names(tables), strict=True), start=1):
        wide = draw_figure(table, gathered.methods, WIDE, "svg")
        narrow = draw_figure(table, gathered.methods, NARROW, "svg")
        figures[f"{name}.png"] = draw_figure(table, gathered.methods, WIDE, "png")
        figures[f"{name}.svg"] = wide
        sections.append(
            {
                "id": f"noise-{number}",
                "table": table,
                "legend": legend(table),
                "widths": {level: _widths(table, level) for level in table.columns},
                "alt": describe(table),
                # Made here from text that matplotlib has escaped.
                "wide": Markup(inline_svg(wide, f"w{number}")),
                "narrow": Markup(inline_svg(narrow, f"n{number}")),
            }
        )
    environment = Environment(
        loader=PackageLoader("noiserobust.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["listed"] = listed
    environment.globals.update(
        parts=format_parts, number=format_number, error=_error, finite=math.isfinite, is_accuracy=is_accuracy
    )
    page = environment.get_template("report.html.j2").render(
        facts=_facts(gathered, tables),
        subtitle=_subtitle(gathered, tables),
        notes=notes,
        glances=_glances(gathered, tables),
        sections=sections,
        words=_words(gathered),
        sources=gathered.sources,
    )
    return page, figures


def _subtitle(gathered: Gathered, tables: Sequence[NoiseTable]) -> str:
    noises = dict.fromkeys(t.noise for t in tables)
    return f"{listed(gathered.methods)} under {listed(noises)}"


def _facts(gathered: Gathered, tables: Sequence[NoiseTable]) -> list[tuple[str, list[str]]]:
    """Say what was run, from the draws alone."""
    draws = gathered.draws
    methods = []
    for method in gathered.methods:
        trainings = draws.loc[draws["method"] == method, TRAINING].drop_duplicates()
        seeds = sorted(set(trainings["train_seed"]))
        methods.append(
            f"{method}: {plural(len(trainings), 'weight file')}, train seed{'s'[: len(seeds) > 1]} {listed(seeds)}"
        )
    noises = []
    for table in tables:
        counts = sorted({c.n_draws for (_, level), c in table.cells.items() if level != CLEAN})
        number = plural(counts[0], "draw") if len(counts) == 1 else f"{_range(counts)} draws"
        each = f"; {number} for each level and weight file" if counts else ""
        noises.append(
            f"{table.noise}: {table.level_name} = {listed(map(table.format_level, table.levels)) or 'none'}{each}"
        )
    examples = sorted(set(gathered.examples))
    return [
        ("Methods", methods),
        ("Noises", list(dict.fromkeys(noises))),
        ("Measured", [f"{listed(draws['metric'].unique())} on {_range(examples)} test examples"]),
    ]


def _glances(gathered: Gathered, tables: Sequence[NoiseTable]) -> list[dict[str, Any]]:
    """Clean and at the largest level of each noise, one table a metric."""
    glances = []
    for metric in dict.fromkeys(t.metric for t in tables):
        ours = [t for t in tables if t.metric == metric]
        # The clean number of a method is the same under every noise, or else a note says so.
        clean: dict[str, Cell] = {}
        for table in ours:
            clean = {m: c for (m, level), c in table.cells.items() if level == CLEAN} | clean
        columns: list[tuple[str, str, dict[str, Cell]]] = [("Clean", "without noise", clean)] if clean else []
        for table in ours:
            if table.levels:
                top = table.levels[-1]
                at = f"{table.level_name} = {table.format_level(top)}"
                columns.append((table.noise, at, {m: c for (m, level), c in table.cells.items() if level == top}))
        methods = [m for m in gathered.methods if any(m in cells for _, _, cells in columns)]
        glances.append({"metric": metric, "columns": columns, "methods": methods})
    return glances


def _words(gathered: Gathered) -> dict[str, Any]:
    """Return the numbers that the definitions are filled with."""
    sizes = gathered.draws[TRAINING].drop_duplicates().groupby("method").size()
    fewest = int(sizes.min())
    examples = sorted(set(gathered.examples))
    return {
        "one_file": fewest == 1,
        "seed_factors": [(n, *_std_factors(n - 1)) for n in sorted(set(sizes)) if n > 1],
        "errors": [
            (f"{n:,}", *(f"{100 * math.sqrt(p * (1 - p) / n):.2f}" for p in (0.5, 0.9))) for n in examples if n > 0
        ],
        "any_accuracy": any(is_accuracy(m) for m in gathered.draws["metric"].unique()),
    }


def _std_factors(freedom: int) -> tuple[str, str]:
    """Return by which factors a standard deviation may be off, 95% chi-square interval."""
    low, high = (math.sqrt(freedom / stats.chi2.ppf(p, freedom)) for p in (0.975, 0.025))
    return f"{low:.2f}", f"{high:.2f}"


def _widths(table: NoiseTable, level: float) -> list[int]:
    """Return how many signs mean, noise std and seed std need in a column, so that they line up."""
    cells = [c for (_, at), c in table.cells.items() if at == level]
    printed = [[p or "—" for p in format_parts(c, level, table.metric)] for c in cells]
    return [max(map(len, column)) for column in zip(*printed, strict=True)]


def _error(cell: Cell, metric: str) -> str:
    return f"{test_set_error(cell):.2f}" if is_accuracy(metric) else "—"


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "no"
    return f"{numbers[0]:,}" if numbers[0] == numbers[-1] else f"{numbers[0]:,}–{numbers[-1]:,}"


def _file_names(tables: Sequence[NoiseTable]) -> list[str]:
    """Return a safe file name a table, the noise's own where it is one."""
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
