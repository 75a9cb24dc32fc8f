"""Do intervals of precision mode hold their level, and what do they save? Repeated evaluations of a trained network.

    python simulate.py bank WEIGHTS DATA bank.npz     # each chip on all images, once
    python simulate.py coverage bank.npz              # evaluations that draw from these chips and images

The chips of the bank are the population: its mean is known, and an evaluation draws chips from it, with replacement.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

import noiserobust as nr
from noiserobust.data.registry import load_data
from noiserobust.evaluate.api import make_forward
from noiserobust.evaluate.draws import Draws
from noiserobust.evaluate.metrics import METRICS
from noiserobust.evaluate.plan import Plan, Subject, parse_levels
from noiserobust.evaluate.precision import Survey, block, survey
from noiserobust.models.registry import build_model
from noiserobust.models.weights import fit_weights, read_weights
from noiserobust.stats.twostage import Design, chips_for, sampled_mean

CHIPS, LEVELS = 250, (0.03, 0.06, 0.1)
REPETITIONS, CHIP_COST = 2000, 16.0
HALF_WIDTHS = {0.03: 0.3, 0.06: 0.3, 0.1: 0.5}


def bank(weights: Path, data: str, out: Path) -> None:
    """Run each chip on all images, and keep which are right."""
    file = read_weights(weights)
    model = build_model("resnet20")
    fit_weights(model, file)
    images = load_data(data, "test")
    forward = make_forward(images, file.metadata["normalize"], "cpu", "bf16", 128)
    noise = nr.GaussianNoise(LEVELS[0])
    plan = Plan(noise, parse_levels(noise, LEVELS), CHIPS, 0)
    draws = Draws([Subject("sgd", 0, weights.name, lambda: model)], forward, plan)
    hits, everything = METRICS["accuracy"].each, torch.arange(len(images))
    assert hits is not None
    clean = survey(draws, 0)
    right = np.zeros((len(LEVELS), CHIPS, len(images)), dtype=bool)
    for i, level in enumerate(plan.levels):
        for draw in range(CHIPS):
            with draws.on_chip(0, level.noise, draw) as (network, _):
                right[i, draw] = forward.each(network, hits, everything).numpy() > 0
    np.savez_compressed(out, clean=clean.values, order=clean.order, right=np.packbits(right, axis=-1))


def coverage(path: Path) -> None:
    """Print how often the interval holds the mean of the bank, and what it took."""
    file = np.load(path)
    clean = Survey(file["clean"], file["order"])
    population = len(clean.order)
    for level, chips in zip(LEVELS, np.unpackbits(file["right"], axis=-1)[..., :population], strict=True):
        right = 100.0 * chips
        values = right.mean(axis=1)
        design = Design(HALF_WIDTHS[level], population, CHIP_COST, largest_change=100.0)
        inside, drawn, passes, spreads = 0, [], [], []
        for repetition in range(REPETITIONS):
            found = evaluated(design, right, clean, repetition)
            estimate = design.summary(found)
            inside += abs(estimate.mean - values.mean()) <= estimate.half_width
            drawn.append(len(found))
            passes.append(sum(images for *_, images in found))
            spreads.append(estimate.chip_variance)
        plain = chips_for(design.half_width, values.var(), design.level) * population
        print(
            f"sigma {level}: mean {values.mean():.2f}, sigma_chip {values.std():.2f}, half-width {design.half_width}: "
            f"covered {100 * inside / REPETITIONS:.1f} %, sigma_chip found {np.sqrt(np.mean(spreads)):.2f}, "
            f"{np.mean(drawn):.0f} chips, {np.mean(passes):,.0f} passes, plain {plain:,} "
            f"({plain / np.mean(passes):.1f} x; {plain / (np.mean(passes) + population):.1f} x with the clean pass)",
            flush=True,
        )


def evaluated(design: Design, right: np.ndarray, clean: Survey, repetition: int) -> list[tuple[float, float, int]]:
    """Return the chips of one evaluation."""
    stream = nr.Stream(repetition, "coverage")
    rng = stream.child("chips").generator()
    chips: list[tuple[float, float, int]] = []
    while step := design.next(chips):
        for _ in range(len(chips), step.until):
            place = sum(images == step.images for *_, images in chips)
            examples = clean.order[block(stream, len(clean.order), step.images, place)]
            change, variance = sampled_mean(
                right[rng.integers(len(right)), examples] - clean.values[examples], len(clean.order)
            )
            chips.append((clean.mean + change, variance, step.images))
    return chips


if __name__ == "__main__":
    if sys.argv[1] == "bank":
        bank(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
    else:
        coverage(Path(sys.argv[2]))
