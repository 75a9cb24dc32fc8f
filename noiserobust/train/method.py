"""What a perturbative training method has to say: where to go before the gradient is taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from noiserobust.noise.sites import Site
from noiserobust.perturb import SavedWeights
from noiserobust.rng import Stream

Memory = dict[str, Tensor]
"""What a method remembers from step to step, by the name of the weight; saved with the optimizer's state."""


@dataclass(frozen=True)
class Moment:
    """What a method is told of one perturbed pass.

    Args:
        sites: the weights that noise falls on: what :meth:`Method.sites` returned.
        parameters: the optimised parameters that have a gradient, if the method follows clean gradients.
        stream: random numbers of this pass.
        strength: share of the method's full strength, >= 0.
        memory: what the method remembers.
        saved: where the weights are kept meanwhile, to be handed to :func:`noiserobust.perturb.displaced`.
    """

    sites: Sequence[Site]
    parameters: Sequence[nn.Parameter]
    stream: Stream
    strength: float
    memory: Memory
    saved: SavedWeights


class Method(ABC):
    """A rule that moves weights before the gradient is taken that updates them. Immutable: memory is the optimizer's.

    The update uses ``(1 - a) * grad L(w) + a * grad L(w + perturbation)`` with ``a = perturbed_weight``, the perturbed
    gradient being the mean over ``draws`` perturbations.
    """

    name: ClassVar[str]
    """Short name for result tables."""

    follows_gradient: ClassVar[bool] = False
    """Whether the gradient at the unperturbed weights says where to go, so that its pass has to come first."""

    can_split: ClassVar[bool] = False
    """Whether its perturbed gradient may be computed by some processes only, and averaged with clean ones of others."""

    perturbed_weight: float = 1.0
    """Share of the perturbed gradient in the update, in (0, 1]; the rest is the clean gradient's."""

    draws: int = 1
    """Perturbations a step, >= 1."""

    chips: int = 1
    """Parts of a step's closures that each get a perturbation of their own, >= 1."""

    per_micro_batch: bool = False
    """Whether each of several closures of a step gets a perturbation of its own."""

    @property
    def needs_clean_gradient(self) -> bool:
        """Whether there is a pass at the unperturbed weights too."""
        return self.follows_gradient or self.perturbed_weight < 1

    @property
    def passes(self) -> int:
        """Forward-backward passes over a batch that a step takes."""
        return self.draws + self.needs_clean_gradient

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the weights that noise falls on; empty for a method that moves parameters."""
        return []

    @abstractmethod
    def displace(self, moment: Moment) -> AbstractContextManager[None]:
        """Return a context in which the weights are displaced. Its strength is > 0."""

    def memory_shape(self, site: Site) -> tuple[int, ...] | None:
        """Return the shape of what is remembered of a weight, or None for nothing."""
        return None

    def remember(self, moment: Moment, scale: float) -> None:  # noqa: B027 - most methods have no memory
        """Update the memory when the perturbed gradient is in ``.grad``, before it is mixed with the clean one.

        Args:
            moment: of the last perturbed pass of the step.
            scale: the gradients are this many times too large (loss scaling), > 0.
        """


@dataclass(frozen=True)
class Unperturbed(Method):
    """No perturbation: the base optimizer as it is."""

    name: ClassVar[str] = "sgd"

    def displace(self, moment: Moment) -> AbstractContextManager[None]:
        """Return a context in which nothing is displaced."""
        return nullcontext()
