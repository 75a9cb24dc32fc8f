"""Random weight perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from noiserobust.errors import InvalidValueError, check_number
from noiserobust.noise.base import Noise
from noiserobust.perturb import Select, Site, displaced, find_sites, noisy_weights
from noiserobust.rng import Stream
from noiserobust.train.method import Method


@dataclass(frozen=True)
class RWP(Method):
    """RWP: the gradient is taken at noisy weights, one noise draw a step.

    The update uses ``(1 - a) * grad L(w) + a * grad L(w + noise)`` with ``a = perturbed_weight``. ``a = 1`` is RWP as
    in "Incorruptible neural networks", Eq. 2 (there with max-scaled Gaussian noise); ``0 < a < 1`` is the mixed RWP of
    Li et al. (there ``a = 0.5`` and ``GaussianNoise(0.01, reference="l2")``), called m-RWP by their later paper. Any
    noise can be trained with; for device noise the gradient passes straight through it.

    Args:
        noise: what happens to the weights.
        perturbed_weight: share of the perturbed gradient, in (0, 1]. Below 1 a step costs two passes.
        select: which weights are noisy, as in :func:`noiserobust.perturb.find_sites`.

    Raises:
        InvalidValueError: if an argument is out of range.

    Source: Li et al., "Efficient generalization improvement guided by random weight perturbation", TNNLS 2024, Eq. 4
    and 7.
    """

    noise: Noise
    perturbed_weight: float = 1.0
    select: Select | None = None
    name: ClassVar[str] = "rwp"

    def __post_init__(self) -> None:
        if not isinstance(self.noise, Noise):
            raise InvalidValueError(f"Expected `noise` to be a noise object, but got {self.noise!r}")
        check_number("perturbed_weight", self.perturbed_weight, above=0, maximum=1)

    @property
    def needs_clean_gradient(self) -> bool:
        """True for a mixture."""
        return self.perturbed_weight < 1

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the weights that noise falls on."""
        return find_sites(model, self.select)

    def displace(
        self, sites: Sequence[Site], parameters: Sequence[nn.Parameter], stream: Stream
    ) -> AbstractContextManager[None]:
        """Return a context in which the weights are noisy."""
        return displaced(noisy_weights(sites, self.noise, stream))
