"""Weights rounded to few levels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from noiserobust.errors import InvalidValueError, check_choice, check_number
from noiserobust.noise.base import Noise, check_weight
from noiserobust.noise.compose import Weakened
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.noise.reference import GRANULARITIES, Tile, check_tile, group_name, reference_scale
from noiserobust.rng import Stream


@dataclass(frozen=True)
class Quantization(Noise):
    """Weights rounded to ``2^bits - 1`` equally spaced levels from minus to plus the largest magnitude of their group.

    Nothing is random about it. Level 0 means that weights are not rounded.

    Args:
        bits: 2 to 24, or 0.
        granularity: the group, as for :class:`GaussianNoise`; by default each filter has levels of its own.
        tile: ``(rows, columns)`` of a crossbar tile.

    Raises:
        InvalidValueError: if an argument is out of range.
    """

    bits: float
    granularity: str = field(default="filter", kw_only=True)
    tile: Tile = field(default=(512, 512), kw_only=True)
    level_name: ClassVar[str] = "bits"
    settings: ClassVar[tuple[str, ...]] = ("granularity", "tile")

    def __post_init__(self) -> None:
        bits = check_number("bits", self.bits, minimum=0, maximum=24)
        if bits != int(bits) or bits == 1:
            raise InvalidValueError(f"Expected `bits` to be 0 or an integer from 2 to 24, but got {self.bits!r}")
        object.__setattr__(self, "bits", bits)
        check_choice("granularity", self.granularity, GRANULARITIES)
        object.__setattr__(self, "tile", check_tile(self.tile))

    @property
    def name(self) -> str:
        """``quantization``, followed by whatever differs from the default."""
        group = group_name(self.granularity, self.tile)
        return "quantization" if self.granularity == "filter" else f"quantization-{group}"

    @property
    def level(self) -> float:
        """The number of bits."""
        return self.bits

    def at(self, level: float) -> Self:
        """Return the same rounding with another number of bits."""
        return replace(self, bits=level)

    def describe(self) -> dict[str, Any]:
        """Return granularity and tile."""
        return {"kind": "quantization", "granularity": self.granularity, "tile": list(self.tile)}

    def weakened(self, strength: float) -> Noise:
        """Return the rounding with its error multiplied by ``strength``."""
        return self if strength == 1 else Weakened(self, strength)

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return the rounded weight; see :meth:`Noise.perturb`."""
        exact = check_weight(weight)
        matrix = view.matrix(exact)
        if matrix.numel() == 0 or self.bits == 0:
            return weight.detach().clone()
        step = reference_scale(matrix, "max", self.granularity, self.tile) / (2 ** (self.bits - 1) - 1)
        rounded = torch.where(step > 0, (matrix / step).round() * step, matrix)
        return view.restore(rounded, weight.shape).to(weight.dtype, copy=True)
