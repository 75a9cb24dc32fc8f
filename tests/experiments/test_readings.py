"""Noises that are the default one at another strength are found to be, others are not."""

from __future__ import annotations

import numpy as np
import pytest
from test_record import load

readings = load("readings")
LEVELS = np.linspace(0, 0.2, 5)
STEEPNESS = np.array([[20.0], [35.0], [60.0]])


def accuracy(sigma: np.ndarray | float) -> np.ndarray:
    """Return the accuracy of three networks, of which the best without noise loses most."""
    return 70 + STEEPNESS / 10 - STEEPNESS * (np.asarray(sigma) / 0.2) ** 1.5


@pytest.mark.parametrize("factor", [0.7, 1.0, 2**0.5])
def test_a_noise_of_another_strength_is_found(factor: float) -> None:
    found = readings.likeness(LEVELS, accuracy(LEVELS), accuracy(0.1 * factor)[:, 0])
    assert found.sigma == pytest.approx(0.1 * factor, rel=0.01)
    assert found.rms < 0.3
    assert found.rank == pytest.approx(1)


def test_what_does_not_follow_from_strength_is_said() -> None:
    other = accuracy(0.1)[:, 0] + [5, 0, -5]
    found = readings.likeness(LEVELS, accuracy(LEVELS), other)
    assert found.sigma == pytest.approx(0.1, rel=0.01)
    assert found.rms == pytest.approx((50 / 3) ** 0.5, rel=0.05)


def test_noise_stronger_than_any_is_like_none() -> None:
    assert readings.likeness(LEVELS, accuracy(LEVELS), accuracy(0.3)[:, 0]) is None


def test_the_papers_laplace_noise_is_like_gaussian_noise_of_the_same_variance() -> None:
    """Laplace noise of scale b has the standard deviation sqrt(2) b: this decides how sigma is to be read."""
    rows = readings.paper()
    assert [row[1] for row in rows] == ["0.01", "0.02", "0.03", "0.04"]
    for row in rows:
        assert float(row[3]) == pytest.approx(2**0.5, rel=0.1)
        assert float(row[4]) < 1
