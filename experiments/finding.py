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
        difference: what is measured.
    """

    name: str
    claim: str
    measured: str
    difference: Difference


@dataclass(frozen=True)
class At:
    """A share of the accuracy of a method under a noise.

    Args:
        method: its name, or several, of which the one with the highest mean counts.
        level: of the noise.
        share: what it is multiplied with.
        noise: its name.
    """

    method: str | Sequence[str]
    level: float
    share: float = 1.0
    noise: str = "gaussian"

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
        return Sum(self.folder, self.parts + tuple(replace(part, share=-part.share) for part in other.parts))

    def values(self) -> Values:
        """Return it for the train seeds that all parts have."""
        found = [(part.share, accuracies(self.folder, part)) for part in self.parts]
        seeds = sorted(set.intersection(*(set(values) for _, values in found)))
        chips = max(values[seed].size for _, values in found for seed in seeds)
        # Without noise there is one value, whatever the chip.
        return {s: sum(share * np.broadcast_to(v[s], chips) for share, v in found) + np.zeros(chips) for s in seeds}


def ahead(folder: str, a: str | Sequence[str], b: str | Sequence[str], level: float, noise: str = "gaussian") -> Sum:
    """Return by how much a method, or the best of several, is ahead of another."""
    return Sum(folder, (At(a, level, 1, noise), At(b, level, -1, noise)))


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
        """Return it."""
        best = max(self.methods, key=lambda method: mean(accuracies(self.folder, At(method, self.chosen_at))))
        others = [method for method in self.methods if method != best]
        return ahead(self.folder, best, others, self.compared_at).values()


@dataclass(frozen=True)
class Fall:
    """How far held-out accuracy under noise falls from the middle third of a training's epochs to the last.

    Args:
        folder: of what is recorded.
        method: of which.
        other: whose fall is subtracted, if any.
    """

    folder: str
    method: str
    other: str | None = None

    def values(self) -> Values:
        """Return it; of whole thirds, because a single epoch that is best is so by chance."""
        falls = self._falls(self.method)
        if self.other is None:
            return falls
        other = self._falls(self.other)
        return {seed: falls[seed] - other[seed] for seed in sorted(falls.keys() & other.keys())}

    def _falls(self, method: str) -> Values:
        falls = {}
        for manifest in sorted((HERE / self.folder / "train").glob("*/manifest.json")):
            for run in read_trainings(manifest.parent):
                if run.method == method:
                    curve = run.metrics["held_out_perturbed_accuracy"].to_numpy(float)
                    _, middle, last = np.array_split(curve, 3)
                    falls[run.train_seed] = np.array([middle.mean() - last.mean()])
        if not falls:
            raise InvalidValueError(f"Expected trainings of {method} to be recorded in {self.folder}, but got none")
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
    return max(found, key=mean)


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
