"""Precision mode: as many chips, and of each as many of the examples, as an interval of a given half-width takes."""

from __future__ import annotations

import functools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noiserobust.data.arrays import ArrayData
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.draws import Draws
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.metrics import Metric
from noiserobust.evaluate.plan import Level, Plan, Subject
from noiserobust.executors import Executor, FailedJobsError
from noiserobust.executors.serial import Serial
from noiserobust.progress import progress_bar
from noiserobust.results.store import Row
from noiserobust.rng import Stream
from noiserobust.stats.twostage import PILOT, Design, Step, sampled_mean, strata_edges

Chip = tuple[float, float, int]
"""Value, its variance for measuring some of the examples only, and how many those were."""

Sample = tuple[int, int, int, int, int]
"""Which of the subjects, which level, the number of the draw, on how many examples, and on which of their blocks."""

_COST_EXAMPLES = 2048


@dataclass(frozen=True)
class Survey:
    """What a network does without noise.

    Args:
        values: of each example, shape (N,).
        order: of the examples, shape (N,): those that noise treats alike are neighbours.
    """

    values: NDArray[np.float64]
    order: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """The value of the network on all examples."""
        return float(self.values.mean())


class Samples:
    """Computes draws on a part of the examples.

    Args:
        draws: computes what is the same for all examples.
        surveys: of each of the subjects.
    """

    def __init__(self, draws: Draws, surveys: Sequence[Survey]) -> None:
        self.draws = draws
        self.surveys = list(surveys)

    @property
    def device(self) -> torch.device:
        """Where draws are computed."""
        return self.draws.device

    def __call__(self, sample: Sample) -> Row:
        """Return the row of a draw."""
        which, level, draw, number, place = sample
        survey, severity = self.surveys[which], self.draws.plan.levels[level]
        population, metric = len(survey.order), sampled_metric(self.draws.forward)
        examples = survey.order[block(self._stream(which), population, number, place)]
        with self.draws.on_chip(which, severity.noise, draw) as (network, _):
            found = self.draws.forward.each(network, _of(metric), torch.from_numpy(examples)).numpy()
        change, variance = sampled_mean(found - survey.values[examples], population)
        row = self.draws.row(which, severity, draw, metric.name, survey.mean + change, number)
        return {**row, "of_examples": population, "sampling_std": math.sqrt(variance)}

    def _stream(self, which: int) -> Stream:
        return Stream(self.draws.plan.seed, "blocks", self.draws.subjects[which].train_seed)


def survey(draws: Draws, which: int) -> Survey:
    """Return what the network of one of the subjects does without noise."""
    metric = _of(sampled_metric(draws.forward))

    def value_and_margin(scores: Tensor, labels: Tensor) -> Tensor:
        scores = scores.double()
        right = scores.gather(1, labels[:, None])
        best = scores.scatter(1, labels[:, None], -torch.inf).max(dim=1).values
        return torch.stack([metric(scores, labels).double(), right[:, 0] - best], dim=1)

    with draws.on_chip(which, None, 0) as (network, _):
        found = draws.forward.each(network, value_and_margin, torch.arange(len(_arrays(draws.forward)))).numpy()
    return Survey(found[:, 0], _order(found[:, 1]))


