"""The interval for the mean over train seeds holds its level."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import noiserobust as nr
from noiserobust.stats.components import seed_means
from noiserobust.stats.intervals import mean_interval

REPETITIONS = 2000
Interval = Callable[[np.ndarray], tuple[float, float]]

means = st.lists(st.floats(0, 100), min_size=2, max_size=12)


@given(means, st.floats(0.01, 0.999))
def test_it_is_scipys_interval_of_student(values: list[float], level: float) -> None:
    sem = np.std(values, ddof=1) / math.sqrt(len(values))
    low, high = mean_interval(values, level)
    if sem == 0:
        assert low == high == np.mean(values)
    else:
        expected = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=sem)
        assert (low, high) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_known_interval() -> None:
    # t(0.975, 2) = 4.302653 (Student's table); mean 2, standard error 1 / sqrt(3).
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-6)


@given(means, st.floats(-50, 50), st.floats(0.1, 10))
def test_it_moves_and_scales_with_the_values(values: list[float], shift: float, scale: float) -> None:
    low, high = mean_interval(values)
    moved = mean_interval([scale * v + shift for v in values])
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), rel=1e-6, abs=1e-6)


@given(means)
def test_a_higher_level_is_wider_and_the_order_does_not_matter(values: list[float]) -> None:
    narrow, wide = mean_interval(values, 0.8), mean_interval(values, 0.95)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]
    assert mean_interval(values[::-1]) == pytest.approx(mean_interval(values), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("values", [[], [3.0]], ids=str)
def test_one_seed_has_no_interval(values: list[float]) -> None:
    assert all(map(math.isnan, mean_interval(values)))


@pytest.mark.parametrize("level", [0, 1, -0.5, 1.5, float("nan"), "0.95", True], ids=repr)
def test_a_level_outside_0_and_1_is_refused_by_name(level: object) -> None:
    with pytest.raises(nr.NoiseRobustError, match="Expected `level` to be"):
        mean_interval([1.0, 2.0], level)


def coverage(seeds: int, interval: Callable[[np.ndarray], tuple[float, float]]) -> float:
    """Return how often an interval from seeds x 10 nested draws covers the true mean of 70."""
    random = np.random.default_rng(seeds)
    seed_effect = random.normal(scale=2, size=(REPETITIONS, seeds, 1))
    values = 70 + seed_effect + random.normal(scale=2, size=(REPETITIONS, seeds, 10))
    intervals = np.array([interval(a) for a in values])
    return float(np.mean((intervals[:, 0] <= 70) & (intervals[:, 1] >= 70)))


def ours(a: np.ndarray) -> tuple[float, float]:
    return mean_interval(seed_means(list(a)))


def with_z(a: np.ndarray) -> tuple[float, float]:
    m = a.mean(1)
    half = 1.959964 * m.std(ddof=1) / len(m) ** 0.5
    return m.mean() - half, m.mean() + half


def one_degree_too_many(a: np.ndarray) -> tuple[float, float]:
    m = a.mean(1)
    half = stats.t.ppf(0.975, len(m)) * m.std(ddof=1) / len(m) ** 0.5
    return m.mean() - half, m.mean() + half


def pooled(a: np.ndarray) -> tuple[float, float]:
    return mean_interval(a.ravel())


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_nominal_95_percent_cover_95_percent(seeds: int) -> None:
    # The standard error of a coverage from 2000 repetitions is 0.5 percent.
    assert 0.935 <= coverage(seeds, ours) <= 0.965


@pytest.mark.parametrize(
    ("planted", "seeds"),
    [(with_z, 3), (with_z, 5), (one_degree_too_many, 3), (pooled, 3), (pooled, 10)],
    ids=lambda p: getattr(p, "__name__", p),
)
def test_the_simulation_tells_intervals_that_claim_too_much(planted: Interval, seeds: int) -> None:
    assert coverage(seeds, planted) < 0.935
