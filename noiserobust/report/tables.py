"""The numbers of the report: for each noise one table of methods x levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from noiserobust.report.gather import Gathered, Source
from noiserobust.results.cells import Chips, curves
from noiserobust.results.schema import CLEAN as CLEAN
from noiserobust.results.schema import TRAINING_COLUMNS, is_accuracy
from noiserobust.results.summary import is_sampled, summarize
from noiserobust.stats.components import variance_components
from noiserobust.times import format_time

TRAINING = ["method", *TRAINING_COLUMNS]
"""The columns that tell one training, that is one weight file, from another."""


@dataclass(frozen=True)
class Cell:
    """One method at one level. NaN is what cannot be estimated.

    Attributes:
        mean: mean over seeds and draws.
        noise_std: sqrt(mean over seeds of the variance over draws).
        seed_std: standard deviation over seeds of the mean over draws.
        low: lower end of the 95% Student-t interval of the mean over seeds.
        high: its upper end.
        n_seeds: number of weight files.
        n_draws: smallest number of draws of a weight file.
        n_examples: smallest number of examples that a draw tells of.
        complete: whether no draw is missing that other weight files or the manifest have.
        highest: whether the mean is the highest of its column and its interval meets no other.
        training_std: standard deviation over seeds without what is left of the noise in a mean over chips.
        negative: whether the estimate of its square was negative, so that 0 stands for it.
    """

    mean: float
    noise_std: float
    seed_std: float
    low: float
    high: float
    n_seeds: int
    n_draws: int
    n_examples: int
    complete: bool = True
    highest: bool = False
    training_std: float = math.nan
    negative: bool = False


@dataclass(frozen=True)
class Gap:
    """Draws of one weight file that others have and it lacks."""

    method: str
    train_seed: int
    weights: str
    level: float
    have: int
    expected: int


@dataclass(frozen=True)
class NoiseTable:
    """All numbers for one noise and one metric.

    Attributes:
        noise: its name.
        level_name: what its levels are, ``sigma``, ``b``, ``t``, ...
        metric: what is measured.
        methods: the rows.
        levels: the levels > 0, ascending.
        cells: the numbers by (method, level); level 0 is clean, without noise.
        borrowed: methods whose clean number comes from the level 0 of another noise, same weight files.
        gaps: what is missing.
        draws: what the numbers are made of, with the clean draws that are borrowed.
    """

    noise: str
    level_name: str
    metric: str
    methods: tuple[str, ...]
    levels: tuple[float, ...]
    cells: Mapping[tuple[str, float], Cell]
    borrowed: tuple[str, ...]
    gaps: tuple[Gap, ...]
    draws: pd.DataFrame = field(repr=False, compare=False)

    @property
    def has_clean(self) -> bool:
        """Whether any method has a number without noise."""
        return any(level == CLEAN for _, level in self.cells)

    @property
    def columns(self) -> tuple[float, ...]:
        """The levels, with 0 in front if there is a number without noise."""
        return ((CLEAN,) if self.has_clean else ()) + self.levels

    def format_level(self, level: float) -> str:
        """Return a level as people write it; see :func:`format_level`."""
        return format_level(level, self.level_name)


def format_level(level: float, level_name: str) -> str:
    """Return a level as people write it: a time, or a plain number; ``clean`` for 0."""
    if level == CLEAN:
        return "clean"
    return format_time(level) if level_name == "t" else f"{level:.6g}"


def format_number(value: float, metric: str) -> str:
    """Return a number as it is printed: accuracies with two decimals, others with four digits."""
    return f"{value:.2f}" if is_accuracy(metric) else f"{value:.4g}"


def make_tables(gathered: Gathered) -> list[NoiseTable]:
    """Return the tables, in the order in which the noises appear in the results."""
    draws = gathered.draws
    keys = draws[["noise", "level_name", "metric"]].drop_duplicates().itertuples(index=False, name=None)
    return [_table(gathered, noise, level_name, metric) for noise, level_name, metric in keys]


def _table(gathered: Gathered, noise: str, level_name: str, metric: str) -> NoiseTable:
    draws = gathered.draws
    is_noise = (draws["noise"] == noise) & (draws["level_name"] == level_name)
    own = draws[is_noise & (draws["metric"] == metric)]
    present = set(own["method"].unique())
    methods = tuple(m for m in gathered.methods if m in present)
    gaps = _gaps(own, _planned(gathered.sources, noise, level_name))
    alike = draws["noise"].isin(_on_the_same_data(gathered.sources, noise))
    lent = _lent_clean(own, draws[~is_noise & alike & (draws["metric"] == metric)])
    rows = pd.concat([own, lent.assign(noise=noise, level_name=level_name)], ignore_index=True)

    told = rows["of_examples"] if is_sampled(rows) else rows["n_examples"]
    n_examples = told.groupby([rows["method"], rows["level"]]).min()
    chips = {(c.method, level): list(at.values()) for c in curves(rows) for level, at in c.chips.items()}
    incomplete = {(gap.method, gap.level) for gap in gaps}
    cells = {}
    for row in summarize(rows).to_dict("records"):
        key = (str(row["method"]), float(row["level"]))
        cells[key] = Cell(
            mean=row["mean"],
            noise_std=row["noise_std"],
            seed_std=row["seed_std"],
            low=row["ci_low"],
            high=row["ci_high"],
            n_seeds=int(row["n_seeds"]),
            n_draws=int(row["n_draws"]),
            n_examples=int(n_examples.loc[key]),
            complete=key not in incomplete,
            **_components(chips[key]),
        )
    levels = tuple(sorted({level for _, level in cells if level > CLEAN}))
    if is_accuracy(metric):
        for level in (CLEAN, *levels):
            _mark_highest(cells, methods, level)
    lenders = set(lent["method"].unique())
    borrowed = tuple(m for m in methods if m in lenders)
    return NoiseTable(noise, level_name, metric, methods, levels, cells, borrowed, tuple(gaps), rows)


def _components(chips: Sequence[Chips]) -> dict[str, Any]:
    """Return what is known of the variance over trainings; nothing with one chip, or chips on some examples."""
    if min(c.values.size for c in chips) < 2 or any(c.sampled for c in chips):
        return {}
    found = variance_components([c.values for c in chips])
    return {"training_std": math.sqrt(found.seed), "negative": found.negative}


def _on_the_same_data(sources: Sequence[Source], noise: str) -> set[str]:
    """Return the noises that were evaluated on the data of this one, as far as manifests tell."""
    data: dict[str, set[str]] = {}
    for source in sources:
        found = source.configuration.get("data")
        digest = str(found.get("sha256", "")) if isinstance(found, dict) else ""
        for name in source.draws["noise"].unique():
            data.setdefault(str(name), set()).add(digest)
    return {name for name, digests in data.items() if digests == data.get(noise)}


def _lent_clean(own: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Return level 0 of other noises for the methods that have none here; the same weight files only."""
    with_clean = set(own.loc[own["level"] == CLEAN, "method"])
    needy = own.loc[~own["method"].isin(with_clean), TRAINING].drop_duplicates()
    lent: pd.DataFrame = others[others["level"] == CLEAN].drop_duplicates(TRAINING).merge(needy, on=TRAINING)
    return lent


