"""Find result folders and join their draws."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from noiserobust.errors import InvalidValueError, MissingFileError, NoiseRobustError
from noiserobust.results.files import read_json
from noiserobust.results.schema import DRAW_KEY, DRAWS_FILE, MANIFEST_FILE, SAMPLED_DTYPES, is_accuracy
from noiserobust.results.sensitivity import SENSITIVITY_FILE, Sensitivity, read_sensitivity
from noiserobust.results.store import JOURNAL_FILE, as_frame, read_rows, with_sampling
from noiserobust.results.summary import is_sampled
from noiserobust.results.trainings import TrainingRun, read_trainings

_KINDS = (
    "evaluation",
    "training",
    "sensitivity",
    "landscape",
    "filters",
    "sharpness",
    "gradients",
    "curvature",
    "sweep",
)
_DIAGNOSES = _KINDS[2:]  # and what was joined of evaluations that are found beside it

TEST, TRAIN = "test", "train"
"""Splits of the data."""


@dataclass(frozen=True)
class Source:
    """One result folder: its draws (possibly none yet) and its manifest, if it has one."""

    folder: Path
    draws: pd.DataFrame
    manifest: Mapping[str, Any] | None

    @property
    def configuration(self) -> Mapping[str, Any]:
        """The manifest's configuration, empty if there is none."""
        configuration = (self.manifest or {}).get("configuration")
        return configuration if isinstance(configuration, dict) else {}

    @property
    def split(self) -> str:
        """The split of the data that was measured on, ``test`` unless the manifest names another."""
        data = self.configuration.get("data")
        return str(data.get("split") or TEST) if isinstance(data, dict) else TEST

    @property
    def weights(self) -> list[Mapping[str, Any]]:
        """The manifest's entries on weight files, in the order in which they were asked for."""
        entries = self.configuration.get("weights")
        known = [w for w in entries if isinstance(w, dict)] if isinstance(entries, list) else []
        return [w for w in known if isinstance(w.get("method", ""), str) and isinstance(w.get("train_seed", 0), int)]


