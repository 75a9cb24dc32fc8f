"""The same random numbers again, for dropout masks that passes share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Replay:
    """The states of torch's global generators now, to go back to.

    Args:
        tensors: on whose devices, beside the CPU.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._cpu = torch.random.get_rng_state()
        devices = {t.device for t in tensors if t.device.type == "cuda"}
        self._cuda = {device: torch.cuda.get_rng_state(device) for device in devices}

    def rewind(self) -> None:
        """Let the generators run from those states again."""
        torch.random.set_rng_state(self._cpu)
        for device, state in self._cuda.items():
            torch.cuda.set_rng_state(state, device)
