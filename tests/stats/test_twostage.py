"""Two-stage sampling of chips and images gives the mean over chips, and an interval that holds its level."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats

from noiserobust.errors import InvalidValueError
from noiserobust.stats.twostage import PILOT, Design, Estimate, chips_for, estimate, sampled_mean, strata_edges

Array = NDArray[np.float64]


class World:
    """Chips and images of which everything is known.

    Image i is right without noise if its margin m_i > 0, and on chip c if m_i - drop + spread z_c + own e_ci > 0, with
    standard normal z and e. Half of the margin is seen, as by a network whose scores say only a part.
    """

    def __init__(self, drop: float, spread: float, own: float = 0.5, images: int = 2000) -> None:
        rng = np.random.default_rng(images)
        self.drop, self.spread, self.own, self.images = drop, spread, own, images
        self.margin = rng.normal(1.0, 1.0, images)
        self.clean = 100.0 * (self.margin > 0)
        seen = np.where(self.margin > 0, 1, -1) * np.abs(self.margin + rng.normal(0, 0.3, images))
        self.order = np.lexsort((-seen, seen > 0))  # just wrong, wrong, right, just right

    @cache  # noqa: B019 - worlds live as long as the tests
    def mean(self) -> float:
        return 100 * float(stats.norm.cdf((self.margin - self.drop) / math.hypot(self.spread, self.own)).mean())

    @cache  # noqa: B019
    def chip_std(self) -> float:
        """Return the standard deviation of what a chip has on all images, its own part in each image included."""

        def square(z: float) -> float:
            right = stats.norm.cdf((self.margin - self.drop + self.spread * z) / self.own)
            own = float((right * (1 - right)).mean()) / self.images
            return float(stats.norm.pdf(z)) * ((100 * float(right.mean()) - self.mean()) ** 2 + 1e4 * own)

        return math.sqrt(integrate.quad(square, -8, 8)[0])

    def chip(self, block: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float, int]:
        noise = self.spread * rng.normal() + self.own * rng.normal(size=block.size)
        right = 100.0 * (self.margin[block] - self.drop + noise > 0)
        change, variance = sampled_mean(right - self.clean[block], self.images)
        return self.clean.mean() + change, variance, block.size

    def blocks(self, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        edges = strata_edges(self.images, number)
        stratum = np.repeat(np.arange(number), np.diff(edges))
        shuffled = np.lexsort((rng.random(self.images), stratum))  # within strata
        return self.order[shuffled[edges[:-1] + np.arange(self.images // number)[:, None]]]


# The standard deviations between chips are 0.9, 2.3 and 8 points.
WORLDS = {"weak": World(0.1, 0.022), "middle": World(0.3, 0.073), "strong": World(0.8, 0.23)}


def sampled(world: World, design: Design, rng: np.random.Generator) -> list[tuple[float, float, int]]:
    """Return the chips of one evaluation, with blocks in turn."""
    chips: list[tuple[float, float, int]] = []
    blocks: dict[int, list[NDArray[np.int64]]] = {}
    while step := design.next(chips):
        while len(chips) < step.until:
            left = blocks.setdefault(step.images, [])
            if not left:
                left += list(world.blocks(step.images, rng))
            chips.append(world.chip(left.pop(), rng))
    return chips


@given(st.integers(1, 5000), st.data())
def test_strata_are_as_equal_as_they_can_be(population: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, population))
    sizes = np.diff(strata_edges(population, n))
    assert sizes.sum() == population
    assert set(sizes) <= {population // n, -(-population // n)}


def test_all_images_give_their_mean_without_error() -> None:
    changes = np.random.default_rng(0).normal(size=77)
    assert sampled_mean(changes, 77) == (pytest.approx(changes.mean(), rel=1e-12), 0.0)


@pytest.mark.parametrize("number", [40, 300, 667])
@pytest.mark.slow
def test_mean_and_variance_of_a_block_are_unbiased(number: int) -> None:
    rng = np.random.default_rng(0)
    # Smooth but for noise within strata, so that neighbouring strata tell the variance within them.
    changes = np.sin(np.linspace(0, 3, 2000)) + rng.normal(0, 0.3, 2000)
    world = World(0, 0)
    world.order = np.arange(2000)
    found = np.array(
        [sampled_mean(changes[b], 2000) for _ in range(12000 * number // 2000) for b in world.blocks(number, rng)]
    )
    error = found[:, 0].std() / math.sqrt(len(found))
    assert found[:, 0].mean() == pytest.approx(changes.mean(), abs=5 * error)
    # 12,000 blocks know the variance to 1.3 %; a standard deviation that is 5 % off would be seen.
    assert found[:, 1].mean() == pytest.approx(found[:, 0].var(), rel=0.06)


def test_chips_on_all_images_have_students_interval() -> None:
    values = np.random.default_rng(1).normal(80, 3, 25)
    found = estimate(values, np.zeros(25), np.full(25, 500), 500, 0.95)
    low, high = stats.t.interval(0.95, 24, loc=values.mean(), scale=stats.sem(values))
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-9)
    assert found.chip_variance == pytest.approx(values.var(ddof=1), rel=1e-6)
    # For one variance its interval is that of the chi-square distribution.
    assert found.chip_variance_interval == pytest.approx(
        [24 * values.var(ddof=1) / stats.chi2.ppf(p, 24) for p in (0.975, 0.025)], rel=1e-6
    )
    assert found.image_variance == 0


def test_the_images_part_is_subtracted() -> None:
    rng = np.random.default_rng(2)
    values, variances = rng.normal(80, 3, 400), rng.uniform(1, 5, 400)
    found = estimate(values, variances, np.full(400, 100), 10_000, 0.95)
    assert found.chip_variance == pytest.approx(values.var(ddof=1) - variances.mean(), rel=1e-6)
    assert found.image_variance == pytest.approx(variances.mean() * 100 / 0.99, rel=1e-9)


@pytest.mark.thorough
def test_components_are_found_for_chips_on_unlike_numbers_of_images() -> None:
    rng = np.random.default_rng(3)
    images = np.repeat([50, 400, 2000], [20, 40, 60])
    within = 900.0 * (1 / images - 1 / 2000)
    found = [estimate(80 + rng.normal(0, np.sqrt(4 + within)), within, images, 2000, 0.95) for _ in range(2000)]
    assert np.mean([f.mean for f in found]) == pytest.approx(80, abs=0.02)
    assert np.mean([f.chip_variance for f in found]) == pytest.approx(4, rel=0.03)
    assert np.mean([f.image_variance for f in found]) == pytest.approx(900, rel=1e-9)
    # The error that is stated is that which is made, and chips that say more count for more.
    assert np.mean([f.chip_variance_error for f in found]) == pytest.approx(
        np.std([f.chip_variance for f in found]), rel=0.1
    )
    assert np.mean([low <= 4 <= high for low, high in (f.chip_variance_interval for f in found)]) == pytest.approx(
        0.95, abs=0.015
    )
    best = math.sqrt(1 / np.sum(1 / (4 + within)))
    assert np.std([f.mean for f in found]) == pytest.approx(best, rel=0.06)
    assert np.mean([abs(f.mean - 80) <= f.half_width for f in found]) == pytest.approx(0.95, abs=0.015)


def test_chips_that_all_agree_have_no_interval_left() -> None:
    found = estimate([80.0] * 20, [0.0] * 20, [50] * 20, 1000, 0.95)
    assert (found.mean, found.half_width, found.chip_variance) == (80.0, 0.0, 0.0)


def test_one_chip_has_none() -> None:
    assert estimate([80.0], [1.0], [50], 1000, 0.95).half_width == math.inf


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.slow
def test_components_of_a_world_are_found(name: str) -> None:
    world, rng = WORLDS[name], np.random.default_rng(5)

    def found() -> Estimate:
        chips = [world.chip(b, rng) for _ in range(200) for b in world.blocks(400, rng)]
        return Design(1.0, world.images, 1.0).summary(chips)

    several = [found() for _ in range(8)]
    means, variances = np.array([(f.mean, f.chip_variance) for f in several]).T
    assert means.mean() == pytest.approx(world.mean(), abs=4 * means.std(ddof=1) / 8**0.5)
    assert variances.mean() == pytest.approx(world.chip_std() ** 2, rel=0.1, abs=4 * variances.std(ddof=1) / 8**0.5)


def coverage(world: World, half_width: float, repetitions: int) -> tuple[float, float, float]:
    """Return the share of intervals that hold the mean, the mean number of passes, and of passes on all images."""
    design, inside, passes, plain = Design(half_width, world.images, 16.0, largest_change=100.0), 0, [], []
    for repetition in range(repetitions):
        chips = sampled(world, design, np.random.default_rng((repetition, 7)))
        found = design.summary(chips)
        assert found.half_width <= half_width
        inside += abs(found.mean - world.mean()) <= found.half_width
        passes.append(sum(images for *_, images in chips))
        plain.append(chips_for(found.half_width, world.chip_std() ** 2, 0.95) * world.images)
    return inside / repetitions, float(np.mean(passes)), float(np.mean(plain))


@pytest.mark.no_cover  # the same lines as in other tests, thousands of times
@pytest.mark.parametrize(
    ("name", "half_width"),
    [
        pytest.param("weak", 0.4, marks=pytest.mark.thorough),
        ("middle", 0.5),
        pytest.param("strong", 1.2, marks=pytest.mark.thorough),
    ],
)
@pytest.mark.slow
def test_intervals_of_stopped_evaluations_hold_their_level(name: str, half_width: float) -> None:
    covered, _, _ = coverage(WORLDS[name], half_width, 200)
    assert covered == pytest.approx(0.95, abs=0.05)


class Steady(World):
    """A network that is right 99 times in 100, and changes its mind on one image in a thousand or two."""

    def __init__(self, drop: float, spread: float) -> None:
        super().__init__(drop, spread, own=0.05, images=10_000)
        rng = np.random.default_rng(1)
        self.margin = rng.normal(2.4, 1.0, self.images)
        self.clean = 100.0 * (self.margin > 0)
        seen = np.where(self.margin > 0, 1, -1) * np.abs(self.margin + rng.normal(0, 0.05, self.images))
        self.order = np.lexsort((-seen, seen > 0))


@pytest.mark.parametrize(("drop", "spread"), [(0.05, 0.01), (0.1, 0.02)])
@pytest.mark.parametrize("half_width", [0.05, 0.1])
@pytest.mark.slow
def test_rare_changes_are_waited_for(drop: float, spread: float, half_width: float) -> None:
    world, errors = Steady(drop, spread), []
    design = Design(half_width, world.images, 16.0, largest_change=100.0)
    for repetition in range(60):
        found = design.summary(sampled(world, design, np.random.default_rng((repetition, 3))))
        assert 0 < found.half_width <= half_width
        errors.append((found.mean - world.mean()) / found.half_width)
    assert np.mean(np.abs(errors) <= 1) >= 0.85
    assert abs(np.mean(errors)) < 0.25  # of a half-width: not drawn to the network without noise


def test_chips_of_which_none_changes_an_image_have_an_interval_still() -> None:
    design = Design(0.1, 10_000, 16.0, largest_change=100.0)
    chips: list[tuple[float, float, int]] = []
    while step := design.next(chips):
        chips += [(80.0, 0.0, step.images)] * (step.until - len(chips))
    found, seen = design.summary(chips), sum(images for *_, images in chips)
    assert found.half_width == pytest.approx(300 / seen)  # the rule of three
    assert seen >= 12 * 100 / 0.1
    unknown, chips = Design(0.1, 1000, 16.0), []  # without a largest change: until all images are run
    while step := unknown.next(chips):
        chips += [(80.0, 0.0, step.images)] * (step.until - len(chips))
    assert chips[-1][2] == 1000


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "half_width"), [("weak", 0.4), ("middle", 0.6), ("strong", 1.5)])
def test_coverage_over_2000_evaluations(name: str, half_width: float) -> None:
    world = WORLDS[name]
    covered, passes, plain = coverage(world, half_width, 2000)
    assert covered == pytest.approx(0.95, abs=0.015)  # three standard errors
    if world.chip_std() >= 1.5:
        assert plain >= 5 * passes


def test_an_evaluation_stops_as_soon_as_it_may_and_not_before() -> None:
    design = Design(1.0, 1000, 16.0)
    first = design.next([])
    assert first is not None
    assert (first.until, first.expected) == (PILOT, PILOT)
    assert design.next([(80.0, 0.1, 100)] * PILOT) is None
    wide = [(80.0 + 10 * (-1) ** k, 1.0, 100) for k in range(PILOT)]
    step = design.next(wide)
    assert step is not None
    assert PILOT < step.until <= step.expected
    assert Design(1.0, 1000, 16.0, most=PILOT).next(wide) is None
    allowed = Design(1.0, 1000, 16.0, most=PILOT + 1).next(wide)
    assert allowed is not None
    assert allowed.until == PILOT + 1


def test_fewer_chips_than_a_pilot_may_be_allowed() -> None:
    design = Design(0.1, 1000, 16.0, most=5)
    step = design.next([])
    assert step is not None
    assert step.until == 5
    assert design.next([(80.0 + k, 1.0, 100) for k in range(5)]) is None


@given(st.floats(2, 30), st.floats(10, 1000), st.sampled_from([1.0, 16.0, 256.0, 4096.0]))
def test_the_number_of_images_is_the_best_one(chip_std: float, image_variance: float, cost: float) -> None:
    # Cochran, section 10.6: n = sqrt(cost of a chip / cost of an image * variance of images / variance of chips).
    rng = np.random.default_rng(0)
    values = stats.zscore(rng.normal(size=200), ddof=1) * math.hypot(chip_std, math.sqrt(image_variance / 100 * 0.99))
    design = Design(0.01, 10_000, cost, most=10**9)
    step = design.next([(80 + v, image_variance / 100 * 0.99, 100) for v in values])
    assert step is not None
    ideal = min(max(math.sqrt(cost * image_variance) / chip_std, 32), 10_000)
    choices = sorted({10_000 // b for b in range(1, 313)})
    place = np.searchsorted(choices, ideal)
    near = choices[max(place - 2, 0) : place + 2]

    def price(n: int) -> float:
        return (chip_std**2 + (1 / n - 1 / 10_000) * image_variance) * (cost + n)

    assert price(step.images) <= min(map(price, near)) * 1.001


@pytest.mark.parametrize("chip_variance", [0.0, 0.01, 2.0, 40.0])
@pytest.mark.parametrize("half_width", [0.05, 0.4, 30.0])
def test_the_number_of_chips_of_the_plain_design(chip_variance: float, half_width: float) -> None:
    def half(chips: int) -> float:
        return float(stats.t.ppf(0.975, chips - 1)) * math.sqrt(chip_variance / chips)

    chips = chips_for(half_width, chip_variance, 0.95)
    assert half(chips) <= half_width
    assert chips == 2 or half(chips - 1) > half_width


@pytest.mark.parametrize("half_width", [0, -1, math.nan, math.inf])
def test_a_half_width_is_a_positive_number(half_width: float) -> None:
    with pytest.raises(InvalidValueError, match="half_width"):
        Design(half_width, 1000, 1.0)


def test_blocks_of_the_simulation_use_every_image() -> None:
    used = Counter(np.concatenate(WORLDS["weak"].blocks(50, np.random.default_rng(0))).tolist())
    assert set(used.values()) == {1}
    assert len(used) == 2000
