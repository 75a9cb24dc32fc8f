"""Draws by method, noise and level, each train seed's apart: what statistics are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from noiserobust.results.schema import SAMPLED_DTYPES, TRAINING_COLUMNS
from noiserobust.results.summary import estimate_sampled, is_sampled

CURVE_COLUMNS = ["method", "noise", "level_name", "metric"]
"""The columns that tell one curve from another."""

Training = tuple[int, str]


@dataclass(frozen=True)
class Chips:
    """What one weight file reaches at one level.

    Attributes:
        numbers: which draws, ascending, shape ``(n_draws,)``.
        values: what they reach, shape ``(n_draws,)``.
        mean: their mean; of draws on some of the examples the estimate for all.
        sampled: whether some draws were on some of the examples only: then ``values`` tell little one by one.
    """

    numbers: NDArray[np.int64]
    values: NDArray[np.float64]
    mean: float
    sampled: bool


@dataclass(frozen=True)
class Curve:
    """One method under one noise: the chips of each weight file by level."""

    method: str
    noise: str
    level_name: str
    metric: str
    chips: Mapping[float, Mapping[Training, Chips]]

    @property
    def key(self) -> dict[str, str]:
        """The columns that name it."""
        return {name: getattr(self, name) for name in CURVE_COLUMNS}


def curves(draws: pd.DataFrame) -> Iterator[Curve]:
    """Yield the curves of draws, in the order in which they first appear.

    Args:
        draws: DataFrame with the columns of ``draws.csv``.
    """
    sampled = is_sampled(draws)
    columns = ["draw", "value"] + (["metric", "n_examples", *SAMPLED_DTYPES] if sampled else [])
    for key, group in draws.groupby(CURVE_COLUMNS, sort=False):
        chips: dict[float, dict[Training, Chips]] = {}
        for cell, own in group.groupby(["level", *TRAINING_COLUMNS], sort=True)[columns]:
            level, seed, weights = cast("tuple[float, int, str]", cell)
            chips.setdefault(float(level), {})[int(seed), weights] = _chips(own, sampled=sampled)
        method, noise, level_name, metric = map(str, cast("tuple[str, ...]", key))
        yield Curve(method, noise, level_name, metric, chips)


def _chips(draws: pd.DataFrame, *, sampled: bool) -> Chips:
    numbers, values = draws["draw"].to_numpy(), draws["value"].to_numpy()
    order = np.argsort(numbers, kind="stable")
    partly = sampled and is_sampled(draws)
    mean = estimate_sampled(draws).mean if partly else float(values.mean())
    return Chips(numbers[order], values[order], mean, partly)
