"""Draws by method, noise and level: nothing is lost, mixed or out of order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import row

from noiserobust.results.cells import CURVE_COLUMNS, curves
from noiserobust.results.store import as_frame
from noiserobust.results.summary import estimate_sampled


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sgd", "sam"]),
            st.sampled_from(["gaussian", "laplace"]),
            st.sampled_from(["accuracy", "loss"]),
            st.sampled_from([0.0, 0.05, 0.1]),
            st.integers(0, 2),
            st.sampled_from(["a.pt", "b.pt"]),
            st.integers(0, 4),
            st.floats(0, 100),
        ),
        min_size=1,
        max_size=40,
        unique_by=lambda t: t[:7],
    ),
    st.randoms(use_true_random=False),
)
@pytest.mark.slow
def test_each_draw_is_where_it_belongs(cells: list[tuple], random: object) -> None:
    rows = [
        row(seed, level, draw, value, method=method, noise=noise, metric=metric, weights=weights)
        for method, noise, metric, level, seed, weights, draw, value in cells
    ]
    plain: dict[tuple, dict[int, float]] = {}
    for method, noise, metric, level, seed, weights, draw, value in cells:
        plain.setdefault((method, noise, "sigma", metric, level, seed, weights), {})[draw] = value
    for frame in (as_frame(rows), pd.DataFrame(random.sample(rows, len(rows)))):
        found = {}
        for curve in curves(frame):
            assert list(curve.key) == CURVE_COLUMNS
            assert list(curve.chips) == sorted(curve.chips)
            for level, chips in curve.chips.items():
                assert list(chips) == sorted(chips)
                for (seed, weights), own in chips.items():
                    assert (np.diff(own.numbers) > 0).all()
                    assert own.mean == pytest.approx(own.values.mean())
                    assert not own.sampled
                    numbers, values = own.numbers.tolist(), own.values.tolist()
                    found[(*curve.key.values(), level, seed, weights)] = dict(zip(numbers, values, strict=True))
        assert found == plain


def test_curves_come_in_the_order_of_the_rows() -> None:
    rows = [row(method=method, noise=noise) for method in ("sgd", "asam", "rwp") for noise in ("laplace", "gaussian")]
    found = [(c.method, c.noise) for c in curves(pd.DataFrame(rows))]
    assert found == [(r["method"], r["noise"]) for r in rows]


def test_no_draws_have_no_curves() -> None:
    assert list(curves(as_frame([]))) == []


def test_draws_on_some_of_the_examples_stand_for_all_by_their_estimate() -> None:
    rng = np.random.default_rng(0)
    part = {"n_examples": 100, "of_examples": 1000, "sampling_std": 2.0}
    whole = {"n_examples": 1000, "of_examples": 1000, "sampling_std": 0.0}
    rows = [row(0, 0.1, d, float(rng.normal(80, 3)), **part) for d in range(20)]
    # Chips on all examples know more of the mean than those on a few.
    rows += [row(0, 0.1, d, float(rng.normal(90, 3)), **whole) for d in range(20, 30)]
    rows += [row(0, 0.2, d, float(rng.normal(70, 3)), **whole) for d in range(5)]
    frame = as_frame(rows)
    (curve,) = curves(frame)
    sampled, exact = curve.chips[0.1][0, "seed0.safetensors"], curve.chips[0.2][0, "seed0.safetensors"]
    assert sampled.sampled
    assert sampled.mean == estimate_sampled(frame[frame["level"] == 0.1]).mean
    assert sampled.mean != pytest.approx(sampled.values.mean(), rel=1e-4)
    assert not exact.sampled
    assert exact.mean == pytest.approx(exact.values.mean(), rel=1e-12)
