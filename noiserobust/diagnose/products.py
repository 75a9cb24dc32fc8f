"""Products of the Hessian of the loss with vectors, by double backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from noiserobust.diagnose.examples import Examples
from noiserobust.diagnose.probe import Batch, loss_of
from noiserobust.errors import InvalidValueError

Vector = Sequence[Tensor]
"""One float64 tensor a parameter, of its shape."""


class HessianProducts:
    """The Hessian of the mean loss over all examples with respect to some parameters, as a linear map.

    Products are those of the network's own precision, added up over batches in float64.

    Args:
        examples: batches for a placed model.
        parameters: by name; they need gradients.
    """

    def __init__(self, examples: Examples, parameters: Mapping[str, nn.Parameter]) -> None:
        self.examples = examples
        self.parameters = dict(parameters)
        self.size = sum(p.numel() for p in self.parameters.values())
        self.number = 0
        """Of examples in a pass."""
        self.products = 0
        """How many were taken."""

    def __call__(self, vector: Vector) -> list[Tensor]:
        """Return H v, float64.

        Raises:
            InvalidValueError: if the network cannot be differentiated twice, or its loss is not finite.
        """
        parameters = list(self.parameters.values())
        total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        given = [v.to(p.device, p.dtype).reshape(p.shape) for v, p in zip(vector, parameters, strict=True)]

        def add(batch: Batch, n: int) -> int:
            for sum_, part in zip(total, self._product(batch, given), strict=True):
                sum_.add_(part, alpha=n)
            return n

        self.number = sum(self.examples.each(add))
        self.products += 1
        for sum_ in total:
            sum_.div_(self.number)
        if not all(bool(sum_.isfinite().all()) for sum_ in total):
            raise InvalidValueError("Expected the Hessian of the loss to be finite, but got NaN or infinity")
        return total

    def flat(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return H v of parameters laid out one after the other."""
        product = self(self.unflat(vector))
        return np.concatenate([part.cpu().numpy().reshape(-1) for part in product])

    def unflat(self, vector: NDArray[np.float64]) -> list[Tensor]:
        """Return a vector as one float64 tensor a parameter, on the CPU."""
        shapes = [p.shape for p in self.parameters.values()]
        parts = torch.from_numpy(np.array(vector, dtype=np.float64).reshape(-1)).split([s.numel() for s in shapes])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _product(self, batch: Batch, vector: Vector) -> Sequence[Tensor]:
        parameters = list(self.parameters.values())
        # The fused kernels of attention have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            value = loss_of(self.examples.model, batch, self.examples.loss)
            try:
                gradient = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
                along = sum((g * v).sum(dtype=torch.float64) for g, v in zip(gradient, vector, strict=True))
                assert isinstance(along, Tensor)
                if not along.requires_grad:  # a loss that is linear in all of them
                    return [torch.zeros_like(p) for p in parameters]
                if not self.products:
                    _check_no_dead_end(along)
                return torch.autograd.grad(along, parameters, materialize_grads=True)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise InvalidValueError(
                    f"Expected `model` and `loss` to be twice differentiable, but got: {reason}"
                ) from error


def _check_no_dead_end(value: Tensor) -> None:
    """Raise if a function on the way has no second derivative: what lies behind would silently count as zero."""
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().rpartition("::")[2] in ("DelayedError", "Error", "NotImplemented"):
            raise RuntimeError("a function that is differentiable once only")
        nodes += [following for following, _ in node.next_functions]
