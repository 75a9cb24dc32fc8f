"""Accuracies on test data, by name, train seed and level; and on corrupted test data, by severity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from noiserobust.report.gather import TEST, Source, join
from noiserobust.report.papers.names import Names
from noiserobust.results.schema import CLEAN, DRAW_COLUMNS, is_accuracy, is_milder_upwards
from noiserobust.times import format_time

_CORRUPTED = re.compile(r"(?P<data>cifar100?)-c:(?:.*/)?(?P<corruption>[^/]+)/(?P<severity>[1-5])")

_NOISY_COLUMNS = ["method", "train_seed", "level", "value"]
_CORRUPTED_COLUMNS = ["data", "corruption", "severity", "method", "train_seed", "value"]


@dataclass(frozen=True)
class Tests:
    """Test accuracies in percent, each the mean over the noise draws of one train seed.

    Attributes:
        clean: columns ``method, train_seed, value``.
        noisy: columns ``method, train_seed, level, value``, under one noise.
        noise: its name, empty without any.
        level_name: what its levels are.
        corrupted: columns ``data, corruption, severity, method, train_seed, value``, without noise.
        data: the name of the test data, such as ``cifar10``.
        folders: where each method was read.
    """

    clean: pd.DataFrame
    noisy: pd.DataFrame
    noise: str = ""
    level_name: str = ""
    corrupted: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_CORRUPTED_COLUMNS))
    data: str = ""
    folders: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """What was evaluated."""
        frames = (self.clean, self.noisy, self.corrupted)
        return tuple(dict.fromkeys(str(m) for frame in frames for m in frame["method"]))

    @property
    def levels(self) -> list[float]:
        """The noisy levels from the mildest to the hardest."""
        return sorted({float(v) for v in self.noisy["level"]}, reverse=is_milder_upwards(self.level_name))

    def format_level(self, level: float) -> str:
        """Return a level with its name, such as ``sigma = 0.07``."""
        return f"{self.level_name} = {format_time(level) if self.level_name == 't' else f'{level:.6g}'}"

    def only(self, methods: set[str]) -> Tests:
        """Return those of some methods."""
        kept = {n: getattr(self, n) for n in ("clean", "noisy", "corrupted")}
        return replace(self, **{name: frame[frame["method"].isin(methods)] for name, frame in kept.items()})


def make_tests(sources: Sequence[Source], names: Names) -> tuple[Tests, list[str]]:
    """Return the accuracies of evaluations, and notes on those that are left out.

    Raises:
        InvalidValueError: if evaluations contradict each other.
    """
    trained_on = sorted(source.folder.name for source in sources if source.split != TEST)
    notes = [f"evaluations on training data are left out: {', '.join(trained_on)}"] if trained_on else []
    named = [names.rename(source) for source in sources if source.split == TEST]
    named = [replace(source, draws=_accuracies(source.draws)) for source in named]
    named = [source for source in named if len(source.draws)]
    corrupted = [source for source in named if _corruption(source)]
    by_data: dict[str, list[Source]] = {}
    for source in named:
        if not _corruption(source):
            by_data.setdefault(_data(source, "sha256"), []).append(source)
    folders: dict[str, tuple[Path, ...]] = {}
    for source in named:
        for method in source.draws["method"].unique():
            folders[str(method)] = (*folders.get(str(method), ()), source.folder)
    damaged = _corrupted(corrupted)
    if not by_data:
        nothing = pd.DataFrame(columns=_NOISY_COLUMNS).astype({"level": float, "value": float})
        return Tests(nothing.drop(columns="level"), nothing, corrupted=damaged, folders=folders), notes
    # Accuracies on other data cannot be compared: those count on which most was evaluated.
    most = max(by_data, key=lambda data: len({m for s in by_data[data] for m in s.draws["method"]}))
    left = sorted({_data(s, "name") or s.folder.name for data in by_data if data != most for s in by_data[data]})
    notes += [f"evaluations on other test data are left out: {', '.join(left)}"] if left else []
    draws = join(by_data[most])
    clean = _means(draws[draws["level"] == CLEAN], ["method", "train_seed"])
    rows = draws[draws["level"] > CLEAN]
    kinds = list(dict.fromkeys(rows[["noise", "level_name"]].itertuples(index=False, name=None)))
    noise, level_name = min(kinds, key=lambda kind: kind != ("gaussian", "sigma"), default=("", ""))
    if len(kinds) > 1:
        others = ", ".join(str(kind[0]) for kind in kinds if kind != (noise, level_name))
        notes.append(f"of the test noises {noise} is drawn, not {others}")
    own = rows[(rows["noise"] == noise) & (rows["level_name"] == level_name)]
    noisy = _means(own, ["method", "train_seed", "level"])
    return Tests(clean, noisy, str(noise), str(level_name), damaged, _data(by_data[most][0], "name"), folders), notes


def _accuracies(draws: pd.DataFrame) -> pd.DataFrame:
    metrics = [str(m) for m in draws["metric"].unique() if is_accuracy(str(m))]
    chosen = "accuracy" if "accuracy" in metrics else metrics[0] if metrics else ""
    kept: pd.DataFrame = draws[draws["metric"] == chosen]
    return kept


def _means(draws: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    # Of each training first: two weights files of one train seed count as one.
    means: pd.DataFrame = draws.groupby(keys, sort=False)["value"].mean().reset_index()
    return means


def _corrupted(sources: Sequence[Source]) -> pd.DataFrame:
    frames = []
    for source in sources:
        match = _corruption(source)
        if match:
            rows = source.draws.loc[source.draws["level"] == CLEAN, DRAW_COLUMNS]
            means = _means(rows, ["method", "train_seed"])
            told = match.groupdict()
            frames.append(means.assign(**{**told, "severity": int(told["severity"])}))
    empty = pd.DataFrame(columns=_CORRUPTED_COLUMNS)
    joined = pd.concat(frames, ignore_index=True) if frames else empty
    kept: pd.DataFrame = joined.drop_duplicates(_CORRUPTED_COLUMNS[:-1])[_CORRUPTED_COLUMNS]
    return kept


def _corruption(source: Source) -> re.Match[str] | None:
    return _CORRUPTED.fullmatch(_data(source, "name"))


def _data(source: Source, key: str) -> str:
    data = source.configuration.get("data")
    return str(data.get(key) or "") if isinstance(data, dict) else ""
