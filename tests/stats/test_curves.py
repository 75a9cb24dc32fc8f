"""Areas and tolerable levels against plain loops and closed forms, for curves of any shape."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import noiserobust as nr
from noiserobust.stats import curve_area, mean_interval, tolerable_level
from noiserobust.stats.tails import Estimated

LEVELS = [0.0, 0.01, 0.02, 0.05, 0.1]
quickly = settings(deadline=None, max_examples=40)
curves = st.lists(st.lists(st.floats(0, 100), min_size=5, max_size=5), min_size=1, max_size=5)
falling = st.lists(
    st.lists(st.floats(0, 10), min_size=4, max_size=4).map(lambda d: [0.0, *np.cumsum(d)]), min_size=1, max_size=5
)


def all_of(found: Estimated) -> list[float]:
    return [found.value, found.low, found.high]


@quickly
@given(curves)
def test_the_area_is_of_trapezoids_for_each_seed(rows: list[list[float]]) -> None:
    areas = []
    for row in rows:
        area = 0.0
        for i in range(4):
            area += (LEVELS[i + 1] - LEVELS[i]) * (row[i] + row[i + 1]) / 2
        areas.append(area / 0.1)
    found = curve_area(LEVELS, rows)
    assert found.value == pytest.approx(sum(areas) / len(areas), abs=1e-9)
    assert (found.low, found.high) == pytest.approx(mean_interval(areas), abs=1e-6, nan_ok=True)
    assert min(map(min, rows)) - 1e-9 <= found.value <= max(map(max, rows)) + 1e-9


@quickly
@given(curves, st.floats(0.1, 10), st.floats(-5, 5))
def test_the_area_is_in_units_of_the_values_whatever_those_of_levels(
    rows: list[list[float]], scale: float, shift: float
) -> None:
    found = curve_area([scale * v + shift for v in LEVELS], [[scale * v + shift for v in row] for row in rows])
    expected = [scale * v + shift for v in all_of(curve_area(LEVELS, rows))]
    assert all_of(found) == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


def first_crossing(levels: list[float], curve: list[float], allowed: float) -> float:
    if curve[0] >= allowed:
        return -math.inf
    for i in range(1, len(levels)):
        if curve[i] >= allowed:
            part = (allowed - curve[i - 1]) / (curve[i] - curve[i - 1])
            return levels[i - 1] + part * (levels[i] - levels[i - 1])
    return math.inf


@quickly
@given(curves, st.floats(0.5, 90))
def test_the_level_is_where_the_mean_curve_first_crosses_whatever_its_shape(
    rows: list[list[float]], allowed: float
) -> None:
    mean = [sum(c) / len(c) for c in zip(*rows, strict=True)]
    found = tolerable_level(LEVELS, rows, allowed)
    if min(abs(v - allowed) for v in mean) > 1e-6:  # a corner that touches is on either side by rounding
        assert found.value == pytest.approx(first_crossing(LEVELS, mean, allowed), abs=1e-9)
        if len(rows) > 1:
            assert found.low <= found.value <= found.high
    if len(rows) == 1:
        assert math.isnan(found.low)
        assert math.isnan(found.high)


@quickly
@given(curves, st.floats(0.5, 90))
def test_below_the_interval_the_drop_is_surely_less_and_above_it_surely_more(
    rows: list[list[float]], allowed: float
) -> None:
    found = tolerable_level(LEVELS, rows, allowed)
    for x in np.linspace(0, 0.1, 101):
        drops = [np.interp(x, LEVELS, row) for row in rows]
        low, high = mean_interval(drops)
        if len(rows) > 1 and x < found.low - 1e-4:
            assert high < allowed + 1e-6
        if len(rows) > 1 and x > found.high + 1e-4:
            assert low >= allowed - 1e-6


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.5, 20.0])
def test_straight_curves_have_the_closed_form_of_fieller(seeds: int, spread: float) -> None:
    # Drops b_m x: the mean and its ends are lines through 0, b +- t s / sqrt(n), and cross at allowed over their slope.
    slopes = 100 + spread * np.random.default_rng(seeds).normal(size=seeds)
    low, high = stats.t.interval(0.95, seeds - 1, loc=slopes.mean(), scale=stats.sem(slopes))
    found = tolerable_level([0.0, 0.03, 0.1], slopes[:, None] * [0.0, 0.03, 0.1], 5.0)
    expected = [5 / slope if slope >= 50 else math.inf for slope in (slopes.mean(), high, low)]
    assert all_of(found) == pytest.approx(expected, rel=1e-9)


@quickly
@given(falling, st.floats(0.5, 30), st.floats(0.5, 30))
def test_more_may_be_lost_later_and_a_higher_level_is_wider(rows: list[list[float]], a: float, b: float) -> None:
    less, more = (tolerable_level(LEVELS, rows, v) for v in sorted((a, b)))
    for one, other in zip(all_of(less), all_of(more), strict=True):
        assert other >= one - 1e-9 or math.isnan(one)
    narrow = tolerable_level(LEVELS, rows, a, 0.8)
    wide = tolerable_level(LEVELS, rows, a, 0.95)
    assert narrow.value == wide.value
    if len(rows) > 1:
        assert wide.low <= narrow.low <= narrow.high <= wide.high


@quickly
@given(falling, st.floats(0.5, 30), st.floats(0.1, 10), st.randoms(use_true_random=False))
def test_it_scales_with_levels_and_drops_and_knows_no_order_of_seeds(
    rows: list[list[float]], allowed: float, scale: float, random: Random
) -> None:
    found = tolerable_level(LEVELS, rows, allowed)
    stretched = tolerable_level([scale * v for v in LEVELS], rows, allowed)
    # Where a curve is flat at what is allowed, rounding may move the crossing along it.
    flat = any(abs(np.mean([row[i] for row in rows]) - allowed) < 1e-6 for i in range(5))
    if not flat:
        assert all_of(stretched) == pytest.approx([scale * v for v in all_of(found)], rel=1e-6, abs=1e-9, nan_ok=True)
        again = tolerable_level(LEVELS, random.sample(rows, len(rows)), allowed)
        assert all_of(again) == pytest.approx(all_of(found), rel=1e-3, abs=1e-4, nan_ok=True)


def test_curves_that_never_or_always_exceed_the_drop() -> None:
    never = tolerable_level([1.0, 2.0, 3.0], [[0.0, 1.0, 1.0], [0.0, 1.2, 1.1], [0.1, 1.0, 1.3]], 20.0)
    assert all_of(never) == [math.inf] * 3
    always = tolerable_level([1.0, 2.0], [[30.0, 40.0], [31.0, 40.0], [30.5, 41.0]], 20.0)
    assert all_of(always) == [-math.inf] * 3
    unsure = tolerable_level([1.0, 2.0], [[0.0, 1.0], [0.0, 30.0]], 20.0)  # t with one degree of freedom
    assert unsure.value == math.inf
    assert 1 < unsure.low < 2
    assert unsure.high == math.inf


def test_what_is_met_exactly_at_a_level_is_met_there() -> None:
    rows = [[0.0, 5.0, 10.0]] * 2
    assert all_of(tolerable_level([0.0, 1.0, 2.0], rows, 5.0)) == pytest.approx([1.0] * 3, abs=1e-12)
    assert all_of(tolerable_level([0.0, 1.0, 2.0], rows, 10.0)) == pytest.approx([2.0] * 3, abs=1e-12)
    assert all_of(tolerable_level([1.0, 2.0], [[5.0, 10.0]] * 2, 5.0)) == [-math.inf] * 3


def test_a_curve_that_recovers_is_tolerable_up_to_its_first_crossing_and_bounded_by_its_last() -> None:
    # 0, 10, 0, 10: 5 is crossed at 0.5, 1.5 and 2.5.
    found = tolerable_level([0.0, 1.0, 2.0, 3.0], [[0.0, 10.0, 0.0, 10.0]] * 3, 5.0)
    assert all_of(found) == pytest.approx([0.5, 0.5, 2.5], abs=1e-9)


def lower_end_first_crosses(drops: np.ndarray, allowed: float) -> bool:
    """Tell whether the lower end reaches what is allowed at one of the levels before the true crossing."""
    half = stats.t.ppf(0.975, len(drops) - 1) * drops.std(axis=0, ddof=1) / len(drops) ** 0.5
    return bool((drops.mean(axis=0) - half >= allowed)[:-1].any())


def test_the_level_is_covered_also_where_the_curve_runs_close_to_what_is_allowed() -> None:
    # A plateau at 4.9 with seeds that differ at each level by themselves; 5 is crossed at x = 8 + 0.1 / 10.1.
    true = np.array([0.0, *[4.9] * 8, 15.0])
    x, rng, repetitions = np.arange(10.0), np.random.default_rng(4), 400
    misses, planted = 0, 0
    for _ in range(repetitions):
        drops = true + np.where(true > 0, rng.normal(scale=0.5, size=(3, 10)), 0.0)
        found = tolerable_level(x, drops, 5.0)
        misses += not found.low <= 8 + 0.1 / 10.1 <= found.high
        planted += lower_end_first_crosses(drops, 5.0)
    # At most 5 percent; 400 repetitions know it to 1.1.
    assert misses / repetitions <= 0.075
    assert planted / repetitions > 0.075  # where the lower end first crosses would be too soon too often


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_nominal_95_percent_cover_95_percent(seeds: int) -> None:
    # Drops of 250 x^2 on average, seeds by 50 x^2: 5 is lost where the curve through the levels has it.
    x = np.array([0.0, 0.05, 0.1, 0.15, 0.2])
    true = float(np.interp(5.0, 250 * x**2, x))
    rng = np.random.default_rng(seeds)
    slopes = 250 + 50 * rng.normal(size=(600, seeds, 1))
    found = np.array([all_of(tolerable_level(x, s * x**2, 5.0))[1:] for s in slopes])
    # The standard error of a coverage from 600 repetitions is 0.9 percent.
    assert 0.92 <= np.mean((found[:, 0] <= true) & (true <= found[:, 1])) <= 0.98


@pytest.mark.parametrize("f", [curve_area, lambda x, y: tolerable_level(x, y, 1.0)], ids=["area", "level"])
@pytest.mark.parametrize(
    ("levels", "rows", "name"),
    [
        ([0.1], [[1.0]], "levels"),
        ([0.2, 0.1], [[1.0, 2.0]], "levels"),
        ([0.1, 0.1], [[1.0, 2.0]], "levels"),
        ([0.1, math.nan], [[1.0, 2.0]], "levels"),
        ([0.1, 0.2], [1.0, 2.0], "curves"),
        ([0.1, 0.2], [[1.0, 2.0, 3.0]], "curves"),
        ([0.1, 0.2], np.empty((0, 2)), "curves"),
    ],
    ids=str,
)
def test_levels_and_curves_that_are_none_are_refused(f: object, levels: list[float], rows: object, name: str) -> None:
    with pytest.raises(nr.NoiseRobustError, match=f"Expected `{name}` to be .*, but got"):
        f(levels, rows)


@pytest.mark.parametrize("allowed", [0, -1, math.nan, math.inf], ids=str)
def test_a_drop_that_is_none_is_refused(allowed: float) -> None:
    with pytest.raises(nr.NoiseRobustError, match="Expected `allowed` to be a finite number > 0, but got"):
        tolerable_level([0.0, 1.0], [[0.0, 1.0]], allowed)


@pytest.mark.parametrize("rows", [[[0.0, 1.0]], [[0.0, 1.0]] * 2], ids=str)
def test_a_level_outside_0_and_1_is_refused(rows: list[list[float]]) -> None:
    for f in (lambda: tolerable_level([0.0, 1.0], rows, 1.0, 95), lambda: curve_area([0.0, 1.0], rows, 95)):
        with pytest.raises(nr.NoiseRobustError, match="Expected `level` to be"):
            f()
