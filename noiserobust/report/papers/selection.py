"""What a figure draws of what was found, and what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from noiserobust.report.figures.panels import Panel, Series
from noiserobust.report.papers.recipes import ASCENDING, NOISY
from noiserobust.report.papers.runs import Found, Run

TRAIN = "noiserobust train"
RECORD = f"({TRAIN} --record.every auto)"
EVALUATE = "noiserobust evaluate"

GROUPS: Mapping[str, tuple[str, ...]] = {"SAM": ASCENDING, "RWP": NOISY, "WAS": ("was",)}
"""Panels by how the weights are perturbed."""

Draw = Callable[[bool, Sequence[str]], Mapping[str, bytes]]


@dataclass(frozen=True)
class Asked:
    """What is asked of all figures.

    Attributes:
        levels: levels to be shown where one has to be chosen; empty for those there are.
    """

    levels: tuple[float, ...] = ()

    def among(self, levels: Iterable[float]) -> list[float]:
        """Return those of the levels there are that were asked for."""
        return [v for v in levels if not self.levels or any(abs(v - a) <= 1e-9 * max(v, a) for a in self.levels)]


@dataclass(frozen=True)
class Selection:
    """What a figure draws.

    Attributes:
        panels: of lines and marks.
        missing: what has to be recorded or run for what is not drawn.
        notes: what has to be known to read it.
        folders: where it was read.
        draw: makes the files, given whether there is little room, and kinds; None for the panels.
    """

    panels: tuple[Panel, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    draw: Draw | None = None

    @property
    def anything(self) -> bool:
        """Whether there is something to draw."""
        return bool(self.panels) or self.draw is not None


def select(*parts: Panel | str | None, notes: Iterable[str] = ()) -> Selection:
    """Return a selection of panels; a text is what one of them lacks, None is none that anybody expects."""
    panels = tuple(part for part in parts if isinstance(part, Panel))
    missing = tuple(dict.fromkeys(part for part in parts if isinstance(part, str)))
    folders = dict.fromkeys(folder for panel in panels for one in panel.series for folder in one.folders)
    return Selection(panels, missing, tuple(dict.fromkeys(notes)) if panels else (), tuple(folders))


def lettered(letter: str, text: str) -> str:
    """Return a text of a panel; the only one of a figure has no letter."""
    return f"({letter}) {text}" if letter else text


def training_with(group: str) -> str:
    """Return what has to be run to have a training of a group of methods."""
    families = GROUPS.get(group, ("sgd",))
    return f"a training with {group} ({TRAIN} --method.name {' or '.join(families)})"


def series_of(found: Found, run: Run, frame: pd.DataFrame, label: str | None = None, **look: Any) -> Series:
    """Return what a training has in a panel, with the look it has in all of them."""
    return Series(label or run.name, replace(found.looks[run.name], **look), frame, run.folders)


def unrecorded(runs: Sequence[Run], series: Sequence[Series], what: str, letter: str) -> str | None:
    """Return what a panel lacks of trainings that others in it have, None for nothing."""
    drawn = {one.label for one in series}
    without = [run.name for run in runs if run.name not in drawn]
    return lettered(letter, f"{what} of {', '.join(without)} {RECORD}") if without and series else None
