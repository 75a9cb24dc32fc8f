"""Write the whole report, or leave the old one as it was."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiserobust.errors import InvalidValueError, NoiseRobustError, OutputError
from noiserobust.results.files import make_folder, read_json, replacing, write_errors

NUMBERS_FILE = "summary.json"


@dataclass(frozen=True)
class Report:
    """The files of a report.

    Attributes:
        html: the page, self-contained.
        tables: ``summary.csv`` (means), ``chips.csv`` (yields and tails), ``comparison.csv`` (differences to the
            baseline) and ``tolerance.csv``, as far as there is something to say; all of them in ``summary.json``, and
            what goes into a text in ``summary.md`` and ``summary.tex``.
        figures: each as ``.svg``, ``.png`` and ``.pdf``.
    """

    html: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]


def write_report(
    folders: Sequence[str | Path], out: str | Path, *, published: Sequence[str | Path] = (), **criteria: Any
) -> Report:
    """Join result folders and write ``report.html``, tables and ``figures/``.

    Everything is made in memory first and renamed into place last, so a failure leaves an older report untouched.
    The same results give the same bytes. Figures and tables of an older report that the new one does not have are
    removed.

    Args:
        folders: result folders, finished or interrupted, or folders that hold such at any depth.
        out: the folder to write to; created if missing.
        published: files of numbers of others, :func:`noiserobust.report.published.read_published`, to be shown beside.
        criteria: ``spec``, ``target``, ``drop`` and ``baseline`` of :class:`noiserobust.report.criteria.Criteria`.

    Returns:
        The files written.

    Raises:
        MissingFileError: if a folder does not exist or holds no results, or there is no such file.
        InvalidValueError: if results are damaged, contradict each other or were evaluated on different splits of the
            data, ``out`` holds other results, or a file has no published numbers under the noises of the results.
        OutputError: if ``out`` cannot be written to.
    """
    # Here and not above: matplotlib and pandas take a second, `import noiserobust.report` should not.
    import pandas as pd

    from noiserobust.report.analysis import analyse
    from noiserobust.report.criteria import Criteria
    from noiserobust.report.gather import gather, is_result_folder, kind_of
    from noiserobust.report.html import render_html
    from noiserobust.report.notes import find_notes
    from noiserobust.report.published import read_published
    from noiserobust.report.tables import make_tables
    from noiserobust.report.text import to_json, to_latex, to_markdown
    from noiserobust.results.export import to_csv
    from noiserobust.results.summary import summarize

    out = Path(out)
    if out.exists() and not out.is_dir():
        raise OutputError(f"Expected to be able to write {out}, but got: it is a file")
    gathered = gather([Path(f) for f in folders])
    # A result folder has a summary.csv of its own; ours is the same only if nothing else is joined to it.
    other = is_result_folder(out) and [s.folder.resolve() for s in gathered.sources] != [out.resolve()]
    if other or kind_of(out) not in (None, "evaluation"):
        raise InvalidValueError(
            f"Expected `out` to be a folder for the report alone, but {out} holds results of its own"
        )
    others = read_published(published, gathered.draws["noise"].unique())
    tables = make_tables(gathered)
    analyses = analyse(tables, gathered, Criteria(**criteria))
    notes = find_notes(gathered, analyses)
    html, figures = render_html(gathered, analyses, notes, others)

    page = {out / "report.html": html.encode()}
    claims = {name: pd.concat([getattr(a, name) for a in analyses]) for name in ("chips", "comparison", "tolerance")}
    frames = {"summary": summarize(gathered.draws), **claims}
    texts = {out / f"{name}.csv": to_csv(frame).encode() for name, frame in frames.items() if len(frame)}
    texts |= {
        out / "summary.md": to_markdown(analyses, others).encode(),
        out / "summary.tex": to_latex(analyses, others).encode(),
    }
    images = {out / "figures" / name: content for name, content in figures.items()}
    names = [path.relative_to(out).as_posix() for path in (*page, *texts, out / NUMBERS_FILE, *images)]
    numbers = {**to_json(analyses, notes, others), "files": names}
    texts[out / NUMBERS_FILE] = f"{json.dumps(numbers, indent=1, allow_nan=False, ensure_ascii=False)}\n".encode()
    make_folder(out)
    make_folder(out / "figures")
    before = _files_of(out)
    _write_all({**page, **texts, **images})
    for path in before - {*page, *texts, *images}:
        with write_errors(path):
            path.unlink(missing_ok=True)
    return Report(html=out / "report.html", tables=tuple(texts), figures=tuple(images))


def _files_of(out: Path) -> set[Path]:
    """Return the figures and tables of an older report, as far as it says: they would pass for those of the new one."""
    try:
        names = read_json(out / NUMBERS_FILE)["files"]
        return {out / n for n in names if re.fullmatch(r"(figures/)?[\w.-]+\.(csv|svg|png|pdf)", n)}
    except (NoiseRobustError, KeyError, TypeError):
        return set()


def _write_all(files: Mapping[Path, bytes]) -> None:
    """Write files so that a full disk replaces none of them."""
    with ExitStack() as renames:
        for path, content in files.items():
            renames.enter_context(write_errors(path))
            temporary = renames.enter_context(replacing(path))
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                # Some file systems report a full disk only here; it has to be known before the first rename.
                os.fsync(file.fileno())