def _order(margins: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order examples by how far the score of the right class is above all others.

    From those that are just wrong to those that are clearly wrong, on to those that are clearly right and to those that
    are just right: noise changes the ends, to better and to worse, and there is no leap between neighbours.
    """
    right = margins > 0
    return np.lexsort((-margins, right))


def block(stream: Stream, population: int, number: int, place: int) -> NDArray[np.int64]:
    """Return the positions of a block, one in each stratum, in order.

    Blocks of one number that follow each other share no example until all have been used, but for a remainder.

    Args:
        stream: for all blocks.
        population: how many examples there are.
        number: how many are in the block.
        place: of the block among those of this number.
    """
    turn, place = divmod(place, population // number)
    positions: NDArray[np.int64] = _turn(stream.child(number, turn), population, number)[place]
    return positions


@functools.lru_cache(maxsize=4)
def _turn(stream: Stream, population: int, number: int) -> NDArray[np.int64]:
    """Return blocks that share no example, shape (N // n, n)."""
    edges = strata_edges(population, number)
    stratum = np.repeat(np.arange(number), np.diff(edges))
    # In random order within each stratum, the strata in order.
    shuffled = np.lexsort((stream.permutation(population), stratum))
    places: NDArray[np.int64] = shuffled[edges[:-1] + np.arange(population // number)[:, None]]
    return places


def sampled_metric(forward: Forward) -> Metric:
    """Return the one metric that is measured.

    Raises:
        InvalidValueError: if there are several, it is not a mean over examples, or data are not arrays.
    """
    _arrays(forward)
    if len(forward.metrics) > 1 or forward.metrics[0].each is None:
        raise InvalidValueError(
            "Expected `metrics` to be exactly one of accuracy, top5 and loss with `until`, but got "
            f"{', '.join(m.name for m in forward.metrics)}"
        )
    return forward.metrics[0]


def _of(metric: Metric) -> Callable[[Tensor, Tensor], Tensor]:
    assert metric.each is not None
    return metric.each


def _arrays(forward: Forward) -> ArrayData:
    if not isinstance(forward.data, ArrayData):
        raise InvalidValueError("Expected data of arrays for `until`, but got a DataLoader")
    return forward.data


def chip_cost(draws: Draws) -> float:
    """Return what a chip costs beside its examples, as the number of examples that take as long.

    Measured, and rounded to a power of four, so that what follows from it is seldom another in another run.
    """
    plan, forward = draws.plan, draws.forward
    noise = max(plan.levels, key=lambda level: level.value).noise
    population, metric = len(_arrays(forward)), sampled_metric(forward)
    numbers = [min(n, population) for n in (_COST_EXAMPLES // 16, _COST_EXAMPLES)]
    seconds: list[list[float]] = [[], []]
    for _ in range(3):
        for number, times in zip(numbers, seconds, strict=True):
            start = time.perf_counter()
            with draws.on_chip(0, noise, 0) as (network, _):
                forward.each(network, _of(metric), torch.arange(number))
            times.append(time.perf_counter() - start)
    few, many = (min(times) for times in seconds)
    if numbers[1] == numbers[0] or many <= few:
        return 1.0
    each = (many - few) / (numbers[1] - numbers[0])
    return float(4 ** max(round(math.log(max(few / each - numbers[0], 1.0), 4)), 0))


class _Cell:
    """One of the subjects at one level: the chips that are known, and those that are needed next."""

    def __init__(self, which: int, level: int, design: Design, known: Mapping[int, Chip]) -> None:
        self.which, self.level, self.design = which, level, design
        self.known = dict(known)
        self.chips: list[Chip] = []
        self._samples: deque[Sample] = deque()
        self._places: Counter[int] = Counter()
        self.step: Step | None = None
        self._advance()

    @property
    def expected(self) -> int:
        """How many chips there will be in the end, as far as is known."""
        return self.step.expected if self.step else len(self.chips)

    def samples(self) -> Iterator[Sample]:
        """Yield what is to be computed, as far as is known."""
        while self._samples:
            yield self._samples.popleft()

    def add(self, draw: int, chip: Chip) -> None:
        """Take note of a chip."""
        self.known[draw] = chip
        self._advance()

    def _advance(self) -> None:
        while self.step is None or all(draw in self.known for draw in range(len(self.chips), self.step.until)):
            if self.step:
                self.chips += [self.known[draw] for draw in range(len(self.chips), self.step.until)]
            self.step = self.design.next(self.chips)
            if self.step is None:
                return
            for draw in range(len(self.chips), self.step.until):
                place = self._places[self.step.images]
                self._places[self.step.images] += 1
                if draw not in self.known:
                    self._samples.append((self.which, self.level, draw, self.step.images, place))


def run_until(
    subjects: Sequence[Subject],
    forward: Forward,
    plan: Plan,
    cost: Callable[[Callable[[], float]], float],
    *,
    done: Sequence[Row] = (),
    keep: Callable[[Row], None] = lambda row: None,
    progress: bool = False,
    executor: Executor | None = None,
) -> list[Row]:
    """Evaluate until the mean over chips of each of the weights is known well enough at each level.

    Which chips and examples are next follows from the values of those before, in their order: the result does not
    depend on where they were computed, or on interruptions.

    Args:
        subjects: trained weights.
        forward: data, device, precision.
        plan: noise, levels, half-width.
        cost: returns what a chip costs, in examples: what is known of it, or what the function it is given measures.
        done: rows of an earlier run, not computed again.
        keep: called with each new row as soon as it is known.
        progress: whether to show progress.
        executor: where draws are computed; by default here, one after the other.

    Returns:
        All rows.

    Raises:
        InvalidValueError: if data, weights or noise do not fit together.
        FailedJobsError: if draws failed for another reason, after all others are computed.
    """
    draws, population = Draws(subjects, forward, plan), len(_arrays(forward))
    design = _design(draws, cost(lambda: chip_cost(draws)))
    surveys = [survey(draws, which) for which in range(len(subjects))]
    _check_sampled(done, population)
    rows, cells = list(done), _cells(draws, design, done)
    for which, subject in enumerate(subjects):
        for level in plan.levels:
            if not level.noise and not any(_is_of(row, subject, level) for row in rows):
                clean = draws.row(which, level, 0, forward.metrics[0].name, surveys[which].mean, population)
                rows.append({**clean, "of_examples": population, "sampling_std": 0.0})
                keep(rows[-1])

    def samples() -> Iterator[Sample | None]:
        while unfinished := [cell for cell in cells.values() if cell.step]:
            upcoming = (sample for cell in unfinished for sample in cell.samples())
            yield next(upcoming, None)

    known = sum(len(cell.known) for cell in cells.values())
    with progress_bar(_expected(cells.values()), "draw", done=known, shown=progress) as bar:
        for sample, row in (executor or Serial()).map(Samples(draws, surveys), samples()):
            keep(row)
            rows.append(row)
            cells[sample[:2]].add(sample[2], _chip(row))
            bar.total = _expected(cells.values())
            bar.update()
    if lost := [(which, level, len(cell.chips)) for (which, level), cell in cells.items() if cell.step]:
        raise FailedJobsError(dict.fromkeys(lost, "it was never done"))
    return rows


def rehearse_until(
    subjects: Sequence[Subject], forward: Forward, plan: Plan, done: Sequence[Row], cost: float | None
) -> tuple[dict[float, tuple[int, int]], float, int]:
    """Return what is expected of :func:`run_until`, from what is done and a pilot of the first of the weights.

    Args:
        subjects: trained weights.
        forward: data, device, precision.
        plan: noise, levels, half-width.
        done: rows of an earlier run.
        cost: what a chip costs, if it is known.

    Returns:
        For each noisy level how many chips on how many examples each, for the first of the weights; the seconds for all
        that is not done; how many draws those are.
    """
    draws = Draws(subjects, forward, plan)
    design = _design(draws, chip_cost(draws) if cost is None else cost)
    begin = time.perf_counter()
    samples = Samples(draws, [survey(draws, 0)])
    surveyed = time.perf_counter()
    cells = _cells(draws, design, done)
    expected: dict[float, tuple[int, int]] = {}
    to_do, passed, left = 0, 0.0, 0.0
    for i, level in enumerate(plan.levels):
        if not level.noise:
            to_do += sum(not any(_is_of(row, subject, level) for row in done) for subject in subjects)
            continue
        pilot = _Cell(0, i, design, cells[0, i].known)
        while pilot.step and len(pilot.chips) < min(PILOT, design.most):
            for sample in list(pilot.samples()):
                pilot.add(sample[2], _chip(samples(sample)))
                passed += design.chip_cost + sample[3]
        images = pilot.step.images if pilot.step else pilot.chips[-1][2]
        expected[level.value] = pilot.expected, images
        for which in range(len(subjects)):
            cell = cells[which, i]
            there = len(cell.known)
            chips = there if cell.step is None else max(cell.expected, pilot.expected, there)
            to_do += chips - there
            left += (chips - there) * (design.chip_cost + images)
    each = (time.perf_counter() - surveyed) / passed if passed else (surveyed - begin) / len(samples.surveys[0].order)
    return expected, len(subjects) * (surveyed - begin) + left * each, to_do


def _design(draws: Draws, cost: float) -> Design:
    assert draws.plan.until is not None
    largest = 100.0 if sampled_metric(draws.forward).percent else 0.0
    population = len(_arrays(draws.forward))
    return Design(draws.plan.until, population, cost, draws.plan.draws, largest_change=largest)


def _cells(draws: Draws, design: Design, done: Sequence[Row]) -> dict[tuple[int, int], _Cell]:
    cells = {}
    for which, subject in enumerate(draws.subjects):
        for i, level in enumerate(draws.plan.levels):
            if level.noise:
                known = {row["draw"]: _chip(row) for row in done if _is_of(row, subject, level)}
                cells[which, i] = _Cell(which, i, design, known)
    return cells


def _expected(cells: Iterable[_Cell]) -> int:
    """Return how many chips there will be; levels that are not begun are taken to need as many as the neediest."""
    begun = [cell.expected for cell in cells if cell.chips]
    return sum(begun) + sum(max(begun, default=cell.expected) for cell in cells if not cell.chips)


def _check_sampled(rows: Sequence[Row], population: int) -> None:
    for row in rows:
        if row.get("of_examples") != population:
            raise InvalidValueError(
                f"Expected each draw in `out` to be one of some of {population} examples, but draw {row['draw']} of "
                f"{row['weights']} at level {row['level']:g} is of {row.get('of_examples', 'another kind')}"
            )


def _is_of(row: Row, subject: Subject, level: Level) -> bool:
    identity = row["method"], row["train_seed"], row["weights"], row["level"]
    return identity == (subject.method, subject.train_seed, subject.weights, level.value)


def _chip(row: Row) -> Chip:
    return row["value"], row["sampling_std"] ** 2, row["n_examples"]
