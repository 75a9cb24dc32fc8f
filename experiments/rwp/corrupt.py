"""Corrupted test images, in the manner of CIFAR-10-C: twelve corruptions of kornia in five severities.

    python experiments/rwp/corrupt.py cifar10-jpeg.npz --examples 500 --out .

writes ``corrupted-1.npz`` to ``corrupted-5.npz``, one a severity: images of the test split under each corruption,
so that the accuracy on a file is the mean over corruptions (the RWP paper's table 3). Hendrycks and Dietterich,
"Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019, have 15 corruptions of
their own code; strengths here are not theirs, so that numbers compare methods and not papers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from kornia import enhance, filters
from kornia.augmentation import (
    RandomElasticTransform,
    RandomGaussianNoise,
    RandomSaltAndPepperNoise,
    RandomSnow,
)
from torch import Tensor
from torch.nn.functional import interpolate

from noiserobust.rng import Stream

SEVERITIES = (1, 2, 3, 4, 5)


def _pixelate(x: Tensor, side: int) -> Tensor:
    return interpolate(interpolate(x, size=(side, side), mode="area"), size=x.shape[-2:], mode="nearest")


def _blur(x: Tensor, sigma: float) -> Tensor:
    return filters.gaussian_blur2d(x, 9, (sigma, sigma))


def _median(x: Tensor, times: float) -> Tensor:
    for _ in range(int(times)):
        x = filters.median_blur(x, 3)
    return x


def _jpeg(x: Tensor, quality: float) -> Tensor:
    return enhance.jpeg_codec_differentiable(x, torch.full((len(x),), quality))


CORRUPTIONS: Mapping[str, tuple[Callable[[Tensor, float], Tensor], Sequence[float]]] = {
    "gaussian noise": (lambda x, s: RandomGaussianNoise(std=s, p=1)(x), (0.04, 0.06, 0.08, 0.10, 0.14)),
    "salt and pepper": (lambda x, s: RandomSaltAndPepperNoise(amount=(s, s), p=1)(x), (0.01, 0.03, 0.05, 0.08, 0.12)),
    "gaussian blur": (_blur, (0.4, 0.6, 0.8, 1.1, 1.5)),
    "motion blur": (lambda x, s: filters.motion_blur(x, int(s), 30.0, 0.0, mode="bilinear"), (3, 5, 7, 9, 11)),
    "median": (_median, (1, 2, 3, 5, 8)),
    "brightness": (lambda x, s: enhance.adjust_brightness(x, s), (0.05, 0.1, 0.2, 0.3, 0.4)),
    "contrast": (lambda x, s: enhance.adjust_contrast(x, s), (0.8, 0.6, 0.45, 0.3, 0.2)),
    "saturation": (lambda x, s: enhance.adjust_saturation(x, s), (0.5, 0.25, 0.0, 3.0, 5.0)),
    "jpeg": (_jpeg, (80, 60, 40, 25, 15)),
    "pixelate": (lambda x, s: _pixelate(x, int(s)), (26, 22, 18, 14, 11)),
    "snow": (lambda x, s: RandomSnow(snow_coefficient=(s, s), brightness=(2.0, 2.0))(x), (0.1, 0.2, 0.3, 0.45, 0.6)),
    "elastic": (
        lambda x, s: RandomElasticTransform((9, 9), sigma=(3.0, 3.0), alpha=(s, s), p=1)(x),
        (0.2, 0.4, 0.7, 1.0, 1.4),
    ),
}
"""What is done to images, N x 3 x H x W in [0, 1], and how strongly by severity."""


def corrupted(images: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Return images with a corruption, the same whenever it is asked for.

    Args:
        images: uint8, N x H x W x 3.
        name: one of :data:`CORRUPTIONS`.
        severity: 1 to 5.

    Returns:
        The same shape and dtype.
    """
    change, strengths = CORRUPTIONS[name]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with Stream(0, "corruption", name, severity).as_torch_default():
        x = change(x, strengths[severity - 1])
    return (255 * x.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Corrupted test images.")
    parser.add_argument("file", type=Path, help=".npz with test_x, uint8, N x H x W x 3, and test_y")
    parser.add_argument("--examples", type=int, default=500, help="how many test images, each with all corruptions")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    args = parser.parse_args(arguments)
    with np.load(args.file) as arrays:
        images, labels = arrays["test_x"], arrays["test_y"]
    # Of a folder of images the classes follow each other: take some of all.
    chosen = np.sort(Stream(0, "corrupted examples").permutation(len(labels))[: args.examples])
    images, labels = images[chosen], labels[chosen]
    args.out.mkdir(parents=True, exist_ok=True)
    for severity in SEVERITIES:
        x = np.concatenate([corrupted(images, name, severity) for name in CORRUPTIONS])
        path = args.out / f"corrupted-{severity}.npz"
        np.savez(path, test_x=x, test_y=np.tile(labels, len(CORRUPTIONS)))
        print(path)


if __name__ == "__main__":
    main()
