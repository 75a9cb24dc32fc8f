"""Noise and seed uncertainty are kept apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiserobust.stats.components import noise_std, seed_means, seed_std

accuracies = st.lists(st.floats(0, 100), min_size=2, max_size=8)
tables = st.lists(accuracies, min_size=2, max_size=6)


@given(tables)
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


def test_the_estimates_are_those_of_the_truth_and_a_five_percent_error_would_show() -> None:
    # Standard errors over 4000 experiments: 0.2 percent of noise_std, 0.6 percent of seed_std.
    truth = (3.0, math.sqrt(1.5**2 + 3.0**2 / 10))
    assert simulated(3.0, 1.5) == pytest.approx(truth, rel=0.02)
    for bias in (0.95, 1.05):
        assert all(abs(e / t - 1) > 0.02 for e, t in zip(simulated(3.0, 1.5, bias), truth, strict=True))
