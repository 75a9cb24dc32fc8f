"""Comparisons of methods against SciPy's tests, exact distributions and the plain definition of Holm."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

import noiserobust as nr
from noiserobust.stats import Comparison, compare, holm, improvement, least_p_sign_flip, mean_interval, sign_flip

numbers = st.floats(-10, 10).map(lambda v: round(v, 2))
differences = st.lists(numbers, min_size=2, max_size=9)
quickly = settings(deadline=None, max_examples=25)

pair = st.integers(1, 12).flatmap(lambda n: st.lists(st.tuples(numbers, numbers), min_size=n, max_size=n))
methods = st.lists(pair, min_size=1, max_size=5).map(
    lambda m: ([[a for a, _ in s] for s in m], [[b for _, b in s] for s in m])
)


def units(a: list[list[float]], b: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return what tests are over: means of train seeds, or the chips of one."""
    if len(a) == 1:
        return np.array(a[0]), np.array(b[0])
    return np.array([sum(r) / len(r) for r in a]), np.array([sum(r) / len(r) for r in b])


@quickly
@given(methods)
def test_differences_are_over_train_seeds_or_the_chips_of_one(two: tuple[list[list[float]], list[list[float]]]) -> None:
    a, b = two
    found = compare(a, b)
    x, y = units(a, b)
    assert found.difference.value == pytest.approx(np.mean(x) - np.mean(y), abs=1e-9)
    interval = (found.difference.low, found.difference.high)
    if np.ptp(x - y) > 1e-6:
        assert interval == pytest.approx(mean_interval(x - y), abs=1e-9, nan_ok=True)
    elif abs(found.difference.value) > 1e-6:
        assert all(map(math.isnan, interval))
    if x.size > 1 and np.std(x - y) > 1e-6:
        assert found.p_value == pytest.approx(stats.ttest_rel(x, y).pvalue, rel=1e-6, abs=1e-12)
        # The interval leaves 0 out as often as the test finds something.
        if abs(found.p_value - 0.05) > 1e-6:
            assert (interval[0] <= 0 <= interval[1]) == (found.p_value > 0.05)
    assert found.p_sign_flip == pytest.approx(sign_flip(x - y), nan_ok=True)
    assert found.least_p_sign_flip == pytest.approx(least_p_sign_flip(x.size), nan_ok=True)
    own = improvement([np.array(r) - np.array(s) for r, s in zip(a, b, strict=True)])
    assert list(vars(found.improvement).values()) == pytest.approx(list(vars(own).values()), nan_ok=True)
    assert (found.n_seeds, found.over) == (len(a), "train seeds" if len(a) > 1 else "chips")


@quickly
@given(methods)
def test_the_other_way_round_everything_is_mirrored(two: tuple[list[list[float]], list[list[float]]]) -> None:
    a, b = two
    one, other = compare(a, b), compare(b, a)
    assert other.difference.value == -one.difference.value
    assert (-other.difference.high, -other.difference.low) == pytest.approx(
        (one.difference.low, one.difference.high), nan_ok=True
    )
    assert (other.p_value, other.p_sign_flip) == pytest.approx((one.p_value, one.p_sign_flip), nan_ok=True)
    assert other.improvement.value == pytest.approx(1 - one.improvement.value)


@quickly
@given(methods, st.randoms(use_true_random=False))
def test_the_order_of_train_seeds_does_not_matter(
    two: tuple[list[list[float]], list[list[float]]], random: Random
) -> None:
    order = random.sample(range(len(two[0])), len(two[0]))
    one, other = compare(*two), compare(*([rows[i] for i in order] for rows in two))
    assert summary(other) == pytest.approx(summary(one), rel=1e-9, abs=1e-9, nan_ok=True)
    # Populations are of the same numbers, of which sums in another order differ by rounding.
    assert list(vars(other.improvement).values()) == pytest.approx(
        list(vars(one.improvement).values()), abs=0.01, nan_ok=True
    )


def summary(found: Comparison) -> list[float]:
    return [*vars(found.difference).values(), found.p_value, found.p_sign_flip]


def test_differences_that_agree_have_no_spread_to_be_judged_by() -> None:
    found = compare([[81.0, 83.0], [71.0, 75.0]], [[80.0, 82.0], [70.0, 74.0]])
    assert found.difference.value == 1.0
    assert all(map(math.isnan, (found.difference.low, found.difference.high, found.p_value)))
    assert (found.p_sign_flip, found.least_p_sign_flip) == (0.5, 0.5)
    same = compare([[80.0], [70.0]], [[80.0], [70.0]])
    assert (same.difference.value, same.p_value, same.p_sign_flip) == (0.0, 1.0, 1.0)


def test_differences_that_agree_but_for_rounding_cause_no_warning() -> None:
    found = compare([[80.3], [70.3], [60.1]], [[80.2], [70.2], [60.0]])
    assert math.isnan(found.p_value)
    assert found.p_sign_flip == found.least_p_sign_flip == 0.25


