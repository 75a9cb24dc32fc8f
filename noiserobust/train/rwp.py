"""Random weight perturbation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from noiserobust.errors import InvalidValueError, check_integer, check_number
from noiserobust.noise.base import Noise
from noiserobust.noise.sites import Select, Site, find_sites
from noiserobust.perturb import Change, displaced, noisy_weights
from noiserobust.rng import Stream
from noiserobust.train.method import Method, Moment


@dataclass(frozen=True)
class RWP(Method):
    """RWP: the gradient is taken at noisy weights.

    The update uses ``(1 - a) * grad L(w) + a * grad L(w + noise)`` with ``a = perturbed_weight``. ``a = 1`` is RWP as
    in "Incorruptible neural networks", Eq. 2 (there with max-scaled Gaussian noise); ``0 < a < 1`` is the mixed RWP of
    Li et al. (there ``a = 0.5`` and ``GaussianNoise(0.01, reference="l2")``), called m-RWP by their later paper. Any
    noise can be trained with; for device noise the gradient passes straight through it.

    Args:
        noise: what happens to the weights.
        perturbed_weight: share of the perturbed gradient, in (0, 1]. Below 1 a step costs one more pass.
        select: which weights are noisy, as in :func:`noiserobust.find_sites`.
        level_range: lowest and highest level; the noise's level is drawn anew for each draw, uniformly between the two,
            or log-uniformly if it is a time. The noise's own level then does not matter.
        draws: noise draws a step over which the perturbed gradient is averaged, >= 1; each costs a pass.
        chips: parts that the closures of a step are divided into, each with noise of its own, >= 1: so many chips a
            step at the cost of one pass, or as many as there are closures if those are fewer. The closures of all ranks
            of a DistributedDataParallel count, in their order. aihwkit's ``per_batch_sample`` is a chip an example.

    Raises:
        InvalidValueError: if an argument is out of range.

    Source: Li et al., "Efficient generalization improvement guided by random weight perturbation", TNNLS 2024, Eq. 4
    and 7.
    """

    noise: Noise
    perturbed_weight: float = 1.0
    select: Select | None = None
    level_range: tuple[float | str, float | str] | None = None
    draws: int = 1
    chips: int = field(default=1, kw_only=True)
    name: ClassVar[str] = "rwp"
    can_split: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.noise, Noise):
            raise InvalidValueError(f"Expected `noise` to be a noise object, but got {self.noise!r}")
        check_number("perturbed_weight", self.perturbed_weight, above=0, maximum=1)
        check_integer("draws", self.draws, minimum=1)
        check_integer("chips", self.chips, minimum=1)
        if self.level_range is not None:
            object.__setattr__(self, "level_range", self._parsed(self.level_range))

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the weights that noise falls on."""
        return find_sites(model, self.select)

    def displace(self, moment: Moment) -> AbstractContextManager[None]:
        """Return a context in which the weights are noisy."""
        return displaced(self._noisy(moment), moment.saved)

    def _noisy(self, moment: Moment) -> Iterator[tuple[Site, Change]]:
        return noisy_weights(moment.sites, self._noise_of(moment), moment.stream)

    def _noise_of(self, moment: Moment) -> Noise:
        noise = self.noise
        if self.level_range is not None:
            noise = noise.at(self._level(moment.stream))
        return noise.weakened(moment.strength)

    def _level(self, stream: Stream) -> float:
        low, high = (float(level) for level in self.level_range or ())
        share = stream.child("level").generator().random()
        if self.noise.level_name == "t":
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        return low + share * (high - low)

    def _parsed(self, levels: object) -> tuple[float, float]:
        if not isinstance(levels, (tuple, list)) or len(levels) != 2:
            raise InvalidValueError(f"Expected `level_range` to be (lowest, highest), but got {levels!r}")
        low, high = (self.noise.parse_level(level) for level in levels)
        if low > high:
            raise InvalidValueError(f"Expected `level_range` to be (lowest, highest), but got {levels!r}")
        return low, high
