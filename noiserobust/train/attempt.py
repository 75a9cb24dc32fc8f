"""An attempt at a step, which memory may be too short for: what it changes, and how it is made smaller."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from noiserobust.errors import OutOfMemoryError
from noiserobust.train.method import Memory
from noiserobust.train.replay import Replay

_log = logging.getLogger(__name__)


class Before:
    """What the passes of a step change beside gradients, to go back to; weights are put back by who displaces them.

    Args:
        model: whose buffers are kept, the running statistics of normalisation among them.
        memory: what the method remembers.
        loss: on the device whose random numbers are kept, those of dropout among them.
    """

    def __init__(self, model: nn.Module, memory: Memory, loss: Tensor) -> None:
        self._model, self._memory = model, memory
        self._buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._remembered = {name: value.clone() for name, value in memory.items()}
        self._random = Replay([loss])

    def restore(self) -> None:
        """Be there again; once."""
        with torch.no_grad():
            for name, buffer in self._model.named_buffers():
                buffer.copy_(self._buffers[name])
        self._memory.clear()
        self._memory.update(self._remembered)
        self._random.rewind()


def more_micro_batches(
    now: int, batch_size: int, model: nn.Module, device: torch.device, short: str, *, multiple_of: int = 1
) -> int:
    """Return into how many micro-batches a batch is divided when fewer do not fit into memory: twice as many, if it can
    be divided so.

    Args:
        now: how many there are, a divisor of the batch size.
        batch_size: examples a step.
        model: what it takes: batch norm has no statistics of a single example.
        device: for the message.
        short: what the attempt said.
        multiple_of: what divides their number.

    Raises:
        OutOfMemoryError: if there can be no more.
    """
    least = 2 if any(isinstance(m, _BatchNorm) for m in model.modules()) else 1
    most = batch_size // least
    more = next((n for n in range(2 * now, most + 1) if batch_size % n == 0 and n % multiple_of == 0), None)
    size = batch_size // now
    if more is None:
        raise OutOfMemoryError(
            f"Expected a micro-batch of {size} example{'s' * (size > 1)} to fit into the memory of {device}, but got: "
            f"{short}"
        )
    _log.warning(
        "memory of %s is short for micro-batches of %d, going on with %d of %d a step: %s",
        *(device, size, more, batch_size // more, short),
    )
    return more
