"""The loss around the weights, recorded while a training goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from noiserobust.config import RecordConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.diagnose.board import Board
from noiserobust.diagnose.probe import Batch, Loss, class_loss
from noiserobust.diagnose.sample import FORWARD_BACKWARD, Looks
from noiserobust.diagnose.travel import Travel
from noiserobust.errors import InvalidValueError, check_integer, check_number
from noiserobust.models.scores import kind_of
from noiserobust.results.diagnostics import DIAGNOSTICS_DTYPES, DIAGNOSTICS_FILE, TRAIN
from noiserobust.results.files import write_atomic
from noiserobust.rng import Stream
from noiserobust.train.optimizer import PerturbedOptimizer
from noiserobust.train.trainer import Trainer

SHARE = 0.025
"""Of the passes of a training that samples take with ``every="auto"``; the way of the weights takes time too."""

_FASTER = 2
"""How much faster passes of a training in lower precision are than those of a sample, about."""


class Recorder:
    """Records sharpness, gradients and the way the weights go; the training is the same as without.

    In a loop of one's own::

        recorder = nr.diagnose.Recorder(model, opt, train=batches, total_steps=..., steps_per_epoch=len(loader))
        recorder.start()
        for x, y in loader:
            opt.step(closure)
            recorder.step()
        recorder.frame()  # tidy; columns: noiserobust.results.diagnostics

    Samples are taken before the first step, every so many steps, and after the last, in the weights' own precision,
    with the loss without label smoothing, on the same examples and the same noise draws each time: what changes between
    samples is the network. Losses and sharpness are those of the network as it is deployed, in evaluation mode. The
    gradients, and the loss where the method takes its gradient, are by default those of a training pass: batch norm
    uses the statistics of the batch.

    Args:
        model: trained by the optimizer.
        optimizer: says the method, its strength and the step.
        train: batches of the training data, inputs as the network takes them, on its device, without augmentation.
        held_out: batches of other data; may be empty.
        total_steps: of the training, >= 1.
        steps_per_epoch: >= 1.
        config: what is recorded, and how often; by default with ``every="auto"``: as seldom as takes at
            most 3% of the time of the training, though at least before the first and after the last step.
        loss: mean loss of a batch given outputs and targets; by default the cross-entropy of classes.
        method: name of the method in the table.
        train_seed: which of several trainings this is.
        seed: root seed of the noise draws.
        out: ``diagnostics.csv``, written anew after each sample; None keeps the table in memory.
        logs: folder for TensorBoard, or None.
        step_passes: as many forward-backward passes over a batch such as those of ``train``, in the weights' own
            precision, take as long as a step, > 0; by default those of the method. More with micro-batches, fewer where
            the training's passes have a lower precision.

    Raises:
        InvalidValueError: if an argument is out of range, noise finds no weight in the model, or TensorBoard is asked
            for and not installed.

    Source: "Incorruptible neural networks", Eq. 3-4 and section 5; one noise draw or ascent a batch (m-sharpness).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: PerturbedOptimizer,
        train: Sequence[Batch],
        held_out: Sequence[Batch] = (),
        *,
        total_steps: int,
        steps_per_epoch: int,
        config: RecordConfig | None = None,
        loss: Loss = class_loss,
        method: str | None = None,
        train_seed: int = 0,
        seed: int = 0,
        out: Path | None = None,
        logs: Path | None = None,
        step_passes: float | None = None,
    ) -> None:
        if not isinstance(optimizer, PerturbedOptimizer):
            raise InvalidValueError(
                f"Expected `optimizer` to be a PerturbedOptimizer, but got {type(optimizer).__name__}"
            )
        if not train:
            raise InvalidValueError("Expected `train` to have at least one batch, but got none")
        for name, batches in (("train", train), ("held_out", held_out)):
            if not all(isinstance(batch, (tuple, list)) and len(batch) == 2 for batch in batches):
                raise InvalidValueError(f"Expected `{name}` to be a list of batches (x, y), but got {kind_of(batches)}")
        config = config or RecordConfig(every="auto")
        self.model, self.optimizer, self.out = model, optimizer, out
        self.total_steps = check_integer("total_steps", total_steps, minimum=1)
        self.steps_per_epoch = check_integer("steps_per_epoch", steps_per_epoch, minimum=1)
        self._names = {"method": method or optimizer.method.name, "train_seed": train_seed}
        self._looks = Looks(
            list(train),
            list(held_out),
            optimizer.method,
            optimizer.method.sites(model),
            config.levels,
            config.rhos,
            config.draws,
            Stream(seed, "record", train_seed),
            config.batch_statistics,
            loss,
        )
        passes = optimizer.method.passes if step_passes is None else check_number("step_passes", step_passes, above=0)
        every = config.every
        self.every = every if isinstance(every, int) else self._affordable(passes)
        self._travel = Travel(model)
        self._rows: list[dict[str, Any]] = []
        self._board = None if logs is None else Board(logs)

    @classmethod
    def of(cls, trainer: Trainer, held_out: ArrayData | None, folder: Path) -> Recorder:
        """Return the recorder of a training, into the folder of its train seed.

        Args:
            trainer: at its first step.
            held_out: examples that are not trained on.
            folder: of the train seed.
        """
        config = trainer.config
        passes = 1 if config.method.split_ranks else trainer.optimizer.method.passes
        both = [ArrayData(trainer.x, trainer.y, "training"), *([held_out] if held_out else [])]
        batches = [list(_batches(trainer, data, config.record.batches)) for data in both]
        return cls(
            trainer.model,
            trainer.optimizer,
            *batches,
            total_steps=trainer.total_steps,
            steps_per_epoch=trainer.steps_per_epoch,
            config=config.record,
            method=config.method_label,
            train_seed=int(trainer.stream.path[-1]),
            seed=config.seed,
            out=folder / DIAGNOSTICS_FILE,
            logs=folder / "tensorboard" if config.record.tensorboard else None,
            step_passes=passes * config.accumulate / (1 if config.precision == "fp32" else _FASTER),
        )

    def start(self) -> None:
        """Take the sample before the first step, unless the training goes on from an earlier state."""
        if self.optimizer.steps == 0 and not self._rows:
            self._sample()

    def step(self) -> None:
        """Take notice of an optimizer step, and a sample if it is time. Call it after each."""
        done = self.optimizer.steps
        self._travel.step(epoch_ends=done % self.steps_per_epoch == 0)
        if done % self.every == 0 or done == self.total_steps:
            self._sample()

    def frame(self) -> pd.DataFrame:
        """Return all samples, with the columns of ``diagnostics.csv``."""
        frame: pd.DataFrame = pd.DataFrame(self._rows, columns=list(DIAGNOSTICS_DTYPES)).astype(DIAGNOSTICS_DTYPES)
        return frame

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on: numbers, text and tensors."""
        return {"rows": [dict(row) for row in self._rows], "travel": self._travel.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; the model has to have the weights that belong to it already."""
        self._rows = [dict(row) for row in state["rows"]]
        self._travel.load_state_dict(state["travel"])

    def _sample(self) -> None:
        strength = self.optimizer.strength
        rows = self._looks.sample(self.model, strength, self.optimizer.memory)
        lengths = {"level": math.nan, "standard_error": math.nan, "n_examples": 0}
        rows += [{"split": TRAIN, "quantity": q, "value": v, **lengths} for q, v in self._travel.lengths().items()]
        step = self.optimizer.steps
        place = {"epoch": step / self.steps_per_epoch, "step": step, "strength": strength}
        self._rows += [{**self._names, **place, **row} for row in rows]
        if self.out is not None:
            write_atomic(self.out, self.frame().to_csv(index=False))
        if self._board is not None:
            self._board.write(step, rows)

    def _affordable(self, passes: float) -> int:
        """Return after how many steps there is a sample, so that all take their share of the training's passes."""
        samples = int(SHARE * self.total_steps * passes * FORWARD_BACKWARD / self._looks.passes)
        return math.ceil(self.total_steps / max(samples - 1, 1))


def _batches(trainer: Trainer, data: ArrayData, number: int) -> Iterator[Batch]:
    """Yield the first batches of a fixed order, as the network takes them, without augmentation.

    They are of the size in which the training passes them, that of a micro-batch of one process, but are not divided
    into those of several chips.
    """
    share = trainer.parts[-1].stop - trainer.parts[0].start
    size = min(share // trainer.config.accumulate, len(data))
    order = torch.from_numpy(trainer.stream.child("record").permutation(len(data)))
    for part in order[: len(data) // size * size].split(size)[:number]:
        chosen = data.subset(part)
        x = trainer.normalize(chosen.x.to(trainer.device)).to(memory_format=trainer.layout)
        yield x, chosen.y.to(trainer.device)
