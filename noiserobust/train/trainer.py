"""One training: epochs over arrays in memory, the best epoch selected on held-out perturbed accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiserobust.config import TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.augment import Augment
from noiserobust.data.normalize import Normalize
from noiserobust.errors import InvalidValueError
from noiserobust.rng import Stream
from noiserobust.train.optimizer import PerturbedOptimizer
from noiserobust.train.recipe import build_lr_schedule, build_method, build_optimizer

Tick = Callable[[], object]


Score = Callable[[nn.Module], tuple[float, float]]
"""Returns clean and perturbed accuracy of a model in percent and leaves it unchanged; the evaluator supplies it."""


@dataclass(frozen=True)
class Epoch:
    """What is recorded of an epoch: one row of ``metrics.csv``.

    Args:
        epoch: counted from 1.
        steps: optimizer steps since the start.
        lr: learning rate of the epoch's last step.
        train_loss: mean of the losses the optimizer returned: at the clean weights, or at the noisy weights for a
            method without a clean pass.
        held_out_accuracy: percent, without noise; NaN without held-out data.
        held_out_perturbed_accuracy: percent, mean over the noise draws of the selection.
        best: whether this is the best epoch so far.
        seconds: wall-clock time of the training passes.
    """

    epoch: int
    steps: int
    lr: float
    train_loss: float
    held_out_accuracy: float
    held_out_perturbed_accuracy: float
    best: bool
    seconds: float

    def as_row(self) -> dict[str, object]:
        """Return the epoch as a row of ``metrics.csv``."""
        return asdict(self)


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
    ) -> None:
        self.config = config
        self.device = device or torch.device("cpu")
        self.stream = Stream(config.seed, "training", train_seed)
        self.normalize = normalize
        self.score = score
        layout = torch.channels_last if config.channels_last and data.x.ndim == 4 else torch.preserve_format
        self.x = data.x.to(self.device)
        self.y = data.y.to(self.device)
        self.model = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.layout = layout
        self.augment = Augment(config.augment.crop, config.augment.flip)
        self.batch_size = min(config.batch_size, len(data))
        self.steps_per_epoch = len(data) // self.batch_size
        self.steps = 0
        base = build_optimizer(config.optimizer, model)
        method = build_method(config.method)
        self.optimizer: torch.optim.Optimizer = base
        if method is not None:
            self.optimizer = PerturbedOptimizer(base, method, model, seed=config.seed, train_seed=train_seed)
        self.lr_schedule = build_lr_schedule(config.lr_schedule, base, config.epochs * self.steps_per_epoch)
        self.best_state = _copy(model.state_dict())

    def epochs(self, tick: Tick = lambda: None) -> Iterator[Epoch]:
        """Train, yielding after each epoch; :attr:`best_state` then holds the best weights so far.

        Args:
            tick: called after each optimizer step.

        Raises:
            InvalidValueError: if the loss is no longer finite.
        """
        best_score = -math.inf
        for number in range(1, self.config.epochs + 1):
            start = time.perf_counter()
            loss, lr = self._train_epoch(number, tick)
            if not math.isfinite(loss):
                raise InvalidValueError(
                    f"Expected the training loss to stay finite, but got {loss} in epoch {number}; a smaller "
                    "learning rate or perturbation may help"
                )
            seconds = time.perf_counter() - start
            clean, perturbed = self.score(self.model) if self.score else (math.nan, math.nan)
            best = self.score is None or perturbed >= best_score  # among equals the longest trained
            if best:
                best_score = perturbed
                self.best_state = _copy(self.model.state_dict())
            yield Epoch(number, self.steps, lr, loss, clean, perturbed, best, seconds)

    def _train_epoch(self, number: int, tick: Tick) -> tuple[float, float]:
        """Return the mean loss and the learning rate of the last step."""
        self.model.train()
        stream = self.stream.child("epoch", number)
        order = torch.from_numpy(stream.child("order").permutation(len(self.y))).to(self.device)
        total = torch.zeros((), device=self.device)
        lr = math.nan
        with stream.child("torch").as_torch_default():
            for index in range(self.steps_per_epoch):
                batch = order[index * self.batch_size : (index + 1) * self.batch_size]
                lr = self.optimizer.param_groups[0]["lr"]
                total += self._train_step(self.x[batch], self.y[batch], stream.child("augment", index))
                self.steps += 1
                self.lr_schedule.step()
                tick()
        return total.item() / self.steps_per_epoch, lr

    def _train_step(self, x: Tensor, y: Tensor, stream: Stream) -> Tensor:
        if self.augment != Augment():  # features, which are no images, cannot be augmented
            x = self.augment(x, stream)
        x = self.normalize(x).to(memory_format=self.layout)
        autocast = (
            torch.autocast(self.device.type, torch.bfloat16) if self.config.precision == "bf16" else nullcontext()
        )

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            with autocast:
                loss = cross_entropy(self.model(x), y, label_smoothing=self.config.label_smoothing)
            loss.backward()
            return loss

        # torch types a closure as returning a float; what it returns is handed through.
        loss: Any = self.optimizer.step(closure)  # type: ignore[arg-type]
        return torch.as_tensor(loss).detach()


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}
