"""GPU hours that the grids of the papers' scale take on one H100, estimated from measured epochs.

    python experiments/cost.py

Measured (``sweep/README.md``), batch 128, bf16, 50,000 images of 32x32: an epoch of ResNet-18 takes 4.2 s with SGD,
11.8 s with SAM (two passes) and 35 s with RWP, whose noise is drawn on one CPU thread. An epoch of another
network is taken to scale with its multiplications, and the noise with its weights. Evaluations are a few percent.
ImageNet is estimated from the same epochs, if its images are decoded as fast as they are trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch
from recorded import HERE, table
from torch.utils.flop_counter import FlopCounterMode

from noiserobust.cli.sweep import read
from noiserobust.config import TrainConfig
from noiserobust.models.registry import build_model
from noiserobust.train.recipe import build_method

EXAMPLES = 50_000
SGD_SECONDS, SAM_SECONDS = 4.2, 11.8  # of an epoch of ResNet-18
NOISE_SECONDS = (35 - SGD_SECONDS) / (EXAMPLES // 128) / 11_173_962  # of a step, for each weight
IMAGENET = {"vgg16_bn": (15.47e9, 138_365_992), "resnet18": (1.81e9, 11_689_512), "resnet50": (4.09e9, 25_557_032)}
"""Multiplications of an image of 224x224, and weights, of the networks of table 5 of the RWP paper (torchvision's)."""
IMAGES, IMAGE_BATCH, IMAGE_EPOCHS = 1_281_167, 256, 90


@cache
def size(model: str, classes: int) -> tuple[float, int]:
    """Return multiplications and additions of an image, and the number of weights."""
    with torch.device("meta"):
        network = build_model(model, {"num_classes": classes})
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 32, 32))
    return float(counter.get_total_flops()), sum(p.numel() for p in network.parameters())


def seconds(config: TrainConfig) -> float:
    """Return how long a training takes."""
    flops, weights = size(config.model, int(config.model_args.get("num_classes", 10)))
    passes = build_method(config.method).passes
    each = SGD_SECONDS if passes == 1 else SAM_SECONDS / 2
    epoch = passes * each * flops / size("resnet18", 10)[0]
    if config.method.adds_noise:
        epoch += EXAMPLES // config.batch_size * weights * NOISE_SECONDS
    return config.epochs * epoch


def imagenet_seconds(model: str, passes: int, noise: bool) -> float:
    """Return how long a training on ImageNet takes, as ``rwp/imagenet.py`` has it."""
    multiplications, weights = IMAGENET[model]
    each = (SGD_SECONDS if passes == 1 else SAM_SECONDS / 2) / EXAMPLES / (size("resnet18", 10)[0] / 2)
    epoch = passes * each * multiplications * IMAGES
    if noise:
        epoch += IMAGES // IMAGE_BATCH * weights * NOISE_SECONDS
    return IMAGE_EPOCHS * epoch


def cost(paths: Iterable[Path]) -> list[str]:
    """Return a table of grids and ImageNet: jobs and GPU hours, those shared by several counted once in the sum."""
    rows, known = [], {}
    for path in paths:
        sweep = read(path)
        hours = {name: seconds(job.config) / 3600 for name, job in sweep.jobs.items()}
        known |= hours
        rows.append([path.relative_to(HERE).as_posix(), str(len(hours)), f"{sum(hours.values()):,.0f}"])
    methods = ((1, False), (2, False), (2, True))  # SGD, SAM, RWP
    imagenet = {f"{m} {how}": imagenet_seconds(m, *how) / 3600 for m in IMAGENET for how in methods}
    known |= imagenet
    rows.append(["rwp/imagenet.sh", str(len(imagenet)), f"{sum(imagenet.values()):,.0f}"])
    rows.append(["all, what they share once", str(len(known)), f"{sum(known.values()):,.0f}"])
    return table(["grid", "trainings", "GPU hours"], rows)


def grids() -> list[Path]:
    """Return the grids of the papers' scale."""
    return [p for name in ("incorruptible", "rwp", "marwp", "was") for p in sorted((HERE / name).glob("*.yaml"))]


if __name__ == "__main__":
    print("\n".join(cost(grids())))
