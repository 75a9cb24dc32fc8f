"""The numbers as Markdown, as LaTeX and for JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from noiserobust.report.analysis import Analysis
from noiserobust.report.published import PUBLISHED, Published
from noiserobust.report.tables import CLEAN, Cell, NoiseTable, format_number
from noiserobust.report.verdict import Verdict, format_interval, format_p, format_signed, make_verdict
from noiserobust.results.export import to_records
from noiserobust.results.schema import SCHEMA_VERSION, is_accuracy
from noiserobust.results.summary import summarize

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "-",
    "—": "--",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    # After the end of a row they would be taken for an option of it.
    **{c: f"{{{c}}}" for c in "[]*"},
}


def escape_latex(text: str) -> str:
    r"""Return text in which LaTeX sees nothing but letters.

    >>> print(escape_latex("50% of a_b & c"))
    50\% of a\_b \& c
    """
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))


def escape_markdown(text: str) -> str:
    r"""Return text in which Markdown, and HTML inside it, see nothing but letters.

    >>> print(escape_markdown("a_b | <i>"))
    a\_b \| \<i\>
    """
    return re.sub(r"([\\`*_{}\[\]<>#|!~&$])", r"\\\1", " ".join(text.split()))


@dataclass(frozen=True)
class Markup:
    """How one format writes a cell."""

    cell: Callable[[str], str]
    plus_minus: str
    bold: Callable[[str], str]
    dash: str
    dagger: str


MARKDOWN = Markup(str, " ± ", lambda mean: f"**{mean}**", "—", "†")
LATEX = Markup(lambda cell: f"${cell}$", r" \pm ", lambda mean: rf"\mathbf{{{mean}}}", r"\mbox{--}", r"^{\dagger}")


def format_parts(cell: Cell, level: float, metric: str) -> list[str | None]:
    """Return mean, noise std and seed std as printed; a clean number has no noise std. None: not estimable."""
    parts = [cell.mean, cell.seed_std] if level == CLEAN else [cell.mean, cell.noise_std, cell.seed_std]
    return [format_number(p, metric) if math.isfinite(p) else None for p in parts]


def format_cell(cell: Cell | None, level: float, metric: str, markup: Markup) -> str:
    """Return one cell, ``mean ± noise std ± seed std``."""
    if cell is None:
        return "missing"
    mean, *spread = format_parts(cell, level, metric)
    mean = str(mean)
    parts = [markup.bold(mean) if cell.highest else mean, *(p or markup.dash for p in spread)]
    return markup.cell(markup.plus_minus.join(parts) + ("" if cell.complete else markup.dagger))


def legend(table: NoiseTable) -> str:
    """Say what the cells are made of, and only of what is in them."""
    unit = f"{table.metric}, %" if is_accuracy(table.metric) else table.metric
    said = [f"Mean ± noise std (over chips) ± seed std (over trainings); {unit}."]
    if table.has_clean:
        said.append("clean: without noise, mean ± seed std.")
    if table.borrowed:
        said.append(f"The clean numbers of {', '.join(table.borrowed)} were measured with another noise, same weights.")
    if any(c.highest for c in table.cells.values()):
        said.append("Bold: the highest mean of its column, marked only where its 95% interval meets no other.")
    cells = [(level, c) for (_, level), c in table.cells.items()]
    if any(c.n_seeds == 1 for _, c in cells):
        said.append("—: not estimable (seed std: one weight file).")
    if any(level != CLEAN and math.isnan(c.noise_std) for level, c in cells):
        said.append("—: not estimable (noise std: one draw).")
    if not all(c.complete for _, c in cells):
        said.append("†: draws are missing.")
    return " ".join(said)


def to_markdown(analyses: Sequence[Analysis], published: Sequence[Published] = ()) -> str:
    """Return the summary, the levels and the differences of each noise, and what others found, as Markdown tables."""
    blocks = []
    for analysis in analyses:
        table = analysis.table
        heads = [table.format_level(v) if v == CLEAN else _level(table, v) for v in table.columns]
        lines = [["method", *map(escape_markdown, heads)], ["---", *["---:"] * len(heads)]]
        for method in table.methods:
            cells = (format_cell(table.cells.get((method, v)), v, table.metric, MARKDOWN) for v in table.columns)
            lines.append([escape_markdown(method), *cells])
        rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        title = escape_markdown(f"{table.noise}: {table.metric} against {_level(table)}")
        blocks.append(f"## {title}\n\n{rows}\n\n{escape_markdown(legend(table))}\n")
        if verdict := make_verdict(analysis):
            blocks.append(f"{escape_markdown(verdict.headline)}\n\n{_markdown(_summary(verdict))}\n")
        if len(analysis.comparison):
            blocks.append(
                markdown_rows(differences(analysis), f"differences to {analysis.baseline}", explained(analysis))
            )
    for other in published:
        said = f"{PUBLISHED} Read from {other.file.name}."
        blocks.append(markdown_rows(other.rows, f"published, {other.heading}", said))
    return "\n".join(blocks)


def markdown_rows(rows: Sequence[Sequence[str]], title: str, said: str) -> str:
    """Return rows of text, the head first, as a table with a title above and a sentence below."""
    return f"### {escape_markdown(title)}\n\n{_markdown(rows)}\n\n{escape_markdown(said)}\n"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ([escape_markdown(cell) for cell in row] for row in rows)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _summary(verdict: Verdict) -> list[list[str]]:
    """Return the summary as rows of text, the head first."""
    head = ["method", *(f"{name} ({below})" if below else name for name, below in verdict.columns.items())]
    rows = [[line.method, *(f"{a} ({b})" if b else a for a, b, _ in line.parts.values())] for line in verdict.lines]
    return [head, *rows]


def differences(analysis: Analysis) -> list[list[str]]:
    """Return the differences to the baseline as rows of text, the head first."""
    table, metric = analysis.table, analysis.table.metric
    head = [
        "method",
        table.level_name,
        f"difference to {analysis.baseline}",
        "95% interval",
        "p (Holm)",
        "p (sign flip)",
    ]
    rows = []
    for row in analysis.comparison.to_dict("records"):
        ends = format_interval(row["difference_low"], row["difference_high"], lambda v: format_signed(v, metric))
        known = math.isfinite(row["difference"])
        difference = format_signed(row["difference"], metric) if known else "no common train seed"
        line = [str(row["method"]), table.format_level(float(row["level"])), difference, ends]
        rows.append([*line, format_p(row["p_holm"]), format_p(row["p_sign_flip"])])
    return [head, *rows]


def explained(analysis: Analysis) -> str:
    """Say what the differences are made of."""
    over = set(analysis.comparison["over"])
    text = "Differences on the same train seeds and chips, intervals and t-tests over train seeds, Holm over methods."
    if "chips" in over:
        text += " Where methods share one train seed only, over its chips: of these weights alone."
    return text


def to_json(analyses: Sequence[Analysis], notes: Sequence[str], published: Sequence[Published] = ()) -> dict[str, Any]:
    """Return all numbers, JSON-able: what cannot be estimated is null, what is infinite the text ``inf``."""
    noises = []
    for analysis in analyses:
        verdict, draws = make_verdict(analysis), analysis.table.draws
        own = draws[(draws["level"] != CLEAN) | ~draws["method"].isin(analysis.table.borrowed)]
        noises.append(
            {
                "noise": analysis.table.noise,
                "level_name": analysis.table.level_name,
                "metric": analysis.table.metric,
                "target": analysis.target,
                "spec": analysis.spec,
                "baseline": analysis.baseline,
                "headline": verdict.headline if verdict else None,
                "summary": to_records(summarize(own)),
                "chips": to_records(analysis.chips),
                "comparison": to_records(analysis.comparison),
                "tolerance": to_records(analysis.tolerance),
                "training_levels": [
                    {
                        "trained": found.trained,
                        "rows": [{"method": method, "level": level} for method, level in found.rows],
                        "columns": list(found.columns),
                        "means": [[None if math.isnan(v) else v for v in row] for row in found.means.tolist()],
                        "best": [None if i is None else found.rows[i][0] for i in found.best],
                    }
                    for found in analysis.mismatches
                ],
            }
        )
    others = [{"file": str(p.file), "title": p.title, "noise": p.noise, "rows": p.rows} for p in published]
    found = {"schema_version": SCHEMA_VERSION, "notes": list(notes), "noises": noises}
    return found | ({"published": others} if others else {})


def to_latex(analyses: Sequence[Analysis], published: Sequence[Published] = ()) -> str:
    """Return LaTeX tables, levels and differences of each noise, and what others found.

    The document needs ``\\usepackage{booktabs}``.
    """
    blocks = ["% Needs \\usepackage{booktabs}.\n"]
    for number, analysis in enumerate(analyses, start=1):
        table = analysis.table
        levels = [v for v in table.columns if v != CLEAN]
        name = {"sigma": r"$\sigma$", "b": "$b$", "t": "$t$"}.get(table.level_name, escape_latex(table.level_name))
        heads = [("", "clean")] if table.has_clean else []
        heads += [(name, escape_latex(table.format_level(v))) for v in levels]
        cells = [
            [format_cell(table.cells.get((m, v)), v, table.metric, LATEX) for v in table.columns] for m in table.methods
        ]
        frame = pd.DataFrame(
            cells, index=[escape_latex(m) for m in table.methods], columns=pd.MultiIndex.from_tuples(heads)
        )
        caption = f"{escape_latex(table.metric)} under {escape_latex(table.noise)}. {_legend_latex(table)}"
        blocks.append(
            frame.style.to_latex(
                hrules=True,
                column_format="l" + "r" * len(heads),
                multicol_align="c",
                position="t",
                position_float="centering",
                caption=caption,
                label=f"tab:noiserobust-{number}",
            )
        )
        if len(analysis.comparison):
            about = f"Differences of {table.metric} under {table.noise}. {explained(analysis)}"
            label = f"tab:noiserobust-{number}-differences"
            blocks.append(latex_rows(differences(analysis), about, label))
    for number, other in enumerate(published, start=1):
        text = latex_rows(other.rows, f"{other.heading}. {PUBLISHED}", f"tab:noiserobust-published-{number}")
        blocks.append(text.replace("±", r"$\pm$").replace("—", "--"))
    return "\n".join(blocks)


def latex_rows(rows: Sequence[Sequence[str]], caption: str, label: str) -> str:
    """Return rows of text, the head first, as a table; numbers stand in math."""

    def cell(text: str) -> str:
        plain = text.replace("−", "-")
        number = re.fullmatch(r"[<>]?\s?[+-]?[\d.,]+", plain)
        ends = re.fullmatch(r"([+-]?[\d.]+) to ([+-]?[\d.]+)", plain)
        if ends:
            return f"$[{ends[1]}, {ends[2]}]$"
        return f"${plain}$" if number else "--" if text == "—" else escape_latex(text)

    head, *body = rows
    frame = pd.DataFrame([[cell(c) for c in row[1:]] for row in body], index=[escape_latex(row[0]) for row in body])
    frame.columns = pd.Index([escape_latex(name) for name in head[1:]])
    text: str = frame.style.to_latex(
        hrules=True,
        column_format="l" + "r" * (len(head) - 1),
        position="t",
        position_float="centering",
        caption=escape_latex(caption),
        label=label,
    )
    return text


def _level(table: NoiseTable, level: float | None = None) -> str:
    return table.level_name if level is None else f"{table.level_name} = {table.format_level(level)}"


def _legend_latex(table: NoiseTable) -> str:
    text = escape_latex(legend(table))
    return text.replace("±", r"$\pm$").replace("†", r"$^{\dagger}$").replace("—", "--")
