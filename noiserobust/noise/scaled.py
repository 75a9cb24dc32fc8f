"""Additive noise whose strength is a fraction of the weights' own scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from noiserobust.errors import check_choice, check_number
from noiserobust.noise.base import Noise, check_weight
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.noise.reference import GRANULARITIES, REFERENCES, Tile, check_tile, group_name, reference_scale
from noiserobust.rng import Stream, draw


@dataclass(frozen=True)
class ScaledNoise(Noise):
    """``w + level * scale(w) * z`` with independent unit noise ``z`` on every weight.

    Args:
        reference: what the level is a fraction of: ``"max"`` the largest magnitude (default), ``"l2"`` the Euclidean
            norm, ``"std"`` the population standard deviation of the group, ``"sqrt-max"`` the square root of its
            largest magnitude; ``"weight"`` each weight's own magnitude (multiplicative noise); ``"absolute"`` 1.
        granularity: the group: ``"filter"`` one output channel (default), ``"tensor"``, ``"tile"``, or ``"column"``,
            what a filter has in one tile.
        tile: ``(rows, columns)`` of a crossbar tile; rows take inputs, columns take output channels.
    """

    reference: str = field(default="max", kw_only=True)
    granularity: str = field(default="filter", kw_only=True)
    tile: Tile = field(default=(512, 512), kw_only=True)

    settings: ClassVar[tuple[str, ...]] = ("reference", "granularity", "tile")
    kind: ClassVar[str]
    unit_noise: ClassVar[str]
    """The distribution of z, as :func:`noiserobust.rng.draw` knows it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, self.level_name, check_number(self.level_name, self.level, minimum=0))
        check_choice("reference", self.reference, REFERENCES)
        check_choice("granularity", self.granularity, GRANULARITIES)
        object.__setattr__(self, "tile", check_tile(self.tile))

    @property
    def name(self) -> str:
        """The kind, followed by whatever differs from the default."""
        parts = [self.kind]
        if self.reference != "max":
            parts.append(self.reference)
        if self.reference not in ("absolute", "weight") and self.granularity != "filter":
            parts.append(group_name(self.granularity, self.tile))
        return "-".join(parts)

    @property
    def level(self) -> float:
        """The severity: sigma or b."""
        return getattr(self, self.level_name)  # type: ignore[no-any-return]

    def at(self, level: float) -> Self:
        """Return the same noise at another severity, a finite number >= 0."""
        changed: dict[str, Any] = {self.level_name: level}
        return replace(self, **changed)

    def describe(self) -> dict[str, Any]:
        """Return kind, reference, granularity and tile."""
        settings = {k: v for k, v in asdict(self).items() if k != self.level_name}
        return {"kind": self.kind, **settings, "tile": list(self.tile)}

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return ``weight + level * scale * z``; see :meth:`Noise.perturb`. Level 0 gives an exact copy."""
        noisy = check_weight(weight).clone()
        self._add_to(noisy, stream, view)
        return noisy.to(weight.dtype)

    def draw(self, requests: Sequence[tuple[Stream, tuple[int, ...]]]) -> Sequence[Tensor | None]:
        """Return ``z`` for several weights; see :meth:`Noise.draw`."""
        if self.level == 0 or self._is_overridden:
            return super().draw(requests)
        return [torch.from_numpy(numbers) for numbers in draw(self.unit_noise, requests)]

    def perturb_(
        self,
        weight: Tensor,
        stream: Stream,
        view: FilterView = FILTERS,
        drawn: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> None:
        """Do what :meth:`perturb` does, in place and without a copy where the dtype allows."""
        if self._is_overridden:
            super().perturb_(weight, stream, view, drawn, gain)
            return
        exact = check_weight(weight)
        self._add_to(exact, stream, view, drawn, gain)
        if exact.dtype != weight.dtype:
            with torch.no_grad():
                weight.copy_(exact)

    @property
    def _is_overridden(self) -> bool:
        """Whether a subclass has a ``perturb`` of its own, which then says what the noise is."""
        return type(self).perturb is not ScaledNoise.perturb

    def _add_to(
        self,
        exact: Tensor,
        stream: Stream,
        view: FilterView,
        drawn: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> None:
        if self.level == 0 or exact.numel() == 0:
            return
        # The largest magnitude is the same in any order: the weights are read as they lie in memory.
        unordered = self.reference == "max" and self.granularity == "filter"
        matrix = view.rows(exact) if unordered else view.matrix(exact)
        scale = view.spread(reference_scale(matrix, self.reference, self.granularity, self.tile), exact.shape)
        if drawn is None:
            drawn = torch.from_numpy(draw(self.unit_noise, [(stream, tuple(exact.shape))])[0])
        strength = self.level * scale if gain is None else self.level * scale * gain.to(exact.dtype)
        exact.addcmul_(strength, drawn.to(exact.device, exact.dtype))


@dataclass(frozen=True)
class GaussianNoise(ScaledNoise):
    """Gaussian noise of standard deviation ``sigma * max|w|`` of each filter, or another reference.

    With ``reference="max"`` this is the noise of "Incorruptible neural networks", Eq. 2, N(0, max|w| sigma^2), read as
    ``std = sigma * max|w|``, and with ``"sqrt-max"`` as ``variance = sigma^2 * max|w|``; with ``"l2"`` it is that of
    RWP (Li et al., TNNLS 2024), ``std = sigma * ||w||``.

    Args:
        sigma: standard deviation as a fraction of the reference, finite, >= 0.

    Raises:
        InvalidValueError: if an argument is out of range.

    >>> GaussianNoise(0.05).at(0.1).level
    0.1
    """

    sigma: float
    kind: ClassVar[str] = "gaussian"
    level_name: ClassVar[str] = "sigma"
    unit_noise: ClassVar[str] = "normal"


@dataclass(frozen=True)
class LaplaceNoise(ScaledNoise):
    """Laplace noise of scale ``b * max|w|`` of each filter ("Incorruptible neural networks", Table 4), or another.

    Its mean absolute value is ``b`` and its standard deviation ``sqrt(2) b`` times the reference.

    Args:
        b: scale as a fraction of the reference, finite, >= 0.

    Raises:
        InvalidValueError: if an argument is out of range.
    """

    b: float
    kind: ClassVar[str] = "laplace"
    level_name: ClassVar[str] = "b"
    unit_noise: ClassVar[str] = "laplace"


SCALED_NOISES: dict[str, type[GaussianNoise] | type[LaplaceNoise]] = {
    noise.kind: noise for noise in (GaussianNoise, LaplaceNoise)
}
"""Scaled noises by their name on the command line."""