@dataclass(frozen=True)
class Gathered:
    """The draws of all folders, each counted once, and where they come from.

    Attributes:
        draws: DataFrame with the columns of ``draws.csv``, in the order of the folders.
        sources: the folders, in the order given, those found below a parent by name.
        trainings: what is known of how the weights were trained.
        strangers: trainings of the same names that were found too, but are of other weights.
        sensitivities: what is known of single layers, by folder.
    """

    draws: pd.DataFrame
    sources: tuple[Source, ...]
    trainings: tuple[TrainingRun, ...] = ()
    strangers: tuple[TrainingRun, ...] = ()
    sensitivities: Mapping[Path, Sensitivity] = field(default_factory=dict)

    @property
    def examples(self) -> pd.Series[int]:
        """For each draw of how many examples it tells: of all, although it may have been run on some of them."""
        return self.draws["of_examples" if is_sampled(self.draws) else "n_examples"]

    @property
    def split(self) -> str:
        """The split of the data that was measured on."""
        return next((source.split for source in self.sources if source.manifest is not None), TEST)

    @property
    def data(self) -> str:
        """The same in words, ``test`` or ``training``: what examples and sets are called."""
        return "training" if self.split == TRAIN else self.split

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods in the order in which they were asked for, else of their first appearance."""
        present = [str(m) for m in self.draws["method"].unique()]
        asked = [w.get("method") for source in self.sources for w in source.weights]
        return tuple(dict.fromkeys([m for m in asked if m in present] + present))


def is_result_folder(folder: Path) -> bool:
    """Tell whether a folder holds the results of an evaluation, finished or interrupted."""
    return kind_of(folder) == "evaluation"


def kind_of(folder: Path) -> str | None:
    """Return what a folder holds: an evaluation, a training, a diagnosis (of which kind), or nothing of ours.

    What the manifest says goes first: a landscape is made of draws too, but these are of weights that nobody deploys.
    """
    try:
        kind = _read_manifest(folder / MANIFEST_FILE).get("kind")
    except NoiseRobustError:  # there is none, or that of somebody else
        kind = None
    if kind in _KINDS:
        return str(kind)
    return "evaluation" if (folder / DRAWS_FILE).exists() or (folder / JOURNAL_FILE).exists() else None


def gather(folders: Sequence[Path]) -> Gathered:
    """Read the result folders and join them.

    Args:
        folders: result folders, or folders that are searched for such; what is found there of trainings and of the
            sensitivity of layers is added.

    Raises:
        MissingFileError: if a folder does not exist or neither is nor holds a result folder with a draw.
        InvalidValueError: if ``folders`` is empty, a file is damaged, two folders contradict each other, or were
            evaluated on different splits of the data.
    """
    if not folders:
        raise InvalidValueError("Expected `folders` to name at least one result folder, but got none")
    sources: dict[Path, Source] = {}
    trainings: dict[Path, list[TrainingRun]] = {}
    sensitivities: dict[Path, Sensitivity] = {}
    diagnosed: set[Path] = set()
    for folder in folders:
        found = list(find(folder))
        for path, kind in found:
            key = path.resolve()
            if kind == "evaluation" and key not in sources:
                sources[key] = read_source(path)
            elif kind == "training" and key not in trainings:
                trainings[key] = read_trainings(path)
            elif kind == "sensitivity" and (path / SENSITIVITY_FILE).exists() and key not in diagnosed:
                sensitivities[path] = read_sensitivity(path)
                diagnosed.add(key)
        evaluations = [sources[path.resolve()] for path, kind in found if kind == "evaluation"]
        if all(source.draws.empty for source in evaluations) and (evaluations or not found):
            raise MissingFileError(
                f"Expected {folder} to be a result folder or a folder that holds some, "
                f"but {'no draw is finished in it' if found else 'there is none'}"
            )
    if not sources:
        raise MissingFileError(
            f"Expected {folders[0]} to hold an evaluation beside trainings and diagnoses, but there is none"
        )
    check_one_split(list(sources.values()))
    runs = [run for found in trainings.values() for run in found]
    own, others = _trainings_of(list(sources.values()), runs)
    return Gathered(join(list(sources.values())), tuple(sources.values()), own, others, sensitivities)


def _trainings_of(
    sources: Sequence[Source], runs: Sequence[TrainingRun]
) -> tuple[tuple[TrainingRun, ...], tuple[TrainingRun, ...]]:
    """Return the trainings of the weights, and others of the same names; weights say which theirs was."""
    said: dict[tuple[str, int], set[str]] = {}
    for entry in (entry for source in sources for entry in source.weights):
        trained = entry.get("trained")
        if isinstance(trained, dict) and isinstance(trained.get("training_sha256"), str):
            key = str(entry.get("method")), int(entry.get("train_seed", 0))
            said.setdefault(key, set()).add(trained["training_sha256"])
    own: dict[tuple[str, int], TrainingRun] = {}
    others = []
    for run in runs:
        key = run.method, run.train_seed
        if key in own or (key in said and run.sha256 not in said[key]):
            others.append(run)
        else:
            own[key] = run
    return tuple(own.values()), tuple(others)


def find(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders of ours at any depth, by name, and what each holds (see :func:`kind_of`)."""
    for path, names, _ in os.walk(folder):
        kind = kind_of(Path(path))
        # In place: os.walk then visits by name and skips .git and the like, and what a diagnosis was made of.
        names[:] = [] if kind in _DIAGNOSES else sorted(n for n in names if not n.startswith("."))
        if kind:
            yield Path(path), kind


