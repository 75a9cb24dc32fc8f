"""Noise and seed uncertainty are kept apart."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiserobust.stats.components import Components, noise_std, seed_means, seed_std, variance_components

accuracies = st.lists(st.floats(0, 100), min_size=2, max_size=8)
tables = st.lists(accuracies, min_size=2, max_size=6)


@given(tables)
@pytest.mark.slow
def test_they_are_the_formulas_also_for_unequal_numbers_of_draws(values: list[list[float]]) -> None:
    seeds = [sum(row) / len(row) for row in values]
    within = [sum((v - m) ** 2 for v in row) / (len(row) - 1) for row, m in zip(values, seeds, strict=True)]
    grand = sum(seeds) / len(seeds)
    close = {"rel": 1e-9, "abs": 1e-6}
    assert list(seed_means(values)) == pytest.approx(seeds, **close)
    assert noise_std(values) == pytest.approx(math.sqrt(sum(within) / len(within)), **close)
    assert seed_std(values) == pytest.approx(
        math.sqrt(sum((m - grand) ** 2 for m in seeds) / (len(seeds) - 1)), **close
    )


@given(tables, st.floats(-20, 20))
def test_a_shift_of_a_whole_seed_is_no_noise(values: list[list[float]], shift: float) -> None:
    moved = [[v + shift for v in values[0]], *values[1:]]
    assert noise_std(moved) == pytest.approx(noise_std(values), abs=1e-6)


def test_what_cannot_be_estimated_is_nan_and_never_zero() -> None:
    assert math.isnan(noise_std([[1.0], [2.0, 3.0]]))
    assert math.isnan(noise_std([]))
    assert math.isnan(seed_std([[1.0, 2.0]]))
    assert noise_std([[1.0, 1.0]]) == 0
    assert seed_std([[1.0], [1.0]]) == 0


def simulated(noise: float, seed: float, bias: float = 1.0) -> tuple[float, float]:
    """Return root mean squares of both estimates over 4000 experiments of 5 seeds x 10 draws, times a bias."""
    random = np.random.default_rng(1)
    tables = random.normal(scale=seed, size=(4000, 5, 1)) + random.normal(scale=noise, size=(4000, 5, 10))
    estimates = np.array([(noise_std(t), seed_std(t)) for t in tables]) * bias
    return tuple(np.sqrt(np.mean(estimates**2, axis=0)))


@pytest.mark.slow
def test_the_estimates_are_those_of_the_truth_and_a_five_percent_error_would_show() -> None:
    # Standard errors over 4000 experiments: 0.2 percent of noise_std, 0.6 percent of seed_std.
    truth = (3.0, math.sqrt(1.5**2 + 3.0**2 / 10))
    assert simulated(3.0, 1.5) == pytest.approx(truth, rel=0.02)
    for bias in (0.95, 1.05):
        assert all(abs(e / t - 1) > 0.02 for e, t in zip(simulated(3.0, 1.5, bias), truth, strict=True))


@given(tables)
def test_the_components_are_the_method_of_moments(values: list[list[float]]) -> None:
    found = variance_components(values)
    within = noise_std(values) ** 2
    seed = seed_std(values) ** 2 - within * sum(1 / len(row) for row in values) / len(values)
    assert found.noise == pytest.approx(within, rel=1e-9, abs=1e-6)
    assert found.seed == pytest.approx(max(seed, 0), rel=1e-9, abs=1e-6)
    if abs(seed) > 1e-6:
        assert found.negative == (seed < 0)


@given(tables, st.randoms(use_true_random=False), st.floats(-50, 50), st.floats(0.1, 10))
@pytest.mark.slow
def test_the_components_know_no_order_and_no_origin(
    values: list[list[float]], random: Random, shift: float, scale: float
) -> None:
    found = variance_components(values)
    moved = [[scale * v + shift for v in random.sample(row, len(row))] for row in random.sample(values, len(values))]
    other = variance_components(moved)
    close = {"rel": 1e-6, "abs": 1e-6}
    assert (other.noise, other.seed) == pytest.approx((scale**2 * found.noise, scale**2 * found.seed), **close)


@pytest.mark.parametrize("draws", [(10, 10, 10, 10, 10), (2, 3, 10, 30, 50)], ids=str)
def test_the_components_are_unbiased_also_with_unequal_draws(draws: tuple[int, ...]) -> None:
    # Over 2000 experiments the standard errors are 0.1 at most, and the noise is 9, the seeds 4.
    random = np.random.default_rng(2)
    noise, seed, planted = [], [], []
    for _ in range(2000):
        a = [random.normal(scale=2.0) + random.normal(scale=3.0, size=k) for k in draws]
        found = variance_components(a)
        noise.append(found.noise)
        # What was negative is 0, which is no estimate without bias: it is put back.
        seed.append(seed_std(a) ** 2 - found.noise * np.mean(1 / np.array(draws)) if found.negative else found.seed)
        planted.append(seed_std(a) ** 2)  # with what is left of the noise in means of draws
    for estimates, truth in ((noise, 9.0), (seed, 4.0)):
        assert np.mean(estimates) == pytest.approx(truth, abs=4 * np.std(estimates) / 2000**0.5)
    assert np.mean(planted) != pytest.approx(4.0, abs=4 * np.std(planted) / 2000**0.5)


def test_components_that_cannot_be_estimated() -> None:
    assert not variance_components([]).negative
    assert all(map(math.isnan, (variance_components([]).noise, variance_components([]).seed)))
    one_seed = variance_components([[1.0, 3.0]])
    assert one_seed.noise == 2.0
    assert math.isnan(one_seed.seed)
    assert not one_seed.negative
    one_draw = variance_components([[1.0], [3.0, 4.0]])
    assert math.isnan(one_draw.noise)
    assert math.isnan(one_draw.seed)
    assert variance_components([[5.0, 5.0], [5.0, 5.0]]) == Components(0.0, 0.0, negative=False)
