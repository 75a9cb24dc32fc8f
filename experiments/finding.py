"""A finding of a paper, as a difference that it says is positive, measured on what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from noiserobust.errors import InvalidValueError
from noiserobust.report.gather import gather
from noiserobust.results.trainings import read_trainings

HERE = Path(__file__).parent

Values = dict[int, NDArray[np.float64]]
"""Of each train seed, one a chip."""


class Difference(Protocol):
    """Something that is positive if a paper is right."""

    def values(self) -> Values:
        """Return it."""


@dataclass(frozen=True)
class Finding:
    """Something a paper says.

    Args:
        name: where, such as ``(a)``.
        claim: what.
        measured: how it is put to the test, in words.
        difference: what is measured, in points.
        margin: by which it may be negative if what is said is "as good as", >= 0.
    """

    name: str
    claim: str
    measured: str
    difference: Difference
    margin: float = 0.0


@dataclass(frozen=True)
class At:
    """A share of the accuracy of a method under a noise.

    Args:
        method: its name, or several, of which the one with the highest mean counts.
        level: of the noise.
        share: what it is multiplied with.
        noise: its name.
        folder: where it is recorded, if not with the others.
    """

    method: str | Sequence[str]
    level: float
    share: float = 1.0
    noise: str = "gaussian"
    folder: str | None = None

    @property
    def methods(self) -> list[str]:
        """Names of methods."""
        return [self.method] if isinstance(self.method, str) else list(self.method)


@dataclass(frozen=True)
class Sum:
    """A sum of shares of accuracies.

    Args:
        folder: of what is recorded.
        parts: of the sum.
    """

    folder: str
    parts: tuple[At, ...]

    def __sub__(self, other: Sum) -> Sum:
        if other.folder != self.folder:
            raise InvalidValueError(f"Expected both to be recorded in {self.folder}, but got {other.folder}")
        return Sum(self.folder, self.parts + tuple(replace(part, share=-part.share) for part in other.parts))

    def values(self) -> Values:
        """Return it for the train seeds that all parts have.

        Raises:
            InvalidValueError: if there is none.
        """
        found = [(part.share, accuracies(part.folder or self.folder, part)) for part in self.parts]
        seeds = sorted(set.intersection(*(set(values) for _, values in found)))
        if not seeds:
            raise InvalidValueError(f"Expected {self.parts} of {self.folder} to share a train seed, but they do not")
        # Without noise there is one value, whatever the chip: numpy repeats it.
        return {seed: sum((share * values[seed] for share, values in found), np.zeros(1)) for seed in seeds}


def ahead(
    folder: str,
    a: str | Sequence[str],
    b: str | Sequence[str],
    level: float,
    noise: str = "gaussian",
    other: str | None = None,
) -> Sum:
    """Return by how much a method, or the best of several, is ahead of another, which may be recorded elsewhere."""
    return Sum(folder, (At(a, level, 1, noise), At(b, level, -1, noise, other)))


@dataclass(frozen=True)
class Minus:
    """A difference with its sign changed.

    Args:
        difference: the one.
    """

    difference: Difference

    def values(self) -> Values:
        """Return it."""
        return {seed: -values for seed, values in self.difference.values().items()}


@dataclass(frozen=True)
class StillBest:
    """How far the method that is best at one level is ahead of the best of the others at another level.

    Args:
        folder: of what is recorded.
        methods: from which the best is chosen, without looking at the other level.
        chosen_at: level.
        compared_at: the other level.
    """

    folder: str
    methods: tuple[str, ...]
    chosen_at: float
    compared_at: float

    def values(self) -> Values:
        """Return it; of each train seed, with the best of the others in the other train seeds."""
        chosen = {method: accuracies(self.folder, At(method, self.chosen_at)) for method in self.methods}
        best = max(self.methods, key=lambda method: mean(chosen[method]))
        found = {method: accuracies(self.folder, At(method, self.compared_at)) for method in self.methods}
        seeds = sorted(set.intersection(*(set(values) for values in found.values())))
        if len(seeds) < 2:
            raise InvalidValueError(f"Expected two train seeds of all {self.methods} in {self.folder}, but got {seeds}")

        def elsewhere(method: str, seed: int) -> float:
            return mean({s: found[method][s] for s in seeds if s != seed})

        others = {s: max((m for m in self.methods if m != best), key=lambda m: elsewhere(m, s)) for s in seeds}
        return {seed: found[best][seed] - found[others[seed]][seed] for seed in seeds}


@dataclass(frozen=True)
class Fall:
    """How far held-out accuracy under noise falls from some epochs of a training to later ones.

    Args:
        folder: of what is recorded.
        method: of which.
        early: first and last of the epochs that are averaged.
        late: the same, of the later ones.
    """

    folder: str
    method: str
    early: tuple[int, int]
    late: tuple[int, int]

    def values(self) -> Values:
        """Return it."""
        falls = {}
        for manifest in sorted((HERE / self.folder / "train").glob("*/manifest.json")):
            for run in read_trainings(manifest.parent):
                if run.method == self.method:
                    curve = run.metrics.set_index("epoch")["held_out_perturbed_accuracy"]
                    early, late = (curve.loc[first:last].mean() for first, last in (self.early, self.late))
                    falls[run.train_seed] = np.array([early - late])
        if not falls:
            raise InvalidValueError(f"Expected {self.method} to be recorded in {self.folder}, but it is not")
        return falls


def accuracies(folder: str, part: At) -> Values:
    """Return what a method, or the best of several, has reached, whatever its share.

    Raises:
        InvalidValueError: if a method is not recorded.
    """
    found = [_accuracies(folder, method, part.noise, part.level) for method in part.methods]
    if missing := [method for method, values in zip(part.methods, found, strict=True) if not values]:
        raise InvalidValueError(
            f"Expected {', '.join(missing)} to be recorded in {folder} at {part.noise} {part.level:g}, but it is not"
        )
    shared = set.intersection(*(set(values) for values in found))
    return max(found, key=lambda values: mean({seed: values[seed] for seed in shared or values}))


def mean(values: Values) -> float:
    """Return the mean over train seeds and chips."""
    return float(np.mean([v.mean() for v in values.values()]))


@cache
def _accuracies(folder: str, method: str, noise: str, level: float) -> Values:
    draws = _draws(folder)
    rows = draws[(draws["method"] == method) & (draws["noise"] == noise) & (draws["level"] == level)]
    rows = rows[rows["metric"] == "accuracy"]
    return {int(s): g.sort_values("draw")["value"].to_numpy(float) for s, g in rows.groupby("train_seed")}


@cache
def _draws(folder: str) -> pd.DataFrame:
    return gather([HERE / folder]).draws
