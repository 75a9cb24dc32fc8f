"""Monte-Carlo over trained weights, noise levels and noise draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from noiserobust.errors import InvalidValueError, check_choice, check_integer
from noiserobust.evaluate.calibration import Calibration, Calibrator
from noiserobust.evaluate.forward import Around, Forward
from noiserobust.evaluate.networks import Network
from noiserobust.noise.base import CLEAN, Noise, chip_stream
from noiserobust.noise.sites import Select, Site, find_sites
from noiserobust.noise.timed import TimedNoise
from noiserobust.perturb import noisy_weights
from noiserobust.results.store import Row, as_frame
from noiserobust.results.summary import summarize
from noiserobust.rng import Stream

READS = ("pass", "batch")

Part = tuple[int, int]
"""Which part of how many."""


@dataclass(frozen=True)
class Subject:
    """Trained weights to evaluate.

    Args:
        method: name of the method that trained them, for tables.
        train_seed: which of several trainings of that method they are; chips of different train seeds are independent.
        weights: what they are called in the results.
        load: returns the model with these weights.
    """

    method: str
    train_seed: int
    weights: str
    load: Callable[[], nn.Module]


@dataclass(frozen=True)
class Level:
    """One severity of a noise; ``noise`` is None where there is none (level 0)."""

    value: float
    noise: Noise | None


@dataclass(frozen=True)
class Plan:
    """What is computed: every subject on every level with every draw.

    Args:
        noise: the noise; its own level does not matter.
        levels: severities; a level without noise has one draw.
        draws: chips per subject and level, >= 1.
        seed: root seed of the chips, >= 0.
        select: which weights are noisy, as in :func:`noiserobust.find_sites`.
        calibration: what is done to each chip before it is evaluated, or None.
        reads: how often a device is read: once a ``"pass"`` over the data, or anew for each ``"batch"``.
        analog: whether layers are simulated as full analog tiles, with the periphery of the device's profile.
    """

    noise: Noise
    levels: Sequence[Level]
    draws: int
    seed: int
    select: Select | None = None
    calibration: Calibration | None = None
    reads: str = "pass"
    analog: bool = False

    def __post_init__(self) -> None:
        if check_choice("reads", self.reads, READS) == "batch" and not isinstance(self.noise, TimedNoise):
            raise InvalidValueError(f"Expected a device for `reads` of a batch, but got {self.noise.name} noise")
        if self.analog and not isinstance(self.noise, TimedNoise):
            raise InvalidValueError(f"Expected a device for `analog`, but got {self.noise.name} noise")
        if self.analog and (self.reads == "batch" or self.calibration is not None):
            raise InvalidValueError("Expected `analog` without `reads` of a batch and without calibration")
        if self.reads == "batch" and self.calibration is not None:
            raise InvalidValueError("Expected no calibration with `reads` of a batch, but got one")
        # NumPy integers become plain ones, which JSON can hold.
        object.__setattr__(self, "draws", check_integer("draws", self.draws, minimum=1))
        object.__setattr__(self, "seed", check_integer("seed", self.seed, minimum=0))

    @property
    def noise_name(self) -> str:
        """What the noise is called in the results."""
        calibrated = f"+{self.calibration.kind}-calibration" if self.calibration else ""
        read = "+read-each-batch" if self.reads == "batch" else ""
        return self.noise.name + calibrated + read + ("+tile" if self.analog else "")

    def tasks(self) -> list[tuple[Level, int]]:
        """Return each level with each of its draws."""
        return [(level, draw) for level in self.levels for draw in range(self.draws if level.noise else 1)]


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Args:
        draws: one row a (weights, level, draw), with the columns of ``draws.csv``.
    """

    draws: pd.DataFrame = field(repr=False)

    def summary(self, ci_level: float = 0.95) -> pd.DataFrame:
        """Return one row a (method, noise, level): mean, noise uncertainty, seed uncertainty, interval.

        Args:
            ci_level: level of the Student-t interval over train seeds, in (0, 1).
        """
        return summarize(self.draws, ci_level)


def parse_levels(noise: Noise, levels: Iterable[float | str]) -> list[Level]:
    """Return levels of a noise from numbers or text; ``0`` and ``"clean"`` mean without noise.

    Raises:
        InvalidValueError: if there is none, one is not valid for this noise, or one is given twice.
    """
    levels = levels.tolist() if isinstance(levels, Tensor) else levels
    given = [] if isinstance(levels, (str, bytes)) or not isinstance(levels, Iterable) else list(levels)
    if not given:
        raise InvalidValueError(f"Expected `levels` to be a non-empty list of levels, but got {levels!r}")
    parsed: dict[float, Level] = {}
    for text in given:
        value = 0.0 if text == CLEAN else _level(noise, text)
        if value in parsed:
            raise InvalidValueError(f"Expected `levels` to be distinct, but got {text!r} twice")
        parsed[value] = Level(value, noise.at(value) if value else None)
    return list(parsed.values())


def _level(noise: Noise, text: float | str) -> float:
    try:
        return noise.parse_level(text)
    except InvalidValueError as error:
        hint = f"; {CLEAN!r} is without noise" if text in (0, "0") else ""
        raise InvalidValueError(f"{error}{hint}") from None


