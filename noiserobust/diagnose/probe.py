"""Loss and gradient of a network as it is deployed, batch by batch; the network is left as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _NormBase

from noiserobust.errors import InvalidValueError
from noiserobust.models.batchnorm import kept_statistics
from noiserobust.models.scores import class_scores, outputs
from noiserobust.noise.sites import Site
from noiserobust.rng import Stream
from noiserobust.train.gradients import put, take
from noiserobust.train.method import Memory, Method, Moment

Batch = tuple[Any, Any]
"""Inputs as the network takes them, and targets."""

Loss = Callable[[Any, Any], Tensor]
"""Returns the mean loss of a batch, a scalar, given outputs and targets."""

Gradient = tuple[Tensor, ...]
"""One tensor a parameter; zeros where a parameter has no part in the loss."""


def class_loss(output: Any, target: Any) -> Tensor:
    """Return the mean cross-entropy of a batch in nats, without label smoothing."""
    losses = cross_entropy(class_scores(output, target), target.long(), reduction="none")
    return losses.mean(dtype=torch.float64)  # differences of losses are what is looked at


@contextmanager
def looked_at(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for the time of the block; modes and ``.grad`` are then what they were."""
    modes = [(module, module.training) for module in model.modules()]
    held = take(model.parameters())
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in model.parameters():
            parameter.grad = None
        put(held)


def normalising(model: nn.Module) -> list[nn.Module]:
    """Return the layers of Batch- and InstanceNorm; without those that would wait for other processes in training."""
    return [m for m in model.modules() if isinstance(m, _NormBase) and not isinstance(m, nn.SyncBatchNorm)]


@contextmanager
def batch_statistics(model: nn.Module, layers: Sequence[nn.Module] | None = None) -> Iterator[None]:
    """Let a model in evaluation mode normalise by the statistics of each batch inside the block, as in training.

    Those that are stored are then what they were.

    Args:
        model: in evaluation mode.
        layers: which of its layers do so; by default all of :func:`normalising`.
    """
    layers = normalising(model) if layers is None else layers
    with kept_statistics(model):
        try:
            for layer in layers:
                layer.training = True
            yield
        finally:
            for layer in layers:
                layer.training = False


def loss_of(model: nn.Module, batch: Batch, loss: Loss = class_loss) -> Tensor:
    """Return the loss of a batch, a scalar on the model's device; the graph is that of the caller's grad mode.

    Raises:
        InvalidValueError: if the batch does not fit the model, or the loss is no scalar.
    """
    x, y = batch
    value = loss(outputs(lambda v: model(**v) if isinstance(v, dict) else model(v), x), y)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise InvalidValueError(f"Expected `loss` to return one number a batch, but got {value!r}")
    return value.reshape(())


def loss_and_gradient(model: nn.Module, batch: Batch, loss: Loss = class_loss) -> tuple[Tensor, Gradient]:
    """Return loss and gradient of a batch; ``.grad`` is not touched, and no hooks of accumulation run.

    Raises:
        InvalidValueError: as for :func:`loss_of`, or if the loss has no graph, as of a model without gradients.
    """
    parameters = trained(model)
    with torch.enable_grad():
        value = loss_of(model, batch, loss)
        if not value.requires_grad:
            raise InvalidValueError(
                "Expected the loss to depend on the model's parameters, so that it has a gradient, but its graph is "
                "cut; is there torch.no_grad, detach or a rounding on the way?"
            )
        # Not backward: DistributedDataParallel and users hang hooks on what accumulates gradients.
        found = torch.autograd.grad(value, parameters, materialize_grads=True)
    return value.detach(), found


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that need gradients.

    Raises:
        InvalidValueError: if there is none.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InvalidValueError("Expected `model` to have parameters that need gradients, but all are frozen")
    return parameters


def norm(gradient: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of several tensors as of one vector, in float64."""
    norms = [torch.linalg.vector_norm(g.detach(), dtype=torch.float64) for g in gradient]
    whole: Tensor = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
    return whole


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Return the inner product of several tensors as of one vector, in float64."""
    parts = [(a.detach().double() * b.detach().double()).sum() for a, b in zip(left, right, strict=True)]
    return torch.stack([part.to(parts[0].device) for part in parts]).sum()


def cosine(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Return ``<left, right> / (|left| |right|)``; 0 if one of them is zero."""
    return dot(left, right) / (norm(left) * norm(right)).clamp(min=torch.finfo(torch.float64).tiny)


@dataclass(frozen=True)
class Displaced:
    """What a training method's perturbation does to a batch; mean over its draws.

    Attributes:
        loss: at the perturbed weights.
        gradient: there.
        length: Euclidean distance of the perturbed weights from the clean ones.
    """

    loss: Tensor
    gradient: Gradient
    length: Tensor


def displaced_by(
    method: Method,
    model: nn.Module,
    batch: Batch,
    clean: Gradient,
    *,
    stream: Stream,
    strength: float = 1.0,
    sites: Sequence[Site] | None = None,
    memory: Memory | None = None,
    loss: Loss = class_loss,
    gradient: bool = True,
) -> Displaced:
    """Return loss and gradient where a training method would take them on this batch.

    Args:
        method: of training.
        model: in evaluation mode; weights and ``.grad`` are put back.
        batch: of which the gradient is.
        clean: gradient of the batch at the clean weights.
        stream: random numbers of the perturbation.
        strength: share of the method's full strength, >= 0.
        sites: what ``method.sites(model)`` returned, if it is known.
        memory: what the method remembers of past gradients.
        loss: mean loss of a batch.
        gradient: whether gradient and length are wanted; else the one is empty and the other NaN.
    """
    parameters = trained(model)
    sites = method.sites(model) if sites is None else sites
    held = take(parameters)
    losses, lengths = [], []
    total: list[Tensor] = []
    try:
        for draw in range(method.draws):
            put(dict(zip(parameters, clean, strict=True)))
            own = stream.child("draw", draw)
            moment = Moment(sites, parameters if method.follows_gradient else (), own, strength, memory or {}, {})
            before = [site.weight().clone() for site in sites] if sites else [p.detach().clone() for p in parameters]
            with method.displace(moment):
                if gradient:
                    now = [site.weight() for site in sites] if sites else [p.detach() for p in parameters]
                    lengths.append(norm([a - b for a, b in zip(now, before, strict=True)]))
                    value, found = loss_and_gradient(model, batch, loss)
                    put(dict(zip(parameters, found, strict=True)))  # for methods that pull it back on leaving
                else:
                    with torch.no_grad():
                        value = loss_of(model, batch, loss)
            losses.append(value.double())
            if gradient:
                here = [p.grad.detach() for p in parameters if p.grad is not None]
                total = here if not total else [a + b for a, b in zip(total, here, strict=True)]
    finally:
        for parameter in parameters:
            parameter.grad = None
        put(held)
    mean = tuple(g / method.draws for g in total)
    length = torch.stack(lengths).mean() if lengths else torch.tensor(math.nan)
    return Displaced(torch.stack(losses).mean(), mean, length)


def mixed(method: Method, clean: Gradient, perturbed: Gradient) -> Gradient:
    """Return the gradient that updates: ``(1 - a) * clean + a * perturbed``."""
    a = method.perturbed_weight
    return tuple((1 - a) * g + a * p for g, p in zip(clean, perturbed, strict=True))
