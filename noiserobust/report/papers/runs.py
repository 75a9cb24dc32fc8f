"""All that folders hold for the figures of papers: trainings, evaluations, landscapes, filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from noiserobust.errors import InvalidValueError, MissingFileError, unknown_name
from noiserobust.report.figures.looks import DASHED, MIXED, SOLID, Look, make_looks
from noiserobust.report.gather import Source, find, read_source
from noiserobust.report.papers.evaluations import Tests, make_tests
from noiserobust.report.papers.names import Names
from noiserobust.report.papers.recipes import Recipe, recipe_of
from noiserobust.report.papers.surroundings import join_filters, join_landscapes
from noiserobust.results.diagnostics import DIAGNOSTICS_DTYPES, DIAGNOSTICS_FILE, read_diagnostics
from noiserobust.results.files import read_json
from noiserobust.results.filters import FILTERS_FILE, read_filters
from noiserobust.results.landscapes import LANDSCAPE_FILE, read_landscape
from noiserobust.results.schema import MANIFEST_FILE
from noiserobust.results.trainings import METRICS_FILE, TrainingRun, read_trainings


@dataclass(frozen=True)
class Run:
    """The trainings of one configuration, one a train seed.

    Attributes:
        name: in the figures.
        recipe: how it was trained.
        trainings: one a train seed.
        diagnostics: of all of them, with the columns of ``diagnostics.csv``; empty if none were recorded.
    """

    name: str
    recipe: Recipe
    trainings: tuple[TrainingRun, ...]
    diagnostics: pd.DataFrame = field(repr=False, compare=False)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where it was read."""
        return tuple(dict.fromkeys(t.folder.parent for t in self.trainings))

    @property
    def configuration(self) -> Mapping[str, Any]:
        """All settings."""
        return self.trainings[0].configuration

    def quantity(self, name: str, split: str = "train", level: float | None = None) -> pd.DataFrame:
        """Return a recorded quantity after first steps: columns ``train_seed``, ``step``, ``epoch``, ``value``.

        What was recorded before the first step is of random weights: beside it, all that follows would look alike.
        """
        rows = self.diagnostics
        chosen = (rows["quantity"] == name) & (rows["split"] == split)
        chosen &= rows["step"] > 0
        chosen &= rows["level"].isna() if level is None else rows["level"].eq(level)
        kept: pd.DataFrame = rows.loc[chosen & rows["value"].notna(), ["train_seed", "step", "epoch", "value"]]
        # A training that was killed and resumed may have taken a sample twice.
        once: pd.DataFrame = kept.drop_duplicates(["train_seed", "step"], keep="last").reset_index(drop=True)
        return once

    def levels(self, quantity: str) -> set[float]:
        """Return the levels at which a quantity was recorded."""
        rows = self.diagnostics
        return {float(v) for v in rows.loc[rows["quantity"] == quantity, "level"].dropna()}


@dataclass(frozen=True)
class Found:
    """What there is to draw.

    Attributes:
        runs: trainings, in the order of figures.
        recipes: how all that is drawn was trained, by name, in that order.
        looks: of the same.
        tests: evaluations on test data.
        landscapes: columns of ``landscape.csv``, ``method`` being a name, and ``folder``.
        filters: columns of ``filters.csv``, ``method`` being a name, and ``folder``.
        notes: what was left out of the evaluations.
        landscape_notes: what was left out of the landscapes, and whether they can be compared.
    """

    runs: tuple[Run, ...]
    recipes: Mapping[str, Recipe]
    looks: Mapping[str, Look]
    tests: Tests
    landscapes: pd.DataFrame
    filters: pd.DataFrame
    notes: tuple[str, ...] = ()
    landscape_notes: tuple[str, ...] = ()

    def of(self, *families: str) -> tuple[Run, ...]:
        """Return the trainings of families."""
        return tuple(run for run in self.runs if run.recipe.family in families)


def find_runs(folders: Sequence[Path], methods: Sequence[str] | None = None) -> Found:
    """Read all that folders hold.

    Args:
        folders: folders of ours, or folders that are searched for such.
        methods: names of trainings to be drawn; by default all.

    Raises:
        MissingFileError: if a folder does not exist or holds nothing to draw.
        InvalidValueError: if ``folders`` is empty, a file is damaged, evaluations contradict each other, or a method
            is not there.
    """
    if not folders:
        raise InvalidValueError("Expected `folders` to name at least one folder, but got none")
    read = _Read()
    for folder in folders:
        if not folder.is_dir():
            raise MissingFileError(f"Expected a folder {folder}, but there is none")
        if not read.add(folder):
            raise MissingFileError(
                f"Expected {folder} to hold trainings, evaluations, landscapes or filters, but it has none"
            )
    runs = _name_runs(read.trainings)
    names = Names({run.trainings[0].sha256: run.name for run in runs}, {run.name: run.recipe for run in runs})
    for label, named in _labels(runs).items():
        names.add_label(label, named)
    for source in (*read.sources, *read.landscapes, *read.filters):
        names.hear(source)
    tests, notes = make_tests(read.sources, names)
    landscapes, left_out = join_landscapes(read.landscapes, names)
    filters = join_filters(read.filters, names)
    present = [*(r.name for r in runs), *tests.methods, *landscapes["method"].unique(), *filters["method"].unique()]
    recipes = {name: names.recipe(name) for name in dict.fromkeys(map(str, present))}
    recipes = dict(sorted(recipes.items(), key=lambda item: (item[1].order, item[0])))
    ordered = sorted(runs, key=lambda run: list(recipes).index(run.name))
    told = tuple(notes), tuple(left_out)
    found = Found(tuple(ordered), recipes, _looks(recipes), tests, landscapes, filters, *told)
    return found if methods is None else _only(found, methods)


