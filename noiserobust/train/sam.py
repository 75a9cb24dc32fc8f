"""Sharpness-aware minimisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError, check_number
from noiserobust.perturb import Site, displaced
from noiserobust.rng import Stream
from noiserobust.train.method import Method


@dataclass(frozen=True)
class SAM(Method):
    """SAM: the gradient is taken at ``w + rho * g / ||g||_2``, g being the gradient at w on the same batch.

    One norm over all parameters that have a gradient, biases and normalisation parameters included. Weight decay is
    no part of the ascent.

    Args:
        rho: radius, finite, >= 0, in units of the weights.

    Raises:
        InvalidValueError: if ``rho`` is out of range.

    Source: Foret et al., "Sharpness-aware minimization for efficiently improving generalization", ICLR 2021, Eq. 2-3.
    """

    rho: float = 0.05
    name: ClassVar[str] = "sam"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", check_number("rho", self.rho, minimum=0))

    @property
    def needs_clean_gradient(self) -> bool:
        """True: the clean gradient is the direction of ascent."""
        return True

    @property
    def perturbed_weight(self) -> float:
        """1: only the gradient at the ascended point updates."""
        return 1.0

    def sites(self, model: nn.Module) -> list[Site]:
        """Return nothing: SAM moves the parameters themselves, not the weights in a crossbar."""
        return []

    def displace(
        self, sites: Sequence[Site], parameters: Sequence[nn.Parameter], stream: Stream
    ) -> AbstractContextManager[None]:
        """Return a context in which the parameters are moved along their gradients."""
        return displaced(self._ascended(parameters))

    def _ascended(self, parameters: Sequence[nn.Parameter]) -> Iterator[tuple[nn.Parameter, Tensor]]:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if any(g.is_sparse for g in gradients):
            raise InvalidValueError("Expected the gradients for SAM to be dense, but got a sparse one")
        # Norms are added up in float32: squares of half-precision gradients underflow.
        norms = [torch.linalg.vector_norm(g, dtype=torch.promote_types(g.dtype, torch.float32)) for g in gradients]
        norm = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            step = self.rho / (norm.to(gradient.device) + 1e-12)
            yield parameter, parameter.detach() + gradient * step
