"""How far the weights go in a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Travel:
    """Adds up the way of the weights, step by step and epoch by epoch.

    Args:
        model: whose parameters that need gradients are meant; the way begins at their present values.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self._start, self._before, self._epoch = self._copy(), self._copy(), self._copy()
        device = self._parameters[0].device
        # They stay on the device: a step does not wait for it.
        self._steps, self._epochs = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(2))

    @torch.no_grad()
    def step(self, *, epoch_ends: bool) -> None:
        """Add the way since the last call.

        Args:
            epoch_ends: whether this was the last step of an epoch.
        """
        self._steps += self._distance(self._before)
        torch._foreach_copy_(self._before, self._parameters)
        if epoch_ends:
            self._epochs += self._distance(self._epoch)
            torch._foreach_copy_(self._epoch, self._parameters)

    def lengths(self) -> dict[str, float]:
        """Return path lengths over steps and over epochs, the last perhaps not over, and the net displacement."""
        with torch.no_grad():
            net = self._distance(self._start)
            under_way = self._distance(self._epoch)  # of the epoch that is not over
        values = {"path_length": self._steps, "epoch_path_length": self._epochs + under_way, "displacement": net}
        return {name: float(value) for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on beside the weights."""
        start, epoch = ([tensor.clone() for tensor in kept] for kept in (self._start, self._epoch))
        return {"start": start, "epoch": epoch, "lengths": [float(self._steps), float(self._epochs)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state at the present weights, which have to be those that belong to it."""
        with torch.no_grad():
            for own, saved in ((self._start, state["start"]), (self._epoch, state["epoch"])):
                for tensor, value in zip(own, saved, strict=True):
                    tensor.copy_(value)
            torch._foreach_copy_(self._before, self._parameters)
        steps, epochs = state["lengths"]
        self._steps.fill_(steps)
        self._epochs.fill_(epochs)

    def _copy(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._parameters]

    def _distance(self, other: list[Tensor]) -> Tensor:
        norms = torch._foreach_norm(torch._foreach_sub(self._parameters, other))
        distance: Tensor = torch.linalg.vector_norm(torch.stack([n.to(self._steps.device) for n in norms]).double())
        return distance
