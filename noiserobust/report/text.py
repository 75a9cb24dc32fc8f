"""The tables as Markdown and as LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from noiserobust.report.tables import CLEAN, Cell, NoiseTable, format_number, is_accuracy

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
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
    return re.sub(r"([\\`*_{}\[\]()<>#|!~&$])", r"\\\1", " ".join(text.split()))


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


def to_markdown(tables: Sequence[NoiseTable]) -> str:
    """Return one Markdown table a noise."""
    blocks = []
    for table in tables:
        heads = [table.format_level(v) if v == CLEAN else _level(table, v) for v in table.columns]
        lines = [["method", *map(escape_markdown, heads)], ["---", *["---:"] * len(heads)]]
        for method in table.methods:
            cells = (format_cell(table.cells.get((method, v)), v, table.metric, MARKDOWN) for v in table.columns)
            lines.append([escape_markdown(method), *cells])
        rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        title = f"{escape_markdown(table.noise)}: {escape_markdown(table.metric)} against {_level(table)}"
        blocks.append(f"## {title}\n\n{rows}\n\n{legend(table)}\n")
    return "\n".join(blocks)


def to_latex(tables: Sequence[NoiseTable]) -> str:
    """Return one LaTeX ``table`` a noise; the document needs ``\\usepackage{booktabs}``."""
    blocks = ["% Needs \\usepackage{booktabs}.\n"]
    for number, table in enumerate(tables, start=1):
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
    return "\n".join(blocks)


def _level(table: NoiseTable, level: float | None = None) -> str:
    return table.level_name if level is None else f"{table.level_name} = {table.format_level(level)}"


def _legend_latex(table: NoiseTable) -> str:
    text = escape_latex(legend(table))
    return text.replace("±", r"$\pm$").replace("†", r"$^{\dagger}$").replace("—", "--")
