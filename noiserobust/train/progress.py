"""How far a training is, and what is recorded of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Epoch:
    """What is recorded of an epoch: one row of ``metrics.csv``.

    Args:
        epoch: counted from 1.
        steps: optimizer steps since the start.
        passes: forward-backward passes over a batch since the start, those of all processes together; None if the
            training goes on from a checkpoint of a version that did not count them.
        lr: learning rate of the epoch's last step.
        strength: of the perturbation at the epoch's last step, as a share of its full strength.
        train_loss: mean of the losses the optimizer returned: at the clean weights, or at the noisy weights for a
            method without a clean pass.
        held_out_accuracy: percent, without noise; NaN without held-out data.
        held_out_perturbed_accuracy: percent, mean over the noise draws of the selection.
        best: whether this is the best epoch so far.
        seconds: wall-clock time of the training passes.
        micro_batches: of a step of each process; more than were asked for if there are more chips, or
            if memory was too short.
    """

    epoch: int
    steps: int
    passes: int | None
    lr: float
    strength: float
    train_loss: float
    held_out_accuracy: float
    held_out_perturbed_accuracy: float
    best: bool
    seconds: float
    micro_batches: int

    def as_row(self) -> dict[str, object]:
        """Return the epoch as a row of ``metrics.csv``."""
        return asdict(self)


@dataclass
class Progress:
    """The place in a training.

    Args:
        epoch: the one under way, counted from 1.
        index: steps of it that are done.
        lr: learning rate of the last step.
        strength: of the perturbation at the last step.
        loss: sum of their losses.
        seconds: wall-clock time they took.
        best_score: the highest perturbed accuracy of the epochs before.
        micro_batches: into how many a batch is divided because fewer did not fit into memory; None if they do.
    """

    epoch: int = 1
    index: int = 0
    lr: float = math.nan
    strength: float = math.nan
    loss: float = 0.0
    seconds: float = 0.0
    best_score: float = -math.inf
    micro_batches: int | None = None

    def start_epoch(self, epoch: int) -> None:
        """Be at the start of an epoch."""
        self.epoch, self.index, self.loss, self.seconds = epoch, 0, 0.0, 0.0
