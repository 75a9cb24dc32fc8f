"""Populations that agree with draws have the mean, the spreads and the unknown chips that theory gives them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import noiserobust as nr
from noiserobust.stats.population import CHIPS, POPULATIONS, populations


def draws(sizes: tuple[int, ...], seed_std: float = 1.0, noise_std: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng([len(sizes), *sizes])
    return [80 + rng.normal(scale=seed_std) + rng.normal(scale=noise_std, size=k) for k in sizes]


@pytest.mark.parametrize("sizes", [(50, 50, 50), (20,) * 10, (10, 40, 90)], ids=str)
def test_their_means_are_spread_as_student_says(sizes: tuple[int, ...]) -> None:
    values = draws(sizes)
    means = [row.mean() for row in values]
    found, unlike = populations(values)
    assert found.shape == (POPULATIONS, CHIPS)
    assert unlike.shape == (POPULATIONS,)
    scale = np.std(means, ddof=1) / len(means) ** 0.5
    expected = stats.t(len(means) - 1, loc=np.mean(means), scale=scale)
    # 1000 values know the place of a quantile among all to 1.6 percent (at 50%).
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert expected.cdf(np.quantile(found.mean(axis=1), share)) == pytest.approx(share, abs=0.03)


def test_with_many_seeds_and_draws_they_are_the_chips_themselves() -> None:
    values = draws((100,) * 200, seed_std=2.0, noise_std=3.0)
    found, _ = populations(values)
    everything = np.concatenate(values)
    # 200 seeds know their standard deviation to 5 percent.
    assert np.median(found.std(axis=1)) == pytest.approx(np.hypot(2.0, 3.0), rel=0.05)
    for share in (0.05, 0.5, 0.95):
        assert np.median(np.quantile(found, share, axis=1)) == pytest.approx(np.quantile(everything, share), abs=0.3)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_their_spread_between_seeds_is_the_pivot_of_the_variance(seeds: int) -> None:
    # Draws without noise: the variance between train seeds is the sum of squares over a chi-square.
    means = np.random.default_rng(seeds).normal(size=seeds)
    found, _ = populations([np.full(2, m) for m in means])
    squares = np.sum((means - means.mean()) ** 2)
    for share in (0.1, 0.5, 0.9):
        place = np.quantile(found.std(axis=1), share)
        # All that are left are normal scores of variance 1, but for the 500 there are of them.
        assert stats.chi2.sf(squares / place**2, seeds - 1) == pytest.approx(share, abs=0.03)


def test_trainings_that_differ_by_no_more_than_their_chips_explain_have_no_spread() -> None:
    row = np.arange(20.0)
    found, _ = populations([row, row, row])
    # All means are equal: only chips are left, and their mean.
    assert np.ptp(found.mean(axis=1)) < 1e-9
    scaled = (row - row.mean()) * (20 / 19) ** 0.5
    assert np.ptp(found, axis=1).max() <= np.ptp(scaled) + 1e-9


def test_two_draws_a_seed_are_enough_for_many_seeds_to_tell_chips_from_trainings() -> None:
    # What the mean of two chips is off looks like a spread of trainings: sqrt(9 + 9 / 2) = 3.7, were it not subtracted.
    # And two chips deviate from their own mean by half of their variance only.
    found, _ = populations(draws((2,) * 400, seed_std=0.0, noise_std=3.0))
    assert np.median(found.std(axis=1)) == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("number", [10, 60])
def test_chips_unlike_any_have_the_share_of_half_a_value(number: int) -> None:
    _, unlike = populations(draws((number // 2, number // 2)))
    # Half a gamma of all: Beta(1/2, n). 1000 draws are within 0.06 of their distribution 999 times in 1000.
    assert stats.kstest(unlike, stats.beta(0.5, number).cdf).statistic < 0.06
    assert stats.kstest(unlike, stats.beta(1.0, number).cdf).statistic > 0.06


tables = st.lists(
    st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=2, max_size=8), min_size=2, max_size=5
)


@settings(deadline=None, max_examples=20)
@given(tables, st.floats(-50, 50), st.floats(0.1, 10))
def test_they_move_and_scale_with_the_draws(values: list[list[float]], shift: float, scale: float) -> None:
    found, unlike = populations(values)
    moved, same = populations([scale * np.array(row) + shift for row in values])
    assert np.array_equal(unlike, same)
    centre = np.mean([np.mean(row) for row in values])
    # Rows of one population agree chip by chip; ties may change places by rounding, so they are sorted.
    size = scale * np.abs(found - centre).max() + 1
    assert np.abs(np.sort(moved, axis=1) - (scale * np.sort(found, axis=1) + shift)).max() < 1e-6 * size + 1e-4


@settings(deadline=None, max_examples=20)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_draws_does_not_matter(values: list[list[float]], random: object) -> None:
    shuffled = [random.sample(row, len(row)) for row in random.sample(values, len(values))]
    found, again = populations(values)[0], populations(shuffled)[0]
    assert np.abs(found - again).max() < 1e-9 * (1 + np.abs(found).max())


def test_they_are_the_same_every_time() -> None:
    values = draws((10, 10, 10))
    assert np.array_equal(populations(values)[0], populations(values)[0])


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [[1.0, 2.0], [3.0]]], ids=str)
def test_too_few_seeds_or_draws_are_refused(values: list[list[float]]) -> None:
    with pytest.raises(nr.NoiseRobustError, match=r"Expected `values` to have two train seeds with two draws"):
        populations(values)