class _Read:
    """What was read so far; folders that are met twice count once."""

    def __init__(self) -> None:
        self.trainings: list[TrainingRun] = []
        self.sources: list[Source] = []
        self.landscapes: list[Source] = []
        self.filters: list[Source] = []
        self._seen: set[Path] = set()

    def add(self, folder: Path) -> bool:
        """Read a folder and those below; tell whether there was anything."""
        found = [(path, kind) for path, kind in find(folder) if kind != "sensitivity"]
        for path, kind in found:
            key = path.resolve()
            if key in self._seen:
                continue
            self._seen.add(key)
            if kind == "training":
                self.trainings += read_trainings(path)
            elif kind == "evaluation":
                self.sources.append(read_source(path))
            elif kind == "landscape" and (path / LANDSCAPE_FILE).exists():  # else it is not finished
                self.landscapes.append(Source(path, read_landscape(path), read_json(path / MANIFEST_FILE)))
            elif kind == "filters" and (path / FILTERS_FILE).exists():
                self.filters.append(Source(path, read_filters(path), read_json(path / MANIFEST_FILE)))
        for path in sorted({metrics.parents[1] for metrics in folder.rglob(f"seed*/{METRICS_FILE}")}):
            # A damaged manifest does not say what its folder holds: left out, it would not be missed in a figure.
            if path.resolve() not in self._seen and (path / MANIFEST_FILE).exists():
                read_trainings(path)
        return bool(found)


def _name_runs(trainings: Sequence[TrainingRun]) -> list[Run]:
    """Join the train seeds of a configuration; names say what labels leave open."""
    groups: dict[str, dict[int, TrainingRun]] = {}
    for training in trainings:
        known = groups.setdefault(training.sha256, {}).get(training.train_seed)
        # Of the same training in two places the one counts of which more is known.
        if known is None or (not _recorded(known) and _recorded(training)):
            groups[training.sha256][training.train_seed] = training
    made = []
    for seeds in groups.values():
        own = [seeds[seed] for seed in sorted(seeds)]
        made.append(Run(own[0].method, recipe_of(own[0].configuration), tuple(own), _diagnostics(own)))
    for tell in (_with_strength, _with_folder):
        labels = [run.name for run in made]
        made = [replace(run, name=tell(run)) if labels.count(run.name) > 1 else run for run in made]
    seen: dict[str, int] = {}
    for place, run in enumerate(made):  # such as two labels of one name in folders of one name
        seen[run.name] = seen.get(run.name, 0) + 1
        if seen[run.name] > 1:
            made[place] = replace(run, name=f"{run.name} #{seen[run.name]}")
    return made


def _with_strength(run: Run) -> str:
    recipe = run.recipe
    told = [run.name, recipe.strength_text, "" if not recipe.ramped else recipe.schedule]
    told += [f"α={1 - recipe.perturbed_weight:g}"] if recipe.mixed else []
    return " ".join(part for part in told if part)


def _with_folder(run: Run) -> str:
    return f"{run.name} ({run.trainings[0].folder.parent.name})"


def _labels(runs: Sequence[Run]) -> dict[str, list[str]]:
    labels: dict[str, list[str]] = {}
    for run in runs:
        labels.setdefault(run.trainings[0].method, []).append(run.name)
    return labels


def _recorded(training: TrainingRun) -> bool:
    return (training.folder / DIAGNOSTICS_FILE).is_file()


def _diagnostics(trainings: Sequence[TrainingRun]) -> pd.DataFrame:
    frames = [
        read_diagnostics(t.folder / DIAGNOSTICS_FILE).assign(train_seed=t.train_seed) for t in trainings if _recorded(t)
    ]
    if frames:
        joined: pd.DataFrame = pd.concat(frames, ignore_index=True)
        return joined
    empty: pd.DataFrame = pd.DataFrame(columns=list(DIAGNOSTICS_DTYPES)).astype(DIAGNOSTICS_DTYPES)
    return empty


def _looks(recipes: Mapping[str, Recipe]) -> dict[str, Look]:
    """Return the look of all: a ramped training has the colour of the constant one of the same strength."""
    shades: dict[str, list[str]] = {}
    lines: dict[str, tuple[str, Any]] = {}
    constant = {_alike(recipe): name for name, recipe in reversed(list(recipes.items())) if not recipe.ramped}
    taken: set[str] = set()
    for name, recipe in recipes.items():
        twin = constant.get(_alike(recipe)) if recipe.ramped and recipe.family else None
        shade = name if twin is None or twin in taken else twin
        if recipe.ramped and twin is not None:
            taken.add(twin)
        if shade == name:
            shades.setdefault(recipe.family, []).append(name)
        lines[name] = shade, DASHED if recipe.ramped else MIXED if recipe.mixed else SOLID
    return make_looks(shades, lines)


def _alike(recipe: Recipe) -> tuple[Any, ...]:
    return recipe.family, recipe.noise, recipe.strength, recipe.perturbed_weight


def _only(found: Found, methods: Sequence[str]) -> Found:
    for method in methods:
        if method not in found.recipes:
            raise unknown_name("methods", method, found.recipes)
    kept = set(methods)
    return replace(
        found,
        runs=tuple(run for run in found.runs if run.name in kept),
        recipes={name: recipe for name, recipe in found.recipes.items() if name in kept},
        tests=found.tests.only(kept),
        landscapes=found.landscapes[found.landscapes["method"].isin(kept)],
        filters=found.filters[found.filters["method"].isin(kept)],
    )
