"""Gradients of a list of parameters: taken aside, added up, mixed. Nothing is copied that need not be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Gradients = dict[nn.Parameter, Tensor]


def take(parameters: Iterable[nn.Parameter], *, copy: bool = False) -> Gradients:
    """Return the gradients and leave the parameters without; ``copy`` if their memory will be used again."""
    taken = {}
    for parameter in parameters:
        if parameter.grad is not None:
            taken[parameter] = parameter.grad.clone() if copy else parameter.grad
            parameter.grad = None
    return taken


def put(gradients: Gradients) -> None:
    """Make these the gradients of their parameters."""
    for parameter, gradient in gradients.items():
        parameter.grad = gradient


def scale_(gradients: Gradients, factor: float) -> Gradients:
    """Multiply gradients in place."""
    if gradients and factor != 1:
        torch._foreach_mul_(list(gradients.values()), factor)
    return gradients


def add_(total: Gradients, more: Gradients, factor: float = 1.0) -> Gradients:
    """Add ``factor * more`` in place; a parameter that only one of them has counts with what it has."""
    common = [p for p in more if p in total]
    if common:
        torch._foreach_add_([total[p] for p in common], [more[p] for p in common], alpha=factor)
    rest = {p: g for p, g in more.items() if p not in total}
    return total | scale_(rest, factor)


def mix(clean: Gradients, perturbed: Gradients, share: float) -> Gradients:
    """Return ``(1 - share) * clean + share * perturbed``, in the memory of ``clean``."""
    return add_(scale_(clean, 1 - share), perturbed, share)


@contextmanager
def multiplied(parameters: Iterable[nn.Parameter], factor: float) -> Iterator[None]:
    """Multiply each gradient that a backward pass inside the block computes, before anything else sees it.

    Also before DistributedDataParallel averages over ranks.
    """
    hooks = []
    if factor != 1:
        hooks = [p.register_hook(lambda gradient: gradient * factor) for p in parameters if p.requires_grad]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
