"""What a perturbative training method has to say: where to go before the gradient is taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

from torch import nn

from noiserobust.perturb import Site
from noiserobust.rng import Stream


class Method(ABC):
    """A rule that moves weights before the gradient is taken that updates them."""

    name: ClassVar[str]
    """Short name for result tables."""

    @property
    @abstractmethod
    def needs_clean_gradient(self) -> bool:
        """Whether a pass at the unperturbed weights comes first."""

    @property
    @abstractmethod
    def perturbed_weight(self) -> float:
        """Share of the perturbed gradient in the update, in (0, 1]; the rest is the clean gradient's."""

    @abstractmethod
    def sites(self, model: nn.Module) -> list[Site]:
        """Return the weights that noise falls on; empty for a method without noise."""

    @abstractmethod
    def displace(
        self, sites: Sequence[Site], parameters: Sequence[nn.Parameter], stream: Stream
    ) -> AbstractContextManager[None]:
        """Return a context in which the weights are displaced.

        Args:
            sites: what :meth:`sites` returned.
            parameters: the parameters being optimised that have a gradient, if the method needs clean gradients.
            stream: random numbers of this optimizer step.
        """
