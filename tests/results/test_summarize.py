"""The summary against the formulas of the contract, with plain loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import row
from scipy import stats

import noiserobust as nr
from noiserobust.results.schema import SUMMARY_COLUMNS
from noiserobust.results.store import as_frame
from noiserobust.results.summary import summarize


def plain_summary(frame: pd.DataFrame, ci_level: float) -> list[dict[str, object]]:
    """Return rows of ``summary.csv``, in float64 with nothing but loops."""
    groups: dict[tuple, dict[tuple, list[float]]] = {}
    for _, r in frame.iterrows():
        key = (r["method"], r["noise"], r["level_name"], r["level"], r["metric"])
        groups.setdefault(key, {}).setdefault((r["train_seed"], r["weights"]), []).append(r["value"])
    rows = []
    for key in sorted(groups):
        table = list(groups[key].values())
        means = [sum(t) / len(t) for t in table]
        mean = sum(means) / len(means)
        variances = [sum((v - m) ** 2 for v in t) / (len(t) - 1) for t, m in zip(table, means, strict=True) if t[1:]]
        noise = math.sqrt(sum(variances) / len(variances)) if len(variances) == len(table) else math.nan
        seed, low, high = math.nan, math.nan, math.nan
        if len(means) > 1:
            seed = math.sqrt(sum((m - mean) ** 2 for m in means) / (len(means) - 1))
            half = stats.t.ppf((1 + ci_level) / 2, len(means) - 1) * seed / math.sqrt(len(means))
            low, high = mean - half, mean + half
        counts = (len(table), min(map(len, table)))
        rows.append(dict(zip(SUMMARY_COLUMNS, (*key, mean, noise, seed, *counts, low, high, ci_level), strict=True)))
    return rows


def assert_same(found: pd.DataFrame, expected: list[dict[str, object]]) -> None:
    assert list(found.columns) == SUMMARY_COLUMNS
    pd.testing.assert_frame_equal(found, pd.DataFrame(expected), check_dtype=False, rtol=1e-9, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sgd", "sam"]),
            st.integers(0, 3),
            st.sampled_from([0.0, 0.05, 0.1]),
            st.integers(0, 5),
            st.floats(0, 100),
        ),
        min_size=1,
        max_size=40,
        unique_by=lambda t: t[:4],
    ),
    st.sampled_from([0.5, 0.9, 0.95]),
)
@pytest.mark.slow
def test_it_is_the_formulas_also_for_unbalanced_draws(cells: list[tuple], ci_level: float) -> None:
    frame = as_frame(row(seed, level, draw, value, method=method) for method, seed, level, draw, value in cells)
    assert_same(summarize(frame, ci_level), plain_summary(frame, ci_level))


def test_balanced_draws_give_the_mean_of_all_and_the_order_of_rows_does_not_matter() -> None:
    random = np.random.default_rng(0)
    frame = as_frame(
        row(seed, level, draw, float(random.uniform(50, 90)))
        for seed in range(3)
        for level in (0.1, 0.2)
        for draw in range(5)
    )
    summary = summarize(frame)
    for _, r in summary.iterrows():
        assert r["mean"] == pytest.approx(frame["value"][frame["level"] == r["level"]].mean())
        assert r["ci_low"] < r["mean"] < r["ci_high"]
    pd.testing.assert_frame_equal(summarize(frame.sample(frac=1, random_state=1)), summary)
    assert list(summary["n_seeds"]) == [3, 3]
    assert list(summary["n_draws"]) == [5, 5]


def test_planted_errors_are_told() -> None:
    random = np.random.default_rng(0)
    frame = as_frame(row(s, 0.1, d, float(random.uniform(50, 90))) for s in range(3) for d in range(4))
    found = summarize(frame)
    pooled = frame["value"].std(ddof=1)
    assert found["noise_std"][0] != pytest.approx(pooled, rel=1e-3)
    assert found["seed_std"][0] != pytest.approx(frame.groupby("train_seed")["value"].mean().std(ddof=0), rel=1e-3)
    with pytest.raises(AssertionError):
        assert_same(found.assign(noise_std=found["noise_std"] * 1.0001), plain_summary(frame, 0.95))


def test_what_cannot_be_estimated_is_nan() -> None:
    one_seed = summarize(as_frame([row(0, draw=0, value=80.0), row(0, draw=1, value=90.0)])).iloc[0]
    assert one_seed["noise_std"] == pytest.approx(50**0.5)
    assert one_seed[["seed_std", "ci_low", "ci_high"]].isna().all()
    one_draw = summarize(as_frame([row(0, value=80.0), row(1, value=90.0)])).iloc[0]
    assert math.isnan(one_draw["noise_std"])
    assert one_draw["seed_std"] == pytest.approx(50**0.5)


def test_two_files_with_one_train_seed_are_two_trainings() -> None:
    frame = as_frame([row(0, value=80.0), row(0, value=90.0, weights="other.pt")])
    assert summarize(frame)["n_seeds"][0] == 2


def test_nothing_gives_an_empty_summary() -> None:
    assert list(summarize(as_frame([])).columns) == SUMMARY_COLUMNS


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_of_the_interval_outside_0_and_1_is_refused(level: float) -> None:
    with pytest.raises(nr.NoiseRobustError, match="level"):
        summarize(as_frame([row()]), level)
