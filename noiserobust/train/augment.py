"""Weight augmentation (WAS): training at randomly transformed kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from noiserobust.errors import InvalidValueError, check_choice
from noiserobust.noise.kernels import KernelTransform
from noiserobust.noise.sites import Site
from noiserobust.train.method import Moment
from noiserobust.train.rwp import RWP


@dataclass(frozen=True)
class WeightAugmentation(RWP):
    """WAS: the loss is that of *shadow weights* ``T(w)``, T being a new random transform of each layer's kernels.

    The gradient flows through T to the *plain weights* w, which are what is stored. Accuracy-oriented inference (AOM)
    uses w; desire-oriented inference (DOM) uses some ``T(w)``: ``nr.perturbed(model, method.noise, seed, draw)``, with
    batch norm recalibrated there (:func:`noiserobust.recalibrate`); :func:`noiserobust.dom_cost` counts what it saves.

    Args:
        noise: the transforms.
        perturbed_weight: as for :class:`RWP`.
        select: which weights; by default those of two-dimensional convolutions with kernels larger than 1 x 1.
        level_range: as for :class:`RWP`; the level is the probability of a transform.
        draws: as for :class:`RWP`.
        gradient: ``"through"`` T, or ``"straight"``: as if T were the identity.

    Raises:
        InvalidValueError: if an argument is out of range.

    Source: arXiv 2405.19590. The learnable gain of each convolution that the authors' code has is left out.
    """

    noise: KernelTransform = field(default_factory=KernelTransform)
    gradient: str = "through"
    name: ClassVar[str] = "was"
    can_split: ClassVar[bool] = False  # the gradients of noisy ranks alone would have to go through the transform

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.noise, KernelTransform):
            raise InvalidValueError(f"Expected `noise` to be a KernelTransform, but got {self.noise!r}")
        check_choice("gradient", self.gradient, ("through", "straight"))

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the weights with kernels.

        Raises:
            InvalidValueError: if there is none, or one is parametrised: its gradient is not at hand.
        """
        sites = [s for s in super().sites(model) if s.weight().ndim == 4 and max(s.weight().shape[-2:]) > 1]
        if not sites:
            raise InvalidValueError("Expected `model` to have kernels larger than 1 x 1, but got none")
        for site in sites:
            if site.parametrised:
                raise InvalidValueError(
                    f"Expected {site.name} to be a plain parameter with weight augmentation, but it is parametrised"
                )
        return sites

    @contextmanager
    def displace(self, moment: Moment) -> Iterator[None]:
        """Put the shadow weights in place; afterwards turn their gradients into those of the plain weights."""
        with super().displace(moment):
            yield
        if self.gradient == "straight":
            return
        noise = self._noise_of(moment)
        assert isinstance(noise, KernelTransform)
        for site in moment.sites:
            parameter = site.parameter()
            if parameter.grad is not None:
                parameter.grad = noise.pull_back(parameter.grad, moment.stream.child(site.name))
