"""From the draws to one row a (method, noise, level)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from noiserobust.errors import InvalidValueError
from noiserobust.results.schema import (
    GROUP_COLUMNS,
    PRECISION_COLUMNS,
    SAMPLED_DTYPES,
    SUMMARY_COLUMNS,
    TRAINING_COLUMNS,
    is_accuracy,
)
from noiserobust.stats.components import noise_std, seed_std
from noiserobust.stats.intervals import mean_interval
from noiserobust.stats.twostage import Estimate, chips_for, estimate


def summarize(draws: pd.DataFrame, ci_level: float = 0.95) -> pd.DataFrame:
    """Summarise draws.

    Args:
        draws: DataFrame with the columns of ``draws.csv`` (:data:`noiserobust.results.schema.DRAW_COLUMNS`).
        ci_level: level of the interval for the mean over train seeds, in (0, 1).

    Returns:
        DataFrame with the columns of ``summary.csv``: ``mean`` (every seed counts the same, however many draws it has),
        ``noise_std`` (over noise draws), ``seed_std`` (over train seeds), ``n_seeds``, ``n_draws`` (the smallest
        number of draws of a seed), the Student-t interval ``ci_low .. ci_high`` over seeds. What cannot
        be estimated is NaN: ``noise_std`` with one draw, ``seed_std`` and the interval with one seed.
    """
    rows: list[dict[str, Any]] = []
    for key, group in draws.groupby(GROUP_COLUMNS, sort=True):
        seeds = [g for _, g in group.groupby(TRAINING_COLUMNS, sort=True)]
        if is_sampled(group):
            found = [estimate_sampled(g, ci_level) for g in seeds]
            means = np.array([e.mean for e in found])
            variance = float(np.mean([e.chip_variance for e in found]))
            spread = math.sqrt(variance) if variance > 0 else math.nan  # not told from what the examples add
        else:
            values = [g["value"].to_numpy() for g in seeds]
            means = np.array([v.mean() for v in values])
            spread = noise_std(values)
        low, high = mean_interval(means, ci_level)
        rows.append(
            {
                **dict(zip(GROUP_COLUMNS, key, strict=True)),
                "mean": means.mean(),
                "noise_std": spread,
                "seed_std": seed_std([[mean] for mean in means]),
                "n_seeds": len(seeds),
                "n_draws": min(map(len, seeds)),
                "ci_low": low,
                "ci_high": high,
                "ci_level": ci_level,
            }
        )
    summary: pd.DataFrame = pd.DataFrame(rows, columns=SUMMARY_COLUMNS)
    return summary


def is_sampled(draws: pd.DataFrame) -> bool:
    """Tell whether some draws were run on a part of the examples only: they are good for means, and not for tails."""
    return set(SAMPLED_DTYPES) <= set(draws) and bool((draws["n_examples"] < draws["of_examples"]).any())


def precision(draws: pd.DataFrame, ci_level: float = 0.95) -> pd.DataFrame:
    """Tell how well the mean over chips of each of the weights is known, and what it took.

    Args:
        draws: DataFrame with the columns of ``draws.csv`` and :data:`noiserobust.results.schema.SAMPLED_DTYPES`.
        ci_level: level of the interval for the mean over chips, in (0, 1).

    Returns:
        DataFrame with the columns of ``precision.csv``. One row a (weights, level) with noise.

    Raises:
        InvalidValueError: if draws have other columns.
    """
    if not set(SAMPLED_DTYPES) <= set(draws):
        raise InvalidValueError("Expected draws that were sampled with `until`, but got draws on all examples")
    rows: list[dict[str, Any]] = []
    key = [c for c in PRECISION_COLUMNS[:7] if c in draws]
    for cell, group in draws[draws["level"] > 0].groupby(key, sort=True):
        found = estimate_sampled(group, ci_level)
        population = int(group["of_examples"].iloc[0])
        chips = chips_for(found.half_width, found.chip_variance, ci_level)
        rows.append(
            {
                **dict(zip(key, cell, strict=True)),
                "mean": found.mean,
                "half_width": found.half_width,
                "ci_level": ci_level,
                "noise_std": math.sqrt(found.chip_variance),
                "noise_std_low": math.sqrt(found.chip_variance_interval[0]),
                "noise_std_high": math.sqrt(found.chip_variance_interval[1]),
                "n_draws": found.chips,
                "passes": int(group["n_examples"].sum()),
                "plain_passes": chips * population,
            }
        )
    table: pd.DataFrame = pd.DataFrame(rows, columns=PRECISION_COLUMNS)
    return table


def estimate_sampled(draws: pd.DataFrame, ci_level: float = 0.95) -> Estimate:
    """Return mean and spread over chips of one weight file from draws that were on some of the examples."""
    population = int(draws["of_examples"].iloc[0])
    largest = 100.0 if is_accuracy(str(draws["metric"].iloc[0])) else 0.0
    return estimate(draws["value"], draws["sampling_std"] ** 2, draws["n_examples"], population, ci_level, largest)
