"""Sharpness-aware minimisation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError, check_number
from noiserobust.perturb import Change, displaced
from noiserobust.train.method import Method, Moment

_TINY = 1e-12  # beside the norm, as in the authors' code


@dataclass(frozen=True)
class _Ascent(Method):
    """The gradient is taken ``rho`` further up; subclasses say in which metric.

    Args:
        rho: radius, finite, >= 0.
        perturbed_weight: share of the gradient at the ascended weights, in (0, 1]; the rest is the clean gradient's
            (Li et al., TNNLS 2024, section 4.7).
        per_micro_batch: whether each closure of a step ascends along its own gradient (m-sharpness) instead of all
            along their mean. Under DistributedDataParallel each rank then follows its own gradient.

    Raises:
        InvalidValueError: if an argument is out of range.
    """

    rho: float
    perturbed_weight: float = 1.0
    per_micro_batch: bool = False
    follows_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", check_number("rho", self.rho, minimum=0))
        check_number("perturbed_weight", self.perturbed_weight, above=0, maximum=1)

    def displace(self, moment: Moment) -> AbstractContextManager[None]:
        """Return a context in which the parameters are moved along their gradients."""
        return displaced(self._ascended(moment.parameters, self.rho * moment.strength), moment.saved)

    def _ascended(self, parameters: Sequence[nn.Parameter], rho: float) -> Iterator[tuple[nn.Parameter, Change]]:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if any(g.is_sparse for g in gradients):
            raise InvalidValueError(f"Expected the gradients for {self.name.upper()} to be dense, but got a sparse one")
        pairs = list(zip(parameters, gradients, strict=True))
        # Norms are added up in float32: squares of half-precision gradients underflow.
        norms = [self._norm(p.detach(), g, torch.promote_types(g.dtype, torch.float32)) for p, g in pairs]
        norm = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
        for parameter, gradient in pairs:
            yield parameter, partial(self._ascend, gradient=gradient, length=rho / (norm.to(gradient.device) + _TINY))

    def _ascend(self, weight: Tensor, gradient: Tensor, length: Tensor) -> None:
        exact = torch.promote_types(weight.dtype, torch.float32)  # products of half-precision numbers underflow
        weight.add_((self._direction(weight.to(exact), gradient.to(exact)) * length).to(weight.dtype))

    @staticmethod
    @abstractmethod
    def _norm(weight: Tensor, gradient: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the length of a gradient in the metric of the method."""

    @staticmethod
    @abstractmethod
    def _direction(weight: Tensor, gradient: Tensor) -> Tensor:
        """Return the direction of steepest ascent in that metric, not normalised."""


@dataclass(frozen=True)
class SAM(_Ascent):
    """SAM: the gradient is taken at ``w + rho * g / ||g||_2``, g being the gradient at w on the same batch.

    One norm over all parameters that have a gradient, biases and normalisation parameters included. Weight decay is
    no part of the ascent.

    Args:
        rho: radius, finite, >= 0, in units of the weights.
        perturbed_weight: share of the gradient at the ascended weights, in (0, 1]; the rest is the clean gradient's
            (Li et al., TNNLS 2024, section 4.7).
        per_micro_batch: whether each closure of a step ascends along its own gradient (m-sharpness) instead of all
            along their mean. Under DistributedDataParallel each rank then follows its own gradient.

    Raises:
        InvalidValueError: if an argument is out of range.

    Source: Foret et al., "Sharpness-aware minimization for efficiently improving generalization", ICLR 2021, Eq. 2-3.
    """

    rho: float = 0.05
    name: ClassVar[str] = "sam"

    @staticmethod
    def _norm(weight: Tensor, gradient: Tensor, dtype: torch.dtype) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(gradient, dtype=dtype)
        return norm

    @staticmethod
    def _direction(weight: Tensor, gradient: Tensor) -> Tensor:
        return gradient


@dataclass(frozen=True)
class ASAM(_Ascent):
    """ASAM: the gradient is taken at ``w + rho * w^2 g / || |w| g ||_2``, elementwise: the ascent is scale-invariant.

    Args:
        rho: radius, finite, >= 0, as a fraction of the weights; some ten times that of SAM.
        perturbed_weight: as for :class:`SAM`.
        per_micro_batch: as for :class:`SAM`.

    Raises:
        InvalidValueError: if an argument is out of range.

    Source: Kwon et al., "ASAM: Adaptive sharpness-aware minimization for scale-invariant learning of deep neural
    networks", ICML 2021, Eq. 8 with the elementwise operator and without its offset eta.
    """

    rho: float = 0.5
    name: ClassVar[str] = "asam"

    @staticmethod
    def _norm(weight: Tensor, gradient: Tensor, dtype: torch.dtype) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(weight.to(dtype) * gradient.to(dtype))
        return norm

    @staticmethod
    def _direction(weight: Tensor, gradient: Tensor) -> Tensor:
        return weight.square() * gradient
