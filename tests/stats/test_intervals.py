"""Intervals of a standard deviation, and how far a finite test set lets an accuracy be off."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import noiserobust as nr
from noiserobust.stats import std_interval
from noiserobust.stats import test_set_std as set_std

freedoms = st.integers(1, 200)
levels = st.floats(0.05, 0.999)


@given(st.floats(0.001, 100), freedoms, levels)
def test_chi_square_is_as_far_out_at_its_ends_as_the_level_says(std: float, freedom: int, level: float) -> None:
    low, high = std_interval(std, freedom, level)
    # f s^2 / sigma^2 is chi-square: at the ends of the interval for sigma it is at its quantiles.
    assert stats.chi2.sf(freedom * (std / low) ** 2, freedom) == pytest.approx((1 - level) / 2, rel=1e-6)
    assert stats.chi2.cdf(freedom * (std / high) ** 2, freedom) == pytest.approx((1 - level) / 2, rel=1e-6)


def test_a_known_interval() -> None:
    # Two degrees of freedom: chi-square is exponential with mean 2, and has its quantiles at -2 ln(1 - p).
    low, high = std_interval(3.0, 2, 0.9)
    assert low == pytest.approx(3 * math.sqrt(2 / (-2 * math.log(0.05))), rel=1e-12)
    assert high == pytest.approx(3 * math.sqrt(2 / (-2 * math.log(0.95))), rel=1e-12)


@given(st.floats(0, 100), freedoms, st.floats(0.01, 100))
def test_it_scales_and_holds_the_estimate_and_widens_with_the_level(std: float, freedom: int, scale: float) -> None:
    low, high = std_interval(std, freedom)
    assert low <= std <= high
    assert std_interval(scale * std, freedom) == pytest.approx((scale * low, scale * high), rel=1e-9)
    narrow = std_interval(std, freedom, 0.8)
    assert low <= narrow[0] <= narrow[1] <= high


@pytest.mark.parametrize(("std", "freedom"), [(1.0, 0), (math.nan, 4), (math.inf, 4)], ids=str)
def test_what_cannot_be_estimated_is_nan(std: float, freedom: int) -> None:
    assert all(map(math.isnan, std_interval(std, freedom)))


def test_no_spread_has_no_interval_to_speak_of() -> None:
    assert std_interval(0.0, 4) == (0.0, 0.0)


@pytest.mark.parametrize("level", [0, 1, 95, float("nan"), "0.95"], ids=repr)
def test_a_level_outside_0_and_1_is_refused_by_name(level: float) -> None:
    with pytest.raises(nr.NoiseRobustError, match=r"Expected `level` to be a finite number.*, but got"):
        std_interval(1.0, 4, level)


def symmetric(std: float, freedom: int) -> tuple[float, float]:
    half = 1.959964 * std / math.sqrt(2 * freedom)
    return std - half, std + half


def coverage(seeds: int, freedom: int, interval: Callable[[float, int], tuple[float, float]] = std_interval) -> float:
    """Return how often an interval from that many normal values covers their standard deviation of 2."""
    values = np.random.default_rng(seeds).normal(scale=2.0, size=(2000, seeds))
    found = np.array([interval(s, freedom) for s in values.std(axis=1, ddof=1)])
    return float(np.mean((found[:, 0] <= 2.0) & (found[:, 1] >= 2.0)))


@pytest.mark.parametrize("seeds", [3, 5])
def test_nominal_95_percent_cover_95_percent(seeds: int) -> None:
    # The standard error of a coverage from 2000 repetitions is 0.5 percent.
    assert 0.935 <= coverage(seeds, seeds - 1) <= 0.965


def test_the_simulation_tells_one_degree_of_freedom_too_many_and_a_symmetric_interval() -> None:
    assert coverage(3, 3) < 0.935
    assert coverage(3, 2, symmetric) < 0.935


@given(st.floats(0, 100).map(lambda v: round(v, 6)), st.integers(1, 10**6))
def test_an_accuracy_of_a_finite_test_set_is_binomial(accuracy: float, n: int) -> None:
    assert set_std(accuracy, n) == pytest.approx(100 / n * stats.binom(n, accuracy / 100).std(), rel=1e-9, abs=1e-12)
    assert set_std(100 - accuracy, n) == pytest.approx(set_std(accuracy, n), rel=1e-6, abs=1e-6)


def test_a_mean_over_chips_on_the_same_examples_is_off_by_no_more() -> None:
    # Chips of which each is right on an example with a probability of the example's own: test sets of 200 examples.
    rng = np.random.default_rng(0)
    right = rng.beta(2, 1, size=(20_000, 200))  # the mean over infinitely many chips of each example
    means = 100 * right.mean(axis=1)
    assert means.std() < set_std(means.mean(), 200)


def test_a_test_set_without_examples_and_an_accuracy_beyond_the_scale() -> None:
    assert math.isnan(set_std(90.0, 0))
    assert math.isnan(set_std(math.nan, 100))
    assert set_std(100.0, 10) == set_std(0.0, 10) == set_std(100.0000001, 10) == 0.0
