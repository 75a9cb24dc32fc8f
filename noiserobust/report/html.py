"""The page: one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from noiserobust.report.analysis import Analysis
from noiserobust.report.gather import Gathered
from noiserobust.report.published import PUBLISHED, Published
from noiserobust.report.sections import (
    Figures,
    file_names,
    noise_section,
    sensitivity_section,
    training_section,
)
from noiserobust.report.tables import CLEAN, TRAINING, Cell, NoiseTable, format_number
from noiserobust.report.text import format_parts
from noiserobust.report.verdict import format_p, format_share, format_signed, interval_of
from noiserobust.report.words import listed, plural
from noiserobust.results.schema import is_accuracy
from noiserobust.stats.compare import least_p_sign_flip
from noiserobust.stats.intervals import std_interval, test_set_std


def render_html(
    gathered: Gathered, analyses: Sequence[Analysis], notes: Sequence[str], published: Sequence[Published] = ()
) -> tuple[str, dict[str, bytes]]:
    """Return the page and, by file name, the figures for the folder beside it."""
    figures = Figures()
    tables = [a.table for a in analyses]
    sections = [
        noise_section(analysis, name, number, figures, gathered.methods)
        for number, (analysis, name) in enumerate(zip(analyses, file_names(analyses), strict=True), start=1)
    ]
    environment = Environment(
        loader=PackageLoader("noiserobust.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["listed"] = listed
    environment.globals.update(
        parts=format_parts,
        number=format_number,
        signed=format_signed,
        number_of=lambda metric: partial(format_number, metric=metric),
        signed_of=lambda metric: partial(format_signed, metric=metric),
        share=format_share,
        p_value=format_p,
        ends=interval_of,
        error=_error,
        finite=math.isfinite,
        is_accuracy=is_accuracy,
    )
    script = environment.get_template("report.js").render()
    page = environment.get_template("report.html.j2").render(
        facts=_facts(gathered, tables),
        data=gathered.data,
        subtitle=_subtitle(gathered, tables),
        notes=notes,
        sections=sections,
        several_metrics=len({t.metric for t in tables}) > 1,
        published=published,
        about_published=PUBLISHED,
        trainings=training_section(gathered, figures),
        sensitivities=[
            sensitivity_section(folder, found, number, figures, gathered.methods)
            for number, (folder, found) in enumerate(gathered.sensitivities.items(), start=1)
        ],
        words=_words(gathered, analyses),
        sources=gathered.sources,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return page, figures.files


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
        ("Measured", [f"{listed(draws['metric'].unique())} on {_range(examples)} {gathered.data} examples"]),
    ]


def _words(gathered: Gathered, analyses: Sequence[Analysis]) -> dict[str, Any]:
    """Return the numbers that the definitions are filled with."""
    sizes = gathered.draws[TRAINING].drop_duplicates().groupby("method").size()
    fewest = int(sizes.min())
    examples = sorted(set(gathered.examples))
    return {
        "one_file": fewest == 1,
        "seed_factors": [(n, *(f"{end:.2f}" for end in std_interval(1.0, n - 1))) for n in sorted(set(sizes)) if n > 1],
        "errors": [
            (f"{n:,}", *(f"{100 * math.sqrt(p * (1 - p) / n):.2f}" for p in (0.5, 0.9))) for n in examples if n > 0
        ],
        "any_accuracy": any(is_accuracy(m) for m in gathered.draws["metric"].unique()),
        "drop": next((f"{a.tolerance['drop'].iloc[0]:g}" for a in analyses if len(a.tolerance)), None),
        "needed": next((int(a.chips["draws_needed"].iloc[0]) for a in analyses if len(a.chips)), None),
        "compared": any(len(a.comparison) for a in analyses),
        "least_p": [
            (n, f"{least_p_sign_flip(n):.3g}")
            for n in sorted({int(n) for a in analyses for n in a.comparison["n_seeds"] if n > 1})
        ],
    }


def _error(cell: Cell, metric: str) -> str:
    return f"{test_set_std(cell.mean, cell.n_examples):.2f}" if is_accuracy(metric) else "—"


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "no"
    return f"{numbers[0]:,}" if numbers[0] == numbers[-1] else f"{numbers[0]:,}–{numbers[-1]:,}"