def _mark_highest(cells: dict[tuple[str, float], Cell], methods: Sequence[str], level: float) -> None:
    column = {m: cells[m, level] for m in methods if (m, level) in cells}
    # A method that is absent or incomplete might be the higher one.
    if len(column) < max(2, len(methods)) or not all(c.complete for c in column.values()):
        return
    best = max(column, key=lambda m: column[m].mean)
    # Comparisons with NaN are false: without intervals nothing is marked.
    if all(column[best].low > c.high for m, c in column.items() if m != best):
        cells[best, level] = replace(column[best], highest=True)


def _planned(sources: Sequence[Source], noise: str, level_name: str) -> tuple[set[float], int | None]:
    """Return the levels and the number of draws that the manifests announce for a noise; None with `until`."""
    levels: set[float] = set()
    draws, free = 0, False
    for source in sources:
        kinds = set(source.draws[["noise", "level_name"]].itertuples(index=False, name=None))
        if kinds != {(noise, level_name)}:
            continue
        plan = source.configuration
        listed = plan.get("levels")
        levels |= {float(v) for v in listed if _is_number(v)} if isinstance(listed, list) else set()
        # With `until` the number of draws is free to differ.
        free = free or plan.get("until") is not None
        if _is_number(plan.get("draws")):
            draws = max(draws, int(plan["draws"]))
    return levels, None if free else draws


def _gaps(own: pd.DataFrame, planned: tuple[set[float], int | None]) -> list[Gap]:
    levels = sorted(planned[0] | set(own["level"]))
    counts = own.groupby([*TRAINING, "level"]).size()
    expected = 1 if planned[1] is None else max(planned[1], int(counts.max()))
    gaps = []
    for method, train_seed, weights in own[TRAINING].drop_duplicates().itertuples(index=False, name=None):
        for level in levels:
            have = int(counts.get((method, train_seed, weights, level), 0))
            needed = 1 if level == CLEAN else expected
            if have < needed:
                gaps.append(Gap(method, int(train_seed), weights, level, have, needed))
    return gaps


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
