"""Corrupted images: the same each time, worse with severity, all classes and all corruptions in each file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_record import load

pytest.importorskip("kornia", reason="needs the extra `experiments`")

corrupt = load("rwp/corrupt")


def images(number: int = 6) -> np.ndarray:
    """Return waves of colours with a grain."""
    grid = np.linspace(0, np.pi, 32)
    waves = [np.sin((1 + k) * grid)[:, None] * np.cos(k * grid)[None] for k in range(number)]
    colours = np.stack([np.stack([w, w**2, 1 - w], -1) for w in waves])
    grain = np.random.default_rng(0).normal(0, 25, colours.shape)
    return np.clip(255 * (colours - colours.min()) / np.ptp(colours) + grain, 0, 255).astype(np.uint8)


def distance(name: str, severity: int) -> float:
    return float(np.abs(corrupt.corrupted(images(), name, severity).astype(float) - images()).mean())


@pytest.mark.parametrize("name", corrupt.CORRUPTIONS)
def test_a_corruption_is_repeated_and_grows(name: str) -> None:
    first = corrupt.corrupted(images(), name, 5)
    assert (first.shape, first.dtype) == (images().shape, np.uint8)
    np.testing.assert_array_equal(first, corrupt.corrupted(images(), name, 5))
    distances = [distance(name, severity) for severity in corrupt.SEVERITIES]
    assert distances[0] < distances[-1]
    pictures = [corrupt.corrupted(images(), name, severity).tobytes() for severity in corrupt.SEVERITIES[1:]]
    assert len(set(pictures)) == len(pictures)


def test_gaussian_noise_has_its_standard_deviation() -> None:
    grey = np.full((20, 32, 32, 3), 128, dtype=np.uint8)
    for severity, std in zip(corrupt.SEVERITIES, corrupt.CORRUPTIONS["gaussian noise"][1], strict=True):
        noise = corrupt.corrupted(grey, "gaussian noise", severity).astype(float) / 255 - 128 / 255
        assert noise.std() == pytest.approx(std, rel=0.03)


def test_each_file_has_every_chosen_image_under_every_corruption(tmp_path: Path) -> None:
    labels = np.arange(6)
    np.savez(tmp_path / "data.npz", test_x=images(), test_y=labels)
    corrupt.main([str(tmp_path / "data.npz"), "--examples", "4", "--out", str(tmp_path / "out")])
    for severity in corrupt.SEVERITIES:
        with np.load(tmp_path / "out" / f"corrupted-{severity}.npz") as arrays:
            x, y = arrays["test_x"], arrays["test_y"].reshape(len(corrupt.CORRUPTIONS), 4)
        assert (y == y[0]).all()
        assert len(set(y[0])) == 4
        for number, name in enumerate(corrupt.CORRUPTIONS):
            own = x.reshape(len(corrupt.CORRUPTIONS), 4, 32, 32, 3)[number]
            np.testing.assert_array_equal(own, corrupt.corrupted(images()[y[0]], name, severity))
