"""From the draws to one row a (method, noise, level)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from noiserobust.results.schema import GROUP_COLUMNS, SUMMARY_COLUMNS
from noiserobust.stats.components import noise_std, seed_means, seed_std
from noiserobust.stats.intervals import mean_interval


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
        # Two weight files may carry the same train seed; they are still two trainings.
        values = [g.to_numpy() for _, g in group.groupby(["train_seed", "weights"], sort=True)["value"]]
        low, high = mean_interval(seed_means(values), ci_level)
        rows.append(
            {
                **dict(zip(GROUP_COLUMNS, key, strict=True)),
                "mean": seed_means(values).mean(),
                "noise_std": noise_std(values),
                "seed_std": seed_std(values),
                "n_seeds": len(values),
                "n_draws": min(v.size for v in values),
                "ci_low": low,
                "ci_high": high,
                "ci_level": ci_level,
            }
        )
    summary: pd.DataFrame = pd.DataFrame(rows, columns=SUMMARY_COLUMNS)
    return summary
