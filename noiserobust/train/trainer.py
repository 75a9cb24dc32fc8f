"""One training: epochs over arrays in memory, the best epoch selected on held-out perturbed accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiserobust.config import TrainConfig
from noiserobust.config.robust import divided
from noiserobust.data.arrays import ArrayData
from noiserobust.data.augment import Augment, Cutout
from noiserobust.data.normalize import Normalize
from noiserobust.errors import InvalidValueError, OutOfMemoryError
from noiserobust.memory import first_line, give_back, out_of_memory
from noiserobust.rng import Stream
from noiserobust.train.attempt import Before, more_micro_batches
from noiserobust.train.distributed import Ranks
from noiserobust.train.optimizer import PerturbedOptimizer
from noiserobust.train.passes import Closure
from noiserobust.train.progress import Epoch, Progress
from noiserobust.train.recipe import (
    build_average,
    build_lr_schedule,
    build_method,
    build_optimizer,
    build_schedule,
    build_weight_clip,
)

Tick = Callable[[], object]


Score = Callable[[nn.Module], tuple[float, float]]
"""Returns clean and perturbed accuracy of a model in percent and leaves it unchanged; the evaluator supplies it."""

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Trains a model for one train seed.

    Args:
        model: trained in place, on ``device``.
        data: training examples; uint8 or float32, NCHW or features.
        config: all settings; ``model``, ``data`` and ``held_out`` are the caller's business.
        normalize: from stored values to network inputs.
        train_seed: which of several trainings this is.
        device: where to compute.
        score: measures the model on held-out data after each epoch; without it the last epoch counts as best.
        ranks: which of several processes this is; each has its share of every batch.

    Raises:
        InvalidValueError: if a setting does not go with the model, the data or the number of processes.

    The order of the examples, augmentation, noise and dropout come from streams keyed by the root seed, the train seed
    and epoch or step; torch's global generators are left as they were.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ArrayData,
        config: TrainConfig,
        normalize: Normalize,
        *,
        train_seed: int = 0,
        device: torch.device | None = None,
        score: Score | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config = config.resolved()
        self.device = device or torch.device("cpu")
        self.ranks = ranks or Ranks()
        self.stream = Stream(config.seed, "training", train_seed)
        self.normalize = normalize
        self.score = score
        self.layout = torch.channels_last if config.channels_last and data.x.ndim == 4 else torch.preserve_format
        self.x = data.x.to(self.device)
        self.y = data.y.to(self.device)
        self.model = model.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.augment = Augment(config.augment.crop, config.augment.flip)
        self.cutout = Cutout(config.augment.cutout)
        self.batch_size = min(config.batch_size, len(data))
        method = config.method
        if len(data) < config.batch_size and (method.chips or 1) > 1:
            method = replace(method, chips=divided(self.batch_size, config.accumulate))
        self.chips = method.chips or 1
        self.steps_per_epoch = len(data) // self.batch_size
        self.total_steps = config.epochs * self.steps_per_epoch
        self.parts = self._parts(self._micro_batches(config.accumulate))
        network: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
        self.network = self.ranks.wrap(network)
        self.scaler = torch.amp.GradScaler(self.device.type) if config.precision == "fp16" else None
        self.optimizer = PerturbedOptimizer(
            build_optimizer(config.optimizer, model),
            build_method(method),
            self.network,
            schedule=build_schedule(config.method.schedule),
            total_steps=self.total_steps,
            max_grad_norm=config.clip.grad_norm,
            weight_clip=build_weight_clip(config.clip),
            scaler=self.scaler,
            same_dropout=config.method.same_dropout,
            split_ranks=config.method.split_ranks,
            seed=config.seed,
            train_seed=train_seed,
        )
        self.lr_schedule = build_lr_schedule(config.lr_schedule, self.optimizer, self.total_steps)
        self.average = build_average(config.average, model)
        self.best_state = _copy(self.kept.state_dict())
        self.progress = Progress()
        self._loss = torch.zeros((), device=self.device)  # stays on the device: a step does not wait for it
        self._since = 0.0
        self._running = False  # whether steps of an epoch are being taken
        self._generators: dict[str, Tensor] = {}

    @property
    def kept(self) -> nn.Module:
        """The model whose weights are evaluated and written: the trained one, or the average of its past steps."""
        return self.model if self.average is None else self.average.module

    def epochs(self, tick: Tick = lambda: None) -> Iterator[Epoch]:
        """Train on, yielding after each epoch; :attr:`best_state` then holds the best weights so far.

        Args:
            tick: called after each optimizer step; the state may be taken there, as it may between epochs.

        Raises:
            InvalidValueError: if the loss is no longer finite.
            OutOfMemoryError: if memory is too short for a step, in however many micro-batches.
        """
        now = self.progress
        while now.epoch <= self.config.epochs:
            self._train_epoch(tick)
            loss = self._mean_loss()
            if not math.isfinite(loss):
                raise InvalidValueError(
                    f"Expected the training loss to stay finite, but got {loss} in epoch {now.epoch}; a smaller "
                    "learning rate or perturbation may help"
                )
            clean, perturbed = self._measure()
            best = self.score is None or perturbed >= now.best_score  # among equals the longest trained
            if best:
                now.best_score = perturbed
                self.best_state = _copy(self.kept.state_dict())
            steps, passes = now.epoch * self.steps_per_epoch, self.optimizer.passes
            where = now.epoch, steps, passes, now.lr, now.strength
            epoch = Epoch(*where, loss, clean, perturbed, best, now.seconds, len(self.parts))
            now.start_epoch(now.epoch + 1)
            yield epoch

    def loss(self, x: Tensor, scores: Tensor, y: Tensor) -> Tensor:
        """Return what is minimised: the mean cross-entropy of a micro-batch.

        Args:
            x: network inputs.
            scores: the network's outputs for them, ``(examples, classes)``.
            y: labels, ``(examples,)``.
        """
        return cross_entropy(scores, y, label_smoothing=self.config.label_smoothing)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a training needs to go on: tensors, numbers and text."""
        if self._running:
            self._pause()
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "best_model": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "lr_schedule": self.lr_schedule.state_dict(),
            "progress": vars(self.progress).copy(),
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        if self._generators:
            state["generators"] = dict(self._generators)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; on a CPU in fp32 training ends with the very weights it would have ended with anyway."""
        self.model.load_state_dict(state["model"])
        self.best_state = dict(state["best_model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_schedule.load_state_dict(state["lr_schedule"])
        self.progress = Progress(**state["progress"])
        self.parts = self._parts(self.progress.micro_batches or self._micro_batches(self.config.accumulate))
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self._generators = dict(state.get("generators", {}))

    def _train_epoch(self, tick: Tick) -> None:
        """Finish the epoch."""
        now = self.progress
        self.network.train()
        stream = self.stream.child("epoch", now.epoch)
        orders = [self._order(stream.child("order"))]
        if self.config.method.two_batches:
            orders.append(self._order(stream.child("order", "perturbed")))
        self._loss.fill_(now.loss)
        self._since = time.perf_counter()
        own = () if self.ranks.leads else (self.ranks.rank,)
        with stream.child("torch", *own).as_torch_default():
            self._restore_generators()
            self._running = True
            try:
                self._take_steps(stream, orders, tick)
            finally:
                self._pause()
                self._running = False
        self._generators = {}

    def _take_steps(self, stream: Stream, orders: list[Tensor], tick: Tick) -> None:
        now = self.progress
        while now.index < self.steps_per_epoch:
            now.lr, now.strength = self.optimizer.param_groups[0]["lr"], self.optimizer.strength
            span = slice(now.index * self.batch_size, (now.index + 1) * self.batch_size)
            streams = [stream.child("augment", now.index), stream.child("augment", now.index, "perturbed")]
            loss = self._backward([(o[span], s) for o, s in zip(orders, streams, strict=False)])
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
            self._loss += torch.as_tensor(loss).detach()
            self.lr_schedule.step()
            now.index += 1
            tick()

    def _backward(self, batches: list[tuple[Tensor, Stream]]) -> Tensor:
        """Run the passes of a step, in as many micro-batches as fit into memory, and return the loss."""
        while True:
            before = Before(self.model, self.optimizer.memory, self._loss)
            try:
                return self.optimizer.backward(*(self._closures(*batch) for batch in batches))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                short = first_line(error)
            self.optimizer.zero_grad()
            give_back()  # here, where the error and the activations of its frames are gone
            before.restore()
            self._divide(short)

    def _divide(self, short: str) -> None:
        """Divide batches into more micro-batches from now on."""
        if self.ranks.world > 1 or self.config.method.per_micro_batch:
            why = "their number stays as it is with " + ("several processes" if self.ranks.world > 1 else "m-sharpness")
            raise OutOfMemoryError(
                f"Expected the micro-batches to fit into the memory of {self.device}, but got: {short}; {why}: "
                f"`accumulate` says it, here {self.config.accumulate}"
            )
        now = self.progress
        now.micro_batches = more_micro_batches(
            len(self.parts), self.batch_size, self.model, self.device, short, multiple_of=self.chips
        )
        self.parts = self._parts(now.micro_batches)

    def _closures(self, batch: Tensor, stream: Stream) -> list[Closure]:
        """Return a closure for each of this process's micro-batches."""
        x = self.x[batch]
        if self.augment != Augment():  # features, which are no images, cannot be augmented
            x = self.augment(x, stream)  # the whole batch: what an example gets does not depend on the processes
        x = self.cutout(self.normalize(x), stream).to(memory_format=self.layout)
        return [self._closure(x[part], self.y[batch[part]]) for part in self.parts]

    def _closure(self, x: Tensor, y: Tensor) -> Closure:
        def closure() -> Tensor:
            with self._autocast():
                output = self.network(x)
                loss = self.loss(x, getattr(output, "logits", output), y)
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            return loss

        return closure

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = _AUTOCAST.get(self.config.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def _share(self) -> tuple[int, int]:
        """Return which share of a batch this process has, and how many shares there are."""
        rank, world = self.ranks.rank, self.ranks.world
        # A clean and a noisy rank have the same examples.
        return (rank // 2, max(world // 2, 1)) if self.config.method.split_ranks else (rank, world)

    def _micro_batches(self, least: int) -> int:
        """Return into how many micro-batches a process divides its share, so that none has examples of two chips."""
        return math.lcm(self._share()[1] * least, self.chips) // self._share()[1]

    def _parts(self, micro: int) -> list[slice]:
        """Return which examples of a batch each of this process's micro-batches has, given how many there are."""
        share, shares = self._share()
        if self.batch_size % (shares * micro):
            raise InvalidValueError(
                f"Expected `batch_size` to be a multiple of {shares * micro}, the micro-batches of all processes, "
                f"but got {self.batch_size}"
            )
        size = self.batch_size // (shares * micro)
        first = share * micro
        return [slice((first + i) * size, (first + i + 1) * size) for i in range(micro)]

    def _order(self, stream: Stream) -> Tensor:
        return torch.from_numpy(stream.permutation(len(self.y))).to(self.device)

    def _mean_loss(self) -> float:
        """Return the mean loss of the epoch, over the processes that know the clean one if some do."""
        counts = float(not (self.config.method.split_ranks and self.ranks.rank % 2))
        both = self.ranks.sum(torch.stack([self._loss * counts, torch.full_like(self._loss, counts)]))
        return float(both[0] / both[1]) / self.steps_per_epoch

    def _measure(self) -> tuple[float, float]:
        if self.score is None:
            return math.nan, math.nan
        found = self.score(self.kept) if self.ranks.leads else (0.0, 0.0)
        clean, perturbed = self.ranks.from_leader(torch.tensor(found, dtype=torch.float64, device=self.device)).tolist()
        return clean, perturbed

    def _pause(self) -> None:
        """Write down where the epoch is: it may go on from here, in this object or another."""
        self._clock()
        self.progress.loss = self._loss.item()
        self._generators = {"cpu": torch.random.get_rng_state()}  # within an epoch they have moved
        if self.device.type == "cuda":
            self._generators["cuda"] = torch.cuda.get_rng_state(self.device)

    def _clock(self) -> None:
        """Add the time since the last call to that of the epoch."""
        before, self._since = self._since, time.perf_counter()
        self.progress.seconds += self._since - before

    def _restore_generators(self) -> None:
        if "cpu" in self._generators:
            torch.random.set_rng_state(self._generators["cpu"])
        if "cuda" in self._generators:
            torch.cuda.set_rng_state(self._generators["cuda"], self.device)
        self._generators = {}


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}
