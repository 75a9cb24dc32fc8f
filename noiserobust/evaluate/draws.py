"""One draw: trained weights on one chip, measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.calibration import Calibrator
from noiserobust.evaluate.folding import FoldedNetwork
from noiserobust.evaluate.forward import Around, Forward
from noiserobust.evaluate.networks import Network
from noiserobust.evaluate.plan import Level, Plan, Subject
from noiserobust.memory import out_of_memory
from noiserobust.noise.base import Noise, chip_stream
from noiserobust.noise.sites import Site, find_sites
from noiserobust.noise.timed import TimedNoise
from noiserobust.perturb import Change, noisy_weights
from noiserobust.results.store import Row
from noiserobust.rng import Stream

Drawn = tuple[Site, Change]

Job = tuple[int, int, int]
"""Which of the subjects, which of the plan's levels, and the number of the draw."""


class Draws:
    """Computes the draws of a plan; the network of one subject at a time is kept.

    Args:
        subjects: trained weights.
        forward: data, device, precision.
        plan: noise and levels.
    """

    def __init__(self, subjects: Sequence[Subject], forward: Forward, plan: Plan) -> None:
        self.subjects = list(subjects)
        self.forward = forward
        self.plan = plan
        self._ready: tuple[int, _Ready] | None = None
        self._ahead: tuple[Job, Future[list[Drawn]]] | None = None
        self._thread: ThreadPoolExecutor | None = None  # once it is needed: workers get a copy of this object

    def __getstate__(self) -> dict[str, Any]:
        # A worker makes the network itself: a traced one cannot be copied, and one on a GPU should not.
        return {**self.__dict__, "_ready": None, "_ahead": None, "_thread": None}

    @property
    def device(self) -> torch.device:
        """Where draws are computed."""
        return self.forward.device

    def __call__(self, job: Job) -> list[Row]:
        """Return the rows of a draw, one a metric.

        Raises:
            InvalidValueError: if data, weights or noise do not fit together.
        """
        which, level, draw = job
        severity = self.plan.levels[level]
        drawn = self._taken(job)
        with self.on_chip(which, severity.noise, draw, drawn) as (network, around):
            values, n_examples = self.forward.measure(network, around)
        return [self.row(which, severity, draw, metric, value, n_examples) for metric, value in values.items()]

    def on_chip(
        self, which: int, noise: Noise | None, draw: int, drawn: Iterable[Drawn] | None = None
    ) -> AbstractContextManager[tuple[Network, Around | None]]:
        """Return a context with the network of one of the subjects on a chip, and what to put around each batch.

        Args:
            which: of the subjects.
            noise: of a level.
            draw: number of the chip.
            drawn: the noisy weights, if they are known already.
        """
        return self._subject(which).on_chip(noise, self._stream(which, draw), drawn)

    def ahead(self, job: Job) -> None:
        """Begin to draw the chip of the job after the present one, in a thread, while another device is busy."""
        which, level, draw = job
        noise, ready = self.plan.levels[level].noise, self._ready
        if self.overlaps and noise and ready and ready[0] == which and ready[1].draws_ahead:
            self._thread = self._thread or ThreadPoolExecutor(1, "next-chip")
            self._ahead = job, self._thread.submit(ready[1].drawn, noise, self._stream(which, draw))

    @property
    def overlaps(self) -> bool:
        """Whether chips are drawn ahead: where the forward pass leaves the processor's cores alone."""
        return self.device.type != "cpu"

    def _taken(self, job: Job) -> list[Drawn] | None:
        ahead, self._ahead = self._ahead, None
        if not ahead or ahead[0] != job:
            return None
        try:
            return ahead[1].result()
        except Exception as error:
            if not out_of_memory(error):
                raise
            return None  # there was no room beside the chip before: it is drawn now

    def _stream(self, which: int, draw: int) -> Stream:
        return chip_stream(self.plan.seed, self.subjects[which].train_seed, draw)

    def row(self, which: int, level: Level, draw: int, metric: str, value: float, n_examples: int) -> Row:
        """Return a row of ``draws.csv``."""
        subject, plan = self.subjects[which], self.plan
        return {
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

    def network(self, which: int) -> Network:
        """Return the network of one of the subjects."""
        return self._subject(which).network

    def _subject(self, which: int) -> _Ready:
        if self._ready is None or self._ready[0] != which:
            self._ready = None  # before the next one takes memory
            self._ready = which, _Ready(self.subjects[which], self.forward, self.plan)
        return self._ready[1]


class _Ready:
    """The network of one subject, ready for chip after chip."""

    def __init__(self, subject: Subject, forward: Forward, plan: Plan) -> None:
        self.forward, self.plan = forward, plan
        model = subject.load()
        find_sites(model, plan.select)  # what cannot be perturbed may not bear copying either: check first
        _check_finite(model, subject)
        model = forward.place(model, own=subject.own)
        self.sites = find_sites(model, plan.select)
        self.calibrator = None
        if plan.calibration:
            with forward.autocast():
                self.calibrator = Calibrator(model, self.sites, plan.calibration, lambda x: forward.prepared(x, model))
        self.network = forward.network(model, () if plan.calibration or plan.analog else self.sites)
        self.analog: Any = None
        if plan.analog and isinstance(plan.noise, TimedNoise):
            from noiserobust.evaluate.analog import AnalogModel

            self.analog = AnalogModel(model, self.sites, plan.noise.profile)

    @contextmanager
    def on_chip(
        self, noise: Noise | None, stream: Stream, drawn: Iterable[Drawn] | None
    ) -> Iterator[tuple[Network, Around | None]]:
        """Put the network on a chip for the time of the block."""
        forward, network, sites = self.forward, self.network, self.sites
        if self.analog:
            with self.analog.on_chip(noise, stream) as tiles:
                yield forward.network(tiles), _nothing  # random numbers of the periphery depend on the batches
            return
        if self.plan.reads == "batch" and isinstance(noise, TimedNoise):
            yield network, _reading(network, noise.on_chip(sites, stream), sites, stream)
            return
        calibrated = self.calibrator.calibrated(forward.autocast) if self.calibrator and noise else nullcontext()
        changes = drawn or (noisy_weights(sites, noise, stream) if noise else ())
        with network.on(changes), calibrated:
            yield network, None

    @property
    def draws_ahead(self) -> bool:
        """Whether a chip can be drawn while the network is on another: its own weights are kept apart."""
        return isinstance(self.network.runs, FoldedNetwork) and self.plan.reads == "pass"

    def drawn(self, noise: Noise, stream: Stream) -> list[Drawn]:
        """Return all noisy weights of a chip."""
        drawn: list[Drawn] = []
        with torch.no_grad():
            for site, change in noisy_weights(self.sites, noise, stream):
                weight = site.parameter().detach().clone()
                change(weight)
                drawn.append((site, partial(_put, weight)))
        return drawn


def _put(noisy: Tensor, weight: Tensor) -> None:
    weight.copy_(noisy)


def _nothing(batch: int) -> AbstractContextManager[None]:
    return nullcontext()


def _reading(network: Network, chip: Noise, sites: Sequence[Site], stream: Stream) -> Around:
    """Return what puts the network on a chip for one batch, read anew."""
    return lambda batch: network.on(noisy_weights(sites, chip, stream.child("batch", batch)))


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