def parse_part(text: str | None) -> Part:
    """Return part and number of parts from text such as ``2/8``; None is all in one.

    Raises:
        InvalidValueError: if it is none.
    """
    which, slash, parts = (text or "1/1").partition("/")
    if not slash or not which.isdecimal() or not parts.isdecimal() or not 1 <= int(which) <= int(parts):
        raise InvalidValueError(f"Expected `shard` to be a part such as 2/8, from 1/8 to 8/8, but got {text!r}")
    return int(which), int(parts)


def run(
    subjects: Sequence[Subject],
    forward: Forward,
    plan: Plan,
    *,
    done: Sequence[Row] = (),
    keep: Callable[[Row], None] | None = None,
    progress: bool = False,
    part: Part = (1, 1),
) -> list[Row]:
    """Evaluate.

    Args:
        subjects: trained weights.
        forward: data, device, precision.
        plan: noise, levels, draws.
        done: rows of an earlier run, not computed again.
        keep: called with each new row as soon as it is known.
        progress: whether to show a progress bar on a terminal.
        part: which part of how many is computed, the first is 1.

    Returns:
        All rows, those of ``done`` first.

    Raises:
        InvalidValueError: if data, weights or noise do not fit together.
    """
    rows = list(done)
    which, parts = part
    mine = {subject: plan.tasks()[(which - 1 - s) % parts :: parts] for s, subject in enumerate(subjects)}
    have = {(*_identity(row), row["metric"]) for row in rows}
    finished = {_identity(row) for row in rows}
    for metric in forward.metrics:  # a draw is finished if it has all of its rows
        finished &= {_identity(row) for row in rows if row["metric"] == metric.name}
    with tqdm(total=sum(map(len, mine.values())), unit="draw", disable=None if progress else True) as bar:
        for subject, tasks in mine.items():
            missing = [
                t
                for t in tasks
                if (subject.method, subject.train_seed, subject.weights, t[0].value, t[1]) not in finished
            ]
            bar.update(len(tasks) - len(missing))
            for found in _draws(subject, forward, plan, missing):
                for row in found:
                    if (*_identity(row), row["metric"]) in have:
                        continue
                    if keep:
                        keep(row)
                    rows.append(row)
                bar.update()
    return rows


def mean_accuracy(model: nn.Module, forward: Forward, noise: Noise, streams: Sequence[Stream]) -> float:
    """Return the mean accuracy in percent of a placed model over one chip for each stream."""
    sites = find_sites(model)
    network = forward.network(model)
    values: list[float] = []
    for stream in streams:
        with network.on(noisy_weights(sites, noise, stream)):
            values += forward.measure(network)[0].values()
    return sum(values) / len(values)


def as_result(rows: Sequence[Row]) -> EvaluationResult:
    """Return rows as a result."""
    return EvaluationResult(as_frame(rows))


def _draws(subject: Subject, forward: Forward, plan: Plan, tasks: Sequence[tuple[Level, int]]) -> Iterator[list[Row]]:
    """Yield the rows of each draw, one a metric."""
    if not tasks:
        return
    model = subject.load()
    find_sites(model, plan.select)  # what cannot be perturbed may not bear copying either: check first
    _check_finite(model, subject)
    model = forward.place(model)
    sites = find_sites(model, plan.select)
    calibrator = None
    if plan.calibration:
        with forward.autocast():
            calibrator = Calibrator(model, sites, plan.calibration, lambda x: forward.prepared(x, model))
    network = forward.network(model, () if plan.calibration or plan.analog else sites)
    analog = None
    if plan.analog and isinstance(plan.noise, TimedNoise):
        from noiserobust.evaluate.analog import AnalogModel

        analog = AnalogModel(model, sites, plan.noise.profile)
    for level, draw in tasks:
        stream = chip_stream(plan.seed, subject.train_seed, draw)
        if analog:
            with analog.on_chip(level.noise, stream) as tiles:
                values, n_examples = forward.measure(forward.network(tiles))
        elif plan.reads == "batch" and isinstance(level.noise, TimedNoise):
            chip = level.noise.on_chip(sites, stream)
            values, n_examples = forward.measure(network, _reading(network, chip, sites, stream))
        else:
            calibrated = calibrator.calibrated(forward.autocast) if calibrator and level.noise else nullcontext()
            with network.on(noisy_weights(sites, level.noise, stream) if level.noise else ()), calibrated:
                values, n_examples = forward.measure(network)
        yield [
            {
                "method": subject.method,
                "train_seed": subject.train_seed,
                "weights": subject.weights,
                "noise": plan.noise_name,
                "level_name": plan.noise.level_name,
                "level": level.value,
                "draw": draw,
                "metric": metric,
                "value": value,
                "n_examples": n_examples,
            }
            for metric, value in values.items()
        ]


def _reading(network: Network, chip: Noise, sites: Sequence[Site], stream: Stream) -> Around:
    """Return what puts the network on a chip for one batch, read anew."""
    return lambda batch: network.on(noisy_weights(sites, chip, stream.child("batch", batch)))


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["method"], row["train_seed"], row["weights"], row["level"], row["draw"]


def _check_finite(model: nn.Module, subject: Subject) -> None:
    parameters = set(dict(model.named_parameters()))
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():  # extra state may be anything
            continue
        # Infinity is no weight, but masks of attention are buffers that hold it.
        bad = ~torch.isfinite(tensor) if name in parameters else torch.isnan(tensor)
        if bad.any():
            raise InvalidValueError(
                f"Expected weights {subject.weights} to be finite, but {name} holds NaN or infinity"
            )
