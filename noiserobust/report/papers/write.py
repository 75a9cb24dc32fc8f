"""Draw the figures of papers from what trainings and evaluations have left, and write them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noiserobust.errors import InvalidValueError, NoiseRobustError, OutputError, check_choice, check_number
from noiserobust.results.files import make_folder, read_json, write_atomic, write_errors

if TYPE_CHECKING:
    from noiserobust.report.papers.runs import Found
    from noiserobust.report.papers.selection import Selection

LIST_FILE = "figures.json"

KINDS = ("svg", "png", "pdf")


@dataclass(frozen=True)
class PaperFigure:
    """A figure that was asked for.

    Attributes:
        name: such as ``1`` or ``rwp-3``.
        title: a line.
        files: where it was written, by kind; empty if nothing of it could be drawn.
        missing: what has to be recorded or run for what is not drawn of it.
        notes: what has to be known to read it.
    """

    name: str
    title: str
    files: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def drawn(self) -> bool:
        """Whether there is a picture, perhaps without some of its panels."""
        return bool(self.files)


def draw_figures(
    folders: Sequence[str | Path],
    out: str | Path,
    only: Sequence[str] | None = None,
    *,
    methods: Sequence[str] | None = None,
    levels: Sequence[float] | None = None,
    narrow: bool = False,
    kinds: Sequence[str] = KINDS,
) -> list[PaperFigure]:
    """Draw the figures of two papers, as far as there are data for them, and write them with a list of what they show.

    Everything is read and drawn before the first file is written. The same data give the same bytes. Figures that an
    earlier call has written are removed if they could not be drawn this time, or are of other folders.

    Args:
        folders: folders of trainings, evaluations, landscapes and filters, or folders that hold such at any depth.
        out: the folder to write to; created if missing.
        only: names of figures, ``1`` to ``12`` or ``rwp-2`` to ``rwp-8``; by default all.
        methods: names of trainings that are drawn; by default all.
        levels: noise levels: of the figures at one level the highest of them is shown in figures 2 and 9, the lowest
            in 4, 6 and 11; by default of those there are.
        narrow: whether panels stand below each other, for one column of a paper or a telephone.
        kinds: files to write for each figure, some of ``"svg"``, ``"png"``, ``"pdf"``.

    Returns:
        All figures that were asked for, also those that are missing.

    Raises:
        MissingFileError: if a folder does not exist or holds nothing of ours.
        InvalidValueError: if a name is not known, a file is damaged, ``out`` holds results, or nothing of what was
            asked for can be drawn.
        OutputError: if ``out`` cannot be written to.
    """
    # Here and not above: matplotlib and pandas take a second, importing this should not.
    from noiserobust.report.papers.catalogue import CATALOGUE
    from noiserobust.report.papers.selection import Asked

    out = Path(out)
    found = check_figures(folders, out, only, methods=methods, levels=levels, kinds=kinds)
    names = list(CATALOGUE) if only is None else list(dict.fromkeys(only))
    asked = Asked(tuple(map(float, levels or ())))
    selections = {name: CATALOGUE[name].select(found, asked) for name in names}
    if not any(selection.anything for selection in selections.values()):
        lacking = "; ".join(f"figure {name} lacks {', '.join(s.missing)}" for name, s in selections.items())
        raise InvalidValueError(f"Expected {', '.join(map(str, folders))} to hold data of a figure, but {lacking}")
    files: dict[Path, bytes] = {}
    figures = []
    entries: dict[str, dict[str, Any]] = {}
    for name, selection in selections.items():
        entry = CATALOGUE[name]
        made = _draw(selection, kinds, narrow=narrow)
        own = {out / f"figure-{name}.{kind}": content for kind, content in made.items()}
        files |= own
        figures.append(PaperFigure(name, entry.title, tuple(own), selection.missing, selection.notes))
        if own:
            entries[name] = {
                "title": entry.title,
                "shows": entry.shows,
                "paper": entry.paper,
                "files": [path.name for path in own],
                "sources": [folder.as_posix() for folder in selection.folders],
                "missing": list(selection.missing),
                "notes": list(selection.notes),
            }
    _write(out, [Path(folder).as_posix() for folder in folders], files, entries, set(names))
    return figures


def check_figures(
    folders: Sequence[str | Path],
    out: Path,
    only: Sequence[str] | None = None,
    *,
    methods: Sequence[str] | None = None,
    levels: Sequence[float] | None = None,
    kinds: Sequence[str] = KINDS,
) -> Found:
    """Return what folders hold, if it can be drawn as asked for; the arguments are those of :func:`draw_figures`.

    Raises:
        NoiseRobustError: as :func:`draw_figures` does, before anything is drawn.
    """
    from noiserobust.report.gather import kind_of
    from noiserobust.report.papers.catalogue import CATALOGUE
    from noiserobust.report.papers.runs import find_runs

    for name in only or ():
        check_choice("only", name, CATALOGUE)
    for kind in kinds:
        check_choice("kinds", kind, KINDS)
    if (only is not None and not only) or not kinds:
        raise InvalidValueError(f"Expected `{'only' if kinds else 'kinds'}` to name at least one, but got none")
    for level in levels or ():
        check_number("levels", level, above=0)
    if out.exists() and not out.is_dir():
        raise OutputError(f"Expected to be able to write {out}, but got: it is a file")
    if kind_of(out):
        raise InvalidValueError(f"Expected `out` to be a folder for figures alone, but {out} holds results of its own")
    return find_runs([Path(folder) for folder in folders], methods)


def _draw(selection: Selection, kinds: Sequence[str], *, narrow: bool) -> dict[str, bytes]:
    from noiserobust.report.figures.panels import draw_panels, panels_size

    if not selection.anything:
        return {}
    if selection.draw is not None:
        return dict(selection.draw(narrow, kinds))
    return dict(draw_panels(selection.panels, panels_size(selection.panels, narrow=narrow), kinds))


def _write(
    out: Path, folders: list[str], files: dict[Path, bytes], entries: dict[str, dict[str, Any]], asked: set[str]
) -> None:
    """Write figures and their list; remove what an older list has and the new one does not."""
    make_folder(out)
    before = read_list(out)
    kept = {}
    if before.get("folders") == folders:  # those that were not asked for are still of these folders
        kept = {name: entry for name, entry in before["figures"].items() if name not in asked}
    shown = {**kept, **entries}
    ordered = {name: shown[name] for name in sorted(shown, key=_order)}
    for path, content in files.items():
        write_atomic(path, content)
    listed = {"folders": folders, "figures": ordered}
    write_atomic(out / LIST_FILE, f"{json.dumps(listed, indent=1, ensure_ascii=False)}\n")
    stale = _files(before) - _files(listed)
    for name in sorted(stale):
        with write_errors(out / name):
            (out / name).unlink(missing_ok=True)


def _order(name: str) -> tuple[bool, int, str]:
    """Sort the names of figures: those of the first paper by number, then those of the second."""
    number = re.search(r"\d+", name)
    return not name[:1].isdigit(), int(number[0]) if number else 0, name


def read_list(out: Path) -> dict[str, Any]:
    """Return the list of an earlier call, empty if there is none or it is not ours."""
    try:
        listed = read_json(out / LIST_FILE)
    except NoiseRobustError:
        return {}
    figures = listed.get("figures") if isinstance(listed, dict) else None
    if not isinstance(figures, dict) or not all(isinstance(entry, dict) for entry in figures.values()):
        return {}
    return {"folders": listed.get("folders"), "figures": figures}


def _files(listed: dict[str, Any]) -> set[str]:
    """Return the files that a list has, none outside of its folder."""
    lists = [entry.get("files") for entry in listed.get("figures", {}).values()]
    named = [name for own in lists if isinstance(own, list) for name in own]
    return {n for n in named if isinstance(n, str) and re.fullmatch(r"figure-[\w-]+\.(svg|png|pdf)", n)}