def read_source(folder: Path) -> Source:
    """Read an evaluation.

    Raises:
        InvalidValueError: if a file is damaged, or a value is none that an evaluation can have.
    """
    try:
        draws = as_frame(read_rows(folder))
    except OverflowError:
        raise InvalidValueError(f"Expected the draws of {folder} to have numbers of 64 bits, but got others") from None
    numbers = draws[["level", "value"]].to_numpy()
    if not np.isfinite(numbers).all() or (draws["level"] < 0).any():
        raise InvalidValueError(f"Expected the draws of {folder} to have finite values and levels >= 0, but got others")
    # What is estimated from some of the examples may lie beyond.
    whole = draws[draws["n_examples"] == draws["of_examples"]] if is_sampled(draws) else draws
    shares = whole["value"][[is_accuracy(str(metric)) for metric in whole["metric"]]]
    if ((shares < 0) | (shares > 100 + 1e-6)).any():
        raise InvalidValueError(f"Expected accuracies of {folder} to be percentages, but got {shares.abs().max():g}")
    path = folder / MANIFEST_FILE
    return Source(folder, draws, _read_manifest(path) if path.exists() else None)


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise InvalidValueError(f"Expected {path} to hold a JSON object, but got {type(manifest).__name__}")
    return manifest


def check_one_split(sources: Sequence[Source]) -> None:
    """Raise if some were evaluated on training data and others on test data, as far as manifests tell.

    Raises:
        InvalidValueError: if so.
    """
    known = [source for source in sources if source.manifest is not None]
    for source in known:
        first = known[0]
        if source.split != first.split:
            raise InvalidValueError(
                f"Expected evaluations of one split of the data, but got {first.split!r} in {first.folder} and "
                f"{source.split!r} in {source.folder}; report them one by one"
            )


def _check_one_training(sources: Sequence[Source]) -> None:
    """Raise if a method has two trainings of one train seed: pooled, they would pass for two train seeds."""
    known: dict[tuple[str, int], tuple[str, Path]] = {}
    for source in sources:
        pairs = source.draws[["method", "train_seed", "weights"]].drop_duplicates()
        for method, seed, weights in pairs.itertuples(index=False):
            identity = _hashes(source).get((method, seed, weights), weights)
            first, folder = known.setdefault((method, seed), (identity, source.folder))
            if first != identity:
                raise InvalidValueError(
                    f"Expected method {method!r} to be one training for each train seed, but train seed {seed} has "
                    f"other weights in {folder} than in {source.folder}; evaluate them under names of their own "
                    "(--method)"
                )


def _hashes(source: Source) -> dict[tuple[str, int, str], str]:
    """Return the hashes of the weights, as far as the manifest knows them, by method, train seed and label."""
    known = {}
    for entry in source.weights:
        if {"method", "train_seed", "sha256"} <= set(entry):
            label = str(entry.get("file", f"model{entry['train_seed']}"))
            known[(entry["method"], entry["train_seed"], label)] = str(entry["sha256"])
    return known


def join(sources: Sequence[Source]) -> pd.DataFrame:
    """Return the draws of evaluations, each counted once.

    Raises:
        InvalidValueError: if two of them contradict each other.
    """
    _check_one_training(sources)
    rows = pd.concat([s.draws.assign(source=i) for i, s in enumerate(sources)], ignore_index=True)
    if set(SAMPLED_DTYPES) <= set(rows):
        rows = with_sampling(rows)
        # Of a draw that was also run on more of the examples those count.
        rows = rows.sort_values("n_examples", ascending=False, kind="stable")
        fewer = rows["n_examples"] < rows.groupby(DRAW_KEY)["n_examples"].transform("max")
        rows = rows[~(fewer & (rows["n_examples"] < rows["of_examples"]))].sort_index()
    repeated = rows[rows.duplicated(DRAW_KEY, keep=False)]
    for key, group in repeated.groupby(DRAW_KEY, sort=True):
        first = group.iloc[0]
        for _, other in group.iloc[1:].iterrows():
            if (other["value"], other["n_examples"]) != (first["value"], first["n_examples"]):
                named = ", ".join(f"{c} {v!r}" for c, v in zip(DRAW_KEY, key, strict=True))
                raise InvalidValueError(
                    f"Expected {sources[first['source']].folder} and {sources[other['source']].folder} to agree where "
                    f"they hold the same draw, but got {first['value']} and {other['value']} "
                    f"({first['n_examples']} and {other['n_examples']} examples) for {named}"
                )
    joined: pd.DataFrame = rows.drop_duplicates(DRAW_KEY).drop(columns="source").reset_index(drop=True)
    return joined
