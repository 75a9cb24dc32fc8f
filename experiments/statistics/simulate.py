"""Simulated coverage of every interval that `noiserobust.stats` offers.

python simulate.py [--repetitions 2000] [--out coverage.csv]

A[m, k] = seed_m + noise_mk: train seeds are normal, chips normal or skewed (a gamma of shape 2 with its tail towards
low values, as accuracies have it), and sigma_seed = sigma_noise = 1, with 50 chips a train seed. "wider" is outside of
the model: the chips of worse trainings spread wider, with a standard deviation of exp(-0.4 seed_m). What is covered is
the true value, from the distributions themselves.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from noiserobust import stats
from noiserobust.stats.tails import ChipSample

SEEDS, CHIPS, SPREAD = (3, 5, 10), 50, 1.0
SPECS = {"yield of 50%": 0.5, "yield of 80%": 0.2, "yield of 95%": 0.05}
LEVELS = np.array([0.0, 0.05, 0.1, 0.15, 0.2])
ALLOWED = 5.0

Interval = tuple[str, float, float, float]


def chips(kind: str, offsets: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Chips of trainings with these offsets."""
    if kind == "skewed":
        return offsets - (rng.gamma(2.0, size=shape) - 2) / np.sqrt(2)
    spread = np.exp(-0.4 * offsets) if kind == "wider" else 1.0
    return offsets + spread * rng.normal(size=shape)


class Truth:
    """What a chip of any training has, from 10 million of them."""

    def __init__(self, kind: str) -> None:
        rng = np.random.default_rng(1)
        everything = np.sort(chips(kind, rng.normal(0, SPREAD, 10_000_000), (10_000_000,), rng))
        self.specs = {name: float(np.quantile(everything, q)) for name, q in SPECS.items()}
        self.quarter = float(np.quantile(everything, 0.25))
        self.quantile = float(np.quantile(everything, 0.05))
        self.cvar = float(everything[:500_000].mean())
        one = np.sort(chips(kind, np.zeros(1), (10_000_000,), rng))  # chips of one training, of which the offset is 0
        self.one_quantile = float(np.quantile(one, 0.05))
        self.one_specs = {name: float(np.quantile(one, q)) for name, q in SPECS.items()}


def over_seeds(
    kind: str, seeds: int, truth: Truth, rng: np.random.Generator
) -> Iterator[tuple[str, float, float, float]]:
    """One repetition: the name of each interval, what it has to cover, and its ends."""
    offsets = rng.normal(0, SPREAD, (seeds, 1))
    a = chips(kind, offsets, (seeds, CHIPS), rng)
    means = a.mean(axis=1)
    yield "mean", 0.0, *stats.mean_interval(means)
    if kind != "wider":
        yield "seed std", float(np.hypot(SPREAD, CHIPS**-0.5)), *stats.std_interval(stats.seed_std(a), seeds - 1)
    if kind == "normal":
        yield "noise std", 1.0, *stats.std_interval(stats.noise_std(a), seeds * (CHIPS - 1))
    sample = ChipSample(a)  # what chip_yield, quantile and cvar are made of
    for name, spec in truth.specs.items():
        found = sample.chip_yield(spec)
        yield name, 1 - SPECS[name], found.low, found.high
    found = sample.quantile(0.05)
    yield "5% quantile", truth.quantile, found.low, found.high
    found = sample.cvar(0.05)
    yield "5% CVaR", truth.cvar, found.low, found.high

    # Differences between methods have a seed and a chip part as well; they are moved so that 75% are above 0.
    shift = -truth.quarter
    compared = stats.compare(a + shift, np.zeros_like(a))
    yield "paired difference", shift, compared.difference.low, compared.difference.high
    yield "probability of improvement", 0.75, compared.improvement.low, compared.improvement.high

    # Curves that fall with the square of the level, by 250 times it on average; each seed and chip has a slope.
    drops = (250 + 50 * means[:, None]) * LEVELS**2
    found = stats.tolerable_level(LEVELS, drops, ALLOWED)
    yield "tolerable level", float(np.interp(ALLOWED, 250 * LEVELS**2, LEVELS)), found.low, found.high
    found = stats.curve_area(LEVELS, -drops)
    area = -float(np.trapezoid(250 * LEVELS**2, LEVELS)) / LEVELS[-1]
    yield "area under the curve", area, found.low, found.high


def one_file(
    kind: str, number: int, truth: Truth, rng: np.random.Generator
) -> Iterator[tuple[str, float, float, float]]:
    """One repetition for the chips of one weight file."""
    a = chips(kind, np.zeros((1, 1)), (1, number), rng)
    for name, spec in truth.one_specs.items():
        found = stats.chip_yield(a, spec)
        yield f"one file: {name}", 1 - SPECS[name], found.low, found.high
    # A yield as likely anywhere between 50% and 100%: what the interval covers on average.
    share = rng.uniform(0.5, 1)
    low, high = stats.share_interval(float(rng.binomial(number, share)), number)
    yield "one file: yields of 50 to 100%", share, low, high
    if number > 100:
        found = stats.quantile(a, 0.05)
        yield "one file: 5% quantile", truth.one_quantile, found.low, found.high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("coverage.csv"))
    arguments = parser.parse_args()
    rows = []
    for kind in ("normal", "skewed", "wider"):
        truth = Truth(kind)
        settings = [(f"{s} seeds, {CHIPS} chips", over_seeds, s) for s in SEEDS]
        settings += [(f"{n} chips", one_file, n) for n in (50, 120, 250) if kind != "wider"]
        for name, simulate, number in settings:
            rng = np.random.default_rng([3, number])
            below: dict[str, int] = defaultdict(int)
            above: dict[str, int] = defaultdict(int)
            for _ in range(arguments.repetitions):
                for interval, true, low, high in simulate(kind, number, truth, rng):
                    below[interval] += true < low or np.isnan(low)
                    above[interval] += true > high or np.isnan(high)
            for interval in below:
                missed = [100 * m[interval] / arguments.repetitions for m in (below, above)]
                rows.append([interval, kind, name, round(100 - sum(missed), 2), *(round(m, 2) for m in missed)])
                print(*rows[-1], sep=", ", flush=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["interval", "chips", "sample", "coverage", "true_below", "true_above"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