def test_one_chip_of_one_training_says_nothing_of_how_sure_it_is() -> None:
    found = compare([[81.0]], [[80.0]])
    assert found.difference.value == 1.0
    unsure = (found.difference.low, found.difference.high, found.p_value, found.p_sign_flip, found.least_p_sign_flip)
    assert all(map(math.isnan, unsure))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([], []),
        ([[1.0]], []),
        ([[1.0, 2.0]], [[1.0]]),
        ([[1.0], [2.0]], [[1.0]]),
        ([[1.0], [2.0]], [[1.0], [1.0, 2.0]]),
    ],
    ids=str,
)
def test_other_train_seeds_or_chips_are_refused(a: list[list[float]], b: list[list[float]]) -> None:
    with pytest.raises(
        nr.NoiseRobustError, match="Expected `a` and `b` to have the same train seeds and chips, but got"
    ):
        compare(a, b)


@pytest.mark.parametrize("rows", [[[]], [[1.0], []]], ids=str)
def test_train_seeds_without_chips_are_refused(rows: list[list[float]]) -> None:
    with pytest.raises(nr.NoiseRobustError, match="Expected `values` to have at least one value"):
        compare(rows, rows)


# Changes of sign


@quickly
@given(differences)
def test_the_exact_test_is_scipys(x: list[float]) -> None:
    assume(sum(round(100 * v) for v in x) != 0)
    exact = stats.permutation_test(
        (np.round(100 * np.array(x)),), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    assert sign_flip(x) == pytest.approx(min(exact.pvalue, 1.0), abs=1e-12)


@quickly
@given(st.lists(numbers, min_size=2, max_size=25), st.randoms(use_true_random=False), st.floats(0.01, 100))
def test_order_direction_and_unit_do_not_matter(x: list[float], random: Random, scale: float) -> None:
    p = sign_flip(x)
    assert sign_flip(random.sample(x, len(x))) == p
    assert sign_flip([-v for v in x]) == p
    assert sign_flip([scale * v for v in x]) == p
    assert least_p_sign_flip(len(x)) <= p <= 1


def test_sums_that_cancel_are_as_near_to_0_as_can_be() -> None:
    # In floats 0.1 + 0.2 - 0.3 is 5.6e-17, and in another order 0.
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0
    assert sign_flip([0.0, 0.0]) == 1.0


@pytest.mark.parametrize("n", [2, 3, 5, 15])
def test_the_least_p_is_that_of_differences_of_one_sign(n: int) -> None:
    assert sign_flip(np.arange(1.0, n + 1)) == least_p_sign_flip(n) == 2.0 ** (1 - n)


@pytest.mark.parametrize("n", [16, 40])
def test_with_many_differences_the_least_p_is_that_of_the_sample(n: int) -> None:
    assert sign_flip(np.full(n, 1.0)) >= least_p_sign_flip(n)
    assert least_p_sign_flip(n) >= 2.0 ** (1 - n)
    assert sign_flip(np.arange(100.0, 100 + 40)) == least_p_sign_flip(40) == 1 / (1 + 2**14)


@pytest.mark.parametrize("seed", range(4))
def test_a_sample_of_changes_is_close_to_all(seed: int) -> None:
    # Whole numbers: the distribution of their sum under all changes of sign is a convolution of two points each.
    x = np.random.default_rng(seed).integers(-6, 12, size=20)
    counts = np.ones(1)
    for v in np.abs(x):
        two = np.zeros(2 * v + 1)
        two[0] += 0.5
        two[-1] += 0.5
        counts = np.convolve(counts, two)
    sums = np.arange(counts.size) - np.abs(x).sum()
    exact = counts[np.abs(sums) >= abs(x.sum())].sum()
    assert sign_flip(x) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2**14) + 1e-4)


@pytest.mark.parametrize("x", [[], [1.0], [1.0, math.nan, 2.0], [1.0, math.inf]], ids=str)
def test_what_cannot_be_tested_is_nan(x: list[float]) -> None:
    assert math.isnan(sign_flip(x))
    assert all(map(math.isnan, map(least_p_sign_flip, (0, 1))))


@pytest.mark.slow
def test_without_a_difference_tests_find_one_as_often_as_their_level() -> None:
    # 2000 experiments with 6 train seeds: standard error 0.5 percent. Of 32 p-values 1/32 and 2/32 are likely alike.
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2000, 6))
    flips = np.array([sign_flip(row) for row in x])
    assert np.mean(flips <= 2 / 32) == pytest.approx(2 / 32, abs=0.02)
    t = np.array([compare([[v] for v in row], [[0.0]] * 6).p_value for row in x])
    assert np.mean(t <= 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean([stats.norm.sf(abs(r.mean() / r.std(ddof=1) * 6**0.5)) * 2 <= 0.05 for r in x]) > 0.065  # planted


# Holm


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float], alpha: float) -> None:
    adjusted = holm(p)
    assume(all(abs(v - alpha) > 1e-9 for v in adjusted))
    rejected = set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):  # from the smallest, until one stands
        if p[i] > alpha / (len(p) - step):
            break
        rejected.add(i)
    assert {i for i, v in enumerate(adjusted) if v <= alpha} == rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_keeps_order_and_lies_between_p_and_bonferroni(p: list[float], random: Random) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    order = random.sample(range(len(p)), len(p))
    assert holm([p[i] for i in order]).tolist() == [adjusted[i] for i in order]


def test_nan_is_not_counted() -> None:
    assert holm([0.01, math.nan, 0.04]).tolist() == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)
    assert np.isnan(holm([math.nan])).all()
    assert holm([]).size == 0
    assert holm([0.7]).tolist() == [0.7]


def test_holm_leaves_what_it_is_given() -> None:
    p = np.array([0.03, 0.01])
    holm(p)
    assert p.tolist() == [0.03, 0.01]
