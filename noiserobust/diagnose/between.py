"""Networks on the straight line between two trained ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.plan import Subject


@dataclass(frozen=True)
class Mixture:
    """Loads ``(1 - x) a + x b`` of all parameters, biases and normalisation included, and of running statistics.

    Before the first and behind the second network the statistics are theirs: a variance would become negative.

    Args:
        first: returns the network at 0; the one that is returned.
        second: state of the network at 1, by name.
        x: where on the line.
    """

    first: Callable[[], nn.Module]
    second: dict[str, Tensor]
    x: float

    def __call__(self) -> nn.Module:
        """Return the network, a copy."""
        model = copy.deepcopy(self.first())
        buffers = dict(model.named_buffers())
        mixed = {}
        for name, value in model.state_dict().items():
            x = min(max(self.x, 0.0), 1.0) if name in buffers else self.x
            mixed[name] = torch.lerp(value, self.second[name].to(value), x) if value.is_floating_point() else value
        model.load_state_dict(mixed)
        return model


def between(first: Subject, second: nn.Module, xs: Sequence[float]) -> list[Subject]:
    """Return subjects on the line from one network to another.

    Args:
        first: at 0.
        second: at 1, of the same architecture.
        xs: places on the line.

    Raises:
        InvalidValueError: if the networks have other parameters.
    """
    state = {name: value.detach().clone() for name, value in second.state_dict().items()}
    own = {name: value.shape for name, value in first.load().state_dict().items()}
    if own != {name: value.shape for name, value in state.items()}:
        raise InvalidValueError("Expected both ends of the line to be networks of one architecture, but they are not")
    return [
        Subject(first.method, first.train_seed, f"{first.weights}@{x:.10g}", Mixture(first.load, state, x), own=True)
        for x in xs
    ]
