"""Yield, quantiles, worst chips and probability of improvement against plain references, and whether intervals hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

import noiserobust as nr
from noiserobust.stats import (
    chip_yield,
    cvar,
    draws_needed,
    improvement,
    mean_interval,
    performance_profile,
    quantile,
    share_interval,
)
from noiserobust.stats.population import CHIPS
from noiserobust.stats.tails import ChipSample, Estimated

Array = NDArray[np.float64]

shares = st.floats(0.02, 0.98)
levels = st.floats(0.5, 0.999)
values = st.floats(0, 100).map(lambda v: round(v, 2))
one_seed = st.lists(values, min_size=1, max_size=80)
tables = st.lists(st.lists(values, min_size=2, max_size=30), min_size=2, max_size=4)
any_tables = st.one_of(one_seed.map(lambda row: [row]), tables)
quickly = settings(deadline=None, max_examples=20)


def ends(found: Estimated) -> tuple[float, float]:
    return found.low, found.high


def chips(sizes: tuple[int, ...], seed_std: float = 1.0) -> list[Array]:
    rng = np.random.default_rng([7, *sizes])
    return [80 + rng.normal(scale=seed_std) + 3 * rng.normal(size=k) for k in sizes]


# How many draws it takes


@given(st.floats(0.001, 0.5), st.floats(0.5, 0.999))
def test_draws_needed_are_the_first_at_which_chance_is_no_explanation(share: float, level: float) -> None:
    n = draws_needed(share, level)
    assert (1 - share) ** n <= (1 - level) * (1 + 1e-9)
    assert n == 1 or (1 - share) ** (n - 1) > (1 - level) * (1 - 1e-9)


def test_draws_needed_at_the_ends_of_what_floats_can_tell() -> None:
    # With ln(1 - 1e-20) = -1e-20 it takes -ln(0.05) / 1e-20 draws.
    assert draws_needed(1e-20) == pytest.approx(-math.log(0.05) * 1e20, rel=1e-9)
    assert draws_needed(0.5, 1e-20) == 1


@pytest.mark.parametrize("share", [0, 1, -0.1, 5, float("nan"), "0.05", True], ids=repr)
def test_a_share_outside_0_and_1_is_refused_by_name(share: float) -> None:
    for refuses in (lambda: draws_needed(share), lambda: quantile([[1.0]], share), lambda: cvar([[1.0]], share)):
        with pytest.raises(nr.NoiseRobustError, match=r"Expected `share` to be a finite number.*, but got"):
            refuses()


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [[1.0, 2.0], [3.0, 5.0]], [[1.0], [2.0]]], ids=str)
@pytest.mark.parametrize("level", [0, 1, 95], ids=str)
def test_a_level_outside_0_and_1_is_refused_by_name_for_any_number_of_seeds(
    rows: list[list[float]], level: float
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: chip_yield(rows, 1.5, level),
        lambda: quantile(rows, 0.5, level),
        lambda: cvar(rows, 0.5, level),
        lambda: improvement(rows, level),
        lambda: performance_profile(rows, [1.0], level),
    ]
    for refuses in calls:
        with pytest.raises(nr.NoiseRobustError, match=r"Expected `level` to be a finite number.*, but got"):
            refuses()


@pytest.mark.parametrize("row", [[1.0, math.nan], [math.inf], ["a"], [[1.0]]], ids=str)
def test_what_is_no_row_of_finite_numbers_is_refused(row: list[object]) -> None:
    for refuses in (ChipSample, improvement):
        with pytest.raises(nr.NoiseRobustError, match=r"^Expected `values`"):
            refuses([[1.0, 2.0], row])


@pytest.mark.parametrize("rows", [[], [[]], [[1.0, 2.0], []]], ids=str)
def test_train_seeds_without_values_are_refused(rows: list[list[float]]) -> None:
    for refuses in (ChipSample, improvement):
        with pytest.raises(nr.NoiseRobustError, match="Expected `values` to have at least one value"):
            refuses(rows)


@pytest.mark.parametrize("spec", [float("nan"), float("inf"), "80"], ids=repr)
def test_a_specification_that_is_no_number_is_refused_by_name(spec: float) -> None:
    with pytest.raises(nr.NoiseRobustError, match="Expected `spec` to be a finite number, but got"):
        chip_yield([[1.0, 2.0]], spec)


# The interval of a share


def mid_p(x: float, n: int, p: float) -> float:
    """Return P(X > x) + P(X = x) / 2 from the sum of the binomial terms; of halves the mean of their neighbours."""
    if x != int(x):
        return (mid_p(x - 0.5, n, p) + mid_p(x + 0.5, n, p)) / 2
    terms = [math.comb(n, y) * p**y * (1 - p) ** (n - y) for y in range(n + 1)]
    return sum(terms[int(x) + 1 :]) + terms[int(x)] / 2


@quickly
@given(st.integers(1, 60), st.data(), levels)
def test_at_the_ends_of_a_share_what_was_found_has_the_probability_of_the_level(
    n: int, data: st.DataObject, level: float
) -> None:
    x = data.draw(st.integers(0, 2 * n)) / 2
    low, high = share_interval(x, n, level)
    assert 0 <= low <= high <= 1
    if low > 0:
        assert mid_p(x, n, low) == pytest.approx((1 - level) / 2, abs=1e-8)
    if high < 1:
        assert mid_p(x, n, high) == pytest.approx((1 + level) / 2, abs=1e-8)
    assert low == 0 or x > 0
    assert high == 1 or x < n


@quickly
@given(st.integers(1, 60), st.data(), levels)
def test_it_is_within_the_interval_of_clopper_and_pearson(n: int, data: st.DataObject, level: float) -> None:
    x = data.draw(st.integers(0, n))
    low, high = share_interval(x, n, level)
    exact = stats.binomtest(x, n).proportion_ci(level, method="exact")
    assert exact.low - 1e-9 <= low <= x / n + 1e-9 or low == pytest.approx(x / n, abs=0.5 / n)
    assert exact.high + 1e-9 >= high
    mirrored = share_interval(n - x, n, level)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-8)


@given(st.integers(1, 2000), levels)
@pytest.mark.slow
def test_without_a_failure_the_end_is_the_closed_form_and_draws_needed_show_the_yield(n: int, level: float) -> None:
    # Half of p^n is (1 - level) / 2.
    assert share_interval(n, n, level) == (pytest.approx((1 - level) ** (1 / n), abs=1e-9), 1.0)


@pytest.mark.parametrize(("share", "level"), [(0.05, 0.95), (0.01, 0.95), (0.1, 0.9)], ids=str)
def test_as_many_good_draws_as_are_needed_show_that_no_more_are_bad(share: float, level: float) -> None:
    n = draws_needed(share, level)
    assert share_interval(n, n, level)[0] >= 1 - share - 1e-12
    assert share_interval(n - 1, n - 1, level)[0] < 1 - share


@pytest.mark.parametrize(
    ("successes", "number", "name"), [(-1, 5, "successes"), (6, 5, "successes"), (0, 0, "number"), (1, 2.5, "number")]
)
def test_impossible_shares_are_refused_by_name(successes: float, number: int, name: str) -> None:
    with pytest.raises(nr.NoiseRobustError, match=f"Expected `{name}` to be .*, but got"):
        share_interval(successes, number)


def wald(x: int, n: int) -> tuple[float, float]:
    half = 1.959964 * math.sqrt(x * (n - x) / n**3)
    return x / n - half, x / n + half


@pytest.mark.parametrize("n", [30, 59])
@pytest.mark.slow
def test_a_share_is_covered_as_often_as_the_level_says_on_average(n: int) -> None:
    # Exactly, with the binomial probabilities of all outcomes, for yields from 50% to 100%.
    p = np.linspace(0.5, 0.9999, 2000)
    pmf = stats.binom.pmf(np.arange(n + 1)[:, None], n, p)

    def covered(interval: Callable[[int, int], tuple[float, float]]) -> Array:
        found = np.array([interval(x, n) for x in range(n + 1)])
        inside: Array = (pmf * ((found[:, :1] <= p) & (p <= found[:, 1:]))).sum(axis=0)
        return inside

    ours = covered(share_interval)
    assert 0.945 <= ours.mean() <= 0.965
    assert ours.min() > 0.915  # mid-P falls below its level here and there, but not by much
    assert covered(wald).mean() < 0.915


# What is estimated


@quickly
@given(any_tables, st.one_of(values, st.floats(0, 100)))
def test_the_yield_is_the_mean_over_seeds_of_what_passes(rows: list[list[float]], spec: float) -> None:
    found = chip_yield(rows, spec)
    assert found.value == pytest.approx(sum(sum(v >= spec for v in r) / len(r) for r in rows) / len(rows), abs=1e-12)
    assert -1e-12 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1 + 1e-12
    if len(rows) == 1:
        assert ends(found) == share_interval(sum(v >= spec for v in rows[0]), len(rows[0]))


def plain_quantile(rows: list[list[float]], share: float) -> float:
    """Return the quantile between the centres of what each value stands for, 1/K of a train seed."""
    weighted = sorted((v, 1 / (len(r) * len(rows))) for r in rows for v in r)
    before, last = 0.0, None
    for value, weight in weighted:
        centre = before + weight / 2
        if centre >= share:
            if last is None:
                return value
            return last[1] + (share - last[0]) / (centre - last[0]) * (value - last[1])
        before, last = before + weight, (centre, value)
    return weighted[-1][0]


def plain_cvar(rows: list[list[float]], share: float) -> float:
    """Return the largest of ``q - E[(q - X)+] / share`` over q, which is how the conditional value at risk is defined.

    It is piecewise linear and concave with its corners at the values.
    """

    def at(q: float) -> float:
        return q - sum(sum(max(q - v, 0) for v in r) / len(r) for r in rows) / len(rows) / share

    return max(at(v) for r in rows for v in r)


@quickly
@given(any_tables, st.floats(0.1, 0.9), st.sampled_from([0.5, 0.8]))
def test_quantile_and_worst_chips_are_the_plain_ones(rows: list[list[float]], share: float, level: float) -> None:
    if sum(map(len, rows)) < draws_needed(share, level):
        assert all(math.isnan(v) for f in (quantile, cvar) for v in vars(f(rows, share, level)).values())
        return
    assert quantile(rows, share, level).value == pytest.approx(plain_quantile(rows, share), abs=1e-6)
    assert cvar(rows, share, level).value == pytest.approx(plain_cvar(rows, share), abs=1e-6)
    if len({len(r) for r in rows}) == 1:
        hazen = np.quantile(np.concatenate([np.array(r) for r in rows]), share, method="hazen")
        assert quantile(rows, share, level).value == pytest.approx(hazen, abs=1e-6)


def test_the_worst_two_and_a_half_of_fifty() -> None:
    # Chips 1..50: the worst 5% are 1, 2 and half of 3, on average (1 + 2 + 1.5) / 2.5 = 1.8.
    row = np.arange(1.0, 51)
    assert cvar([row, row], 0.05).value == pytest.approx(1.8)
    assert cvar([row[::-1], np.repeat(row, 3)], 0.05).value == pytest.approx(1.8)  # each seed counts the same
    # Centres of 1, 2 and 3 are at 1%, 3% and 5%.
    assert quantile([row, row[::-1]], 0.05).value == pytest.approx(3.0, abs=1)
    assert quantile([np.tile(row, 2)], 0.05).value == pytest.approx(3.0, abs=0.5)


@quickly
@given(st.floats(0.05, 0.5), st.integers(0, 2**32 - 1), levels)
def test_the_interval_of_one_seeds_quantile_is_between_the_order_statistics_of_scipy(
    share: float, seed: int, level: float
) -> None:
    row = np.sort(np.random.default_rng(seed).normal(size=80))
    assume(len(row) >= draws_needed(share, level))
    found = quantile([row], share, level)
    exact = stats.quantile_test(row, p=share).confidence_interval(confidence_level=level)
    for end, bound, inward in ((found.low, exact.low, 1), (found.high, exact.high, -1)):
        if math.isnan(bound):
            assert math.isnan(end) or (inward == -1 and end <= row[-1]) or (inward == 1 and end >= row[0])
            continue
        # SciPy takes the order statistic that is safe; between it and the next one within is where the level is held.
        within = row[np.searchsorted(row, bound) + inward]
        assert min(bound, within) - 1e-12 <= end <= max(bound, within) + 1e-12


def test_an_end_that_no_draw_bounds_is_nan() -> None:
    # 0.95^59 = 4.85%: below the least of 59 draws the quantile is with more than 2.5%, below that of 90 with less.
    assert math.isnan(quantile([np.arange(59.0)], 0.05).low)
    assert quantile([np.arange(59.0)], 0.05).high > 2
    assert quantile([np.arange(90.0)], 0.05).low >= 0


@pytest.mark.parametrize("sizes", [(30, 30), (20, 25, 30), (60,) * 5], ids=str)
@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_what_a_quantile_may_be_is_what_that_share_may_fail(sizes: tuple[int, ...], share: float) -> None:
    # Two ways to say the same: at the ends of the quantile those of the yield are 1 - share, up to a few of 500 chips.
    rows = chips(sizes, seed_std=0.3)
    found = quantile(rows, share)
    assert chip_yield(rows, found.low).low == pytest.approx(1 - share, abs=0.007)
    assert chip_yield(rows, found.high).high == pytest.approx(1 - share, abs=0.007)


@pytest.mark.parametrize("sizes", [(58,), (29, 29), (20, 20, 18)], ids=str)
def test_tails_are_refused_below_the_draws_that_they_need(sizes: tuple[int, ...]) -> None:
    rows = chips(sizes)
    assert draws_needed(0.05) == 59
    for found in (quantile(rows), cvar(rows)):
        assert all(map(math.isnan, vars(found).values()))
    assert not math.isnan(chip_yield(rows, 80.0).low)
    rows[0] = np.append(rows[0], 80.0)
    assert math.isfinite(quantile(rows).value)
    assert math.isfinite(cvar(rows).value)


def test_one_seed_has_no_interval_of_its_worst_chips() -> None:
    assert all(map(math.isnan, ends(cvar(chips((100,))))))


def test_one_draw_a_seed_has_estimates_and_no_intervals() -> None:
    rows = [[float(v)] for v in range(60)]
    for found in (chip_yield(rows, 30.0), quantile(rows), cvar(rows), improvement(rows)):
        assert math.isfinite(found.value)
        assert all(map(math.isnan, ends(found)))


def test_intervals_of_fewer_than_one_chip_of_a_population_are_not_claimed() -> None:
    share = 0.9 / CHIPS
    rows = chips((draws_needed(share),) * 2)
    for found in (quantile(rows, share), cvar(rows, share)):
        assert math.isfinite(found.value)
        assert all(map(math.isnan, ends(found)))


@pytest.mark.parametrize(("value", "share"), [(79.0, 0.0), (81.0, 1.0), (80.0, 1.0)])
def test_chips_that_are_all_equal(value: float, share: float) -> None:
    rows = [[value] * 30] * 3
    found = chip_yield(rows, 80.0)
    assert found.value == share
    # Of 90 chips that are alike others may still be unlike them, as in Jeffreys' interval: Beta(1/2, 90) at 97.5%.
    far = stats.beta(0.5, 90).ppf(0.975)
    assert found.high - found.low == pytest.approx(far, rel=0.2)
    assert quantile(rows).value == value
    assert list(vars(cvar(rows)).values()) == pytest.approx([value] * 3, rel=1e-12)
    assert quantile(rows).high == value


@quickly
@given(any_tables, st.floats(-50, 50), st.floats(0.1, 10), shares)
def test_they_move_and_scale_with_the_values(rows: list[list[float]], shift: float, scale: float, share: float) -> None:
    moved = [scale * np.array(r) + shift for r in rows]
    for f in (quantile, cvar):
        found, other = f(rows, share, 0.8), f(moved, share, 0.8)
        expected = [scale * v + shift for v in vars(found).values()]
        assert list(vars(other).values()) == pytest.approx(expected, rel=1e-6, abs=1e-4, nan_ok=True)
    spec = 50.005  # no value of two decimals
    before, after = chip_yield(rows, spec), chip_yield(moved, scale * spec + shift)
    assert after.value == before.value
    assert ends(after) == pytest.approx(ends(before), abs=0.02)


@quickly
@given(any_tables, st.randoms(use_true_random=False), shares)
def test_the_order_of_seeds_and_draws_does_not_matter(rows: list[list[float]], random: Random, share: float) -> None:
    shuffled = [random.sample(r, len(r)) for r in random.sample(rows, len(rows))]
    for f in (quantile, cvar):
        one, other = (list(vars(f(r, share, 0.8)).values()) for r in (rows, shuffled))
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True)
    one, other = (list(vars(chip_yield(r, 50.005)).values()) for r in (rows, shuffled))
    assert one == pytest.approx(other, abs=0.01)  # a chip of a population may be on either side by rounding


@quickly
@given(tables, st.lists(st.floats(0.05, 0.95), min_size=2, max_size=5, unique=True).map(sorted))
@pytest.mark.slow
def test_what_more_chips_reach_is_no_more(rows: list[list[float]], asked: list[float]) -> None:
    for f in (quantile, cvar):
        found = [f(rows, s, 0.5) for s in asked]
        told = [e for e in found if not math.isnan(e.value)]
        for column in ("value", "low", "high"):
            seen = [getattr(e, column) for e in told if not math.isnan(getattr(e, column))]
            assert all(b >= a - 1e-9 for a, b in pairwise(seen))


@quickly
@given(any_tables, levels, levels)
def test_a_higher_level_is_wider(rows: list[list[float]], a: float, b: float) -> None:
    narrow, wide = min(a, b), max(a, b)
    pairs = [(chip_yield(rows, 50.0, narrow), chip_yield(rows, 50.0, wide))]
    pairs.append(
        (improvement([np.array(r) - 50 for r in rows], narrow), improvement([np.array(r) - 50 for r in rows], wide))
    )
    pairs.append((cvar(rows, 0.5, narrow), cvar(rows, 0.5, wide)))
    pairs.append((quantile(rows, 0.5, narrow), quantile(rows, 0.5, wide)))
    for inner, outer in pairs:
        if not any(math.isnan(v) for v in (*ends(inner), *ends(outer))):
            assert outer.low <= inner.low + 1e-9
            assert outer.high >= inner.high - 1e-9


@quickly
@given(any_tables, st.lists(st.floats(-10, 110), min_size=1, max_size=12))
def test_a_profile_is_the_yield_at_each_specification_and_never_rises(
    rows: list[list[float]], specs: list[float]
) -> None:
    specs = sorted(specs)
    profile = performance_profile(rows, specs)
    assert [a.shape for a in profile] == [(len(specs),)] * 3
    for column in profile:
        assert (np.diff(column) <= 1e-12).all()
    for i, spec in enumerate(specs):
        found = chip_yield(rows, spec)
        assert (found.value, found.low, found.high) == tuple(column[i] for column in profile)


def test_a_profile_goes_from_all_chips_to_none() -> None:
    share, low, high = performance_profile(chips((30, 40, 50)), [0.0, 200.0])
    assert share.tolist() == [1.0, 0.0]
    assert high[0] == 1.0
    assert low[1] == 0.0
    assert 0.9 < low[0] < 1
    assert 0 < high[1] < 0.1


@quickly
@given(any_tables)
def test_the_probability_of_improvement_counts_ties_half(rows: list[list[float]]) -> None:
    differences = [[round(v) - 50.0 for v in r] for r in rows]
    found = improvement(differences)
    won = [sum((d > 0) + 0.5 * (d == 0) for d in r) / len(r) for r in differences]
    assert found.value == pytest.approx(sum(won) / len(won), abs=1e-12)
    mirrored = improvement([[-d for d in r] for r in differences])
    assert mirrored.value == pytest.approx(1 - found.value, abs=1e-12)
    if len(rows) == 1:
        assert ends(found) == share_interval(won[0] * len(rows[0]), len(rows[0]))
        assert ends(mirrored) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-8)
    else:
        # Populations are drawn, and the mirrored ones are not the mirror of these.
        assert found.low <= found.value <= found.high
        assert ends(mirrored) == pytest.approx((1 - found.high, 1 - found.low), abs=0.2)


@pytest.mark.parametrize("seeds", [1, 3])
def test_no_difference_at_all_is_as_likely_better_as_worse(seeds: int) -> None:
    found = improvement([[0.0] * 40] * seeds)
    assert found.value == 0.5
    assert found.low < 0.5 < found.high


# Values in steps


@pytest.mark.parametrize("offset", [0.0, -0.4])
def test_values_in_steps_are_asked_for_half_a_step_less(offset: float) -> None:
    # 84.6 of steps of 1 is 85 or more, and a chip shows 85 from 84.5 on.
    rng = np.random.default_rng(5)
    exact = [85 + rng.normal() + 1.5 * rng.normal(size=200) for _ in range(4)]
    rounded = [np.round(row) for row in exact]
    noisy = [row + 1e-13 * rng.normal(size=row.size) for row in rounded]
    found = chip_yield(rounded, 85.0 + offset)
    same = chip_yield(exact, 84.5)
    assert found.value == same.value
    assert ends(found) == pytest.approx(ends(same), abs=0.015)
    assert abs(found.low - chip_yield(exact, 85.0).low) > 0.05  # half a step is not nothing
    assert ends(chip_yield(noisy, 85.0 + offset - 1e-9)) == pytest.approx(ends(found), abs=0.01)
    per_example = chip_yield([row * 100 / 797 for row in rounded], (85.0 + offset) * 100 / 797)
    assert ends(per_example) == pytest.approx(ends(found), abs=0.01)


# Coverage


def t_over_yields(rows: Array, spec: float) -> tuple[float, float]:
    return mean_interval(np.mean(rows >= spec, axis=1))


def ours(rows: Array, spec: float) -> tuple[float, float]:
    return ends(chip_yield(list(rows), spec))


def pooled(rows: Array, spec: float) -> tuple[float, float]:
    return share_interval(int(np.sum(rows >= spec)), rows.size)


def covered(interval: Callable[[Array, float], tuple[float, float]], repetitions: int) -> float:
    """Return how often a yield of 92% is covered with three train seeds that differ as much as chips do."""
    spec, rng = float(stats.norm.ppf(0.08)) * math.sqrt(2), np.random.default_rng(11)
    a = rng.normal(size=(repetitions, 3, 1)) + rng.normal(size=(repetitions, 3, 50))
    found = np.array([interval(rows, spec) for rows in a])
    return float(np.mean((found[:, 0] <= 0.92) & (found[:, 1] >= 0.92)))


@pytest.mark.slow
def test_a_yield_of_three_trainings_is_covered_and_a_t_interval_of_yields_or_pooled_chips_would_be_told() -> None:
    # Standard error of a coverage of 95% from 200 repetitions: 1.5 percent.
    assert 0.91 <= covered(ours, 200) <= 0.99
    assert covered(t_over_yields, 1000) < 0.85
    assert covered(pooled, 100) < 0.5


REPETITIONS = 400
ENDS = stats.binom.interval(0.9999, REPETITIONS, 0.95)
"""How often an interval of 95% covers in so many repetitions, but for one time in 10,000."""


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_over_trainings_cover_their_truth(seeds: int, kind: str) -> None:
    """Chips are normal, or skewed with a tail to low values: a gamma of shape 2 as accuracies have it."""
    rng = np.random.default_rng([seeds, len(kind)])
    size = (REPETITIONS, seeds, 50)

    def drawn(shape: tuple[int, ...]) -> Array:
        return rng.normal(size=shape) if kind == "normal" else (2 - rng.gamma(2.0, size=shape)) / math.sqrt(2)

    # The truth, from two million chips: their 5% quantile is known to 0.003.
    everything = np.sort(rng.normal(size=2_000_000) + drawn((2_000_000,)))
    spec, tail, moved = (float(np.quantile(everything, q)) for q in (0.1, 0.05, 0.25))
    worst = float(everything[:100_000].mean())
    hits: dict[str, int] = {}
    for rows in rng.normal(size=(*size[:2], 1)) + drawn(size):
        own = ChipSample(list(rows))
        for name, truth, (low, high) in (
            ("yield", 0.9, ends(own.chip_yield(spec))),
            ("quantile", tail, ends(own.quantile())),
            ("worst chips", worst, ends(own.cvar())),
            ("improvement", 0.75, ends(improvement(list(rows - moved)))),
            ("t over yields", 0.9, t_over_yields(rows, spec)),
        ):
            hits[name] = hits.get(name, 0) + (low <= truth <= high)
    planted = hits.pop("t over yields")
    for name, times in hits.items():
        assert ENDS[0] <= times <= ENDS[1], f"{name}: {times / REPETITIONS:.1%}"
    if seeds < 10:
        assert planted < ENDS[0]
