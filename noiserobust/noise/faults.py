"""Devices and lines that do not work: their weights are stuck, whatever was programmed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from noiserobust.errors import check_choice, check_number
from noiserobust.noise.base import Noise, check_weight
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.noise.reference import GRANULARITIES, Tile, check_tile, reference_scale
from noiserobust.rng import Stream

KINDS = ("stuck-zero", "stuck-max", "dead-rows", "dead-columns")


@dataclass(frozen=True)
class Faults(Noise):
    """A random share of the weights of a chip is stuck. At equal streams more faults include the fewer.

    Args:
        p: share of the weights or lines that are faulty, in [0, 1].
        kind: ``"stuck-zero"``: weights are 0. ``"stuck-max"``: one device of a pair is fully on, so weights are the
            largest magnitude of their group, of random sign. ``"dead-rows"``, ``"dead-columns"``: inputs, or output
            channels, of a tile are cut off, and all their weights in that tile 0.
        granularity: the group whose largest magnitude ``"stuck-max"`` means, as for :class:`GaussianNoise`.
        tile: ``(rows, columns)`` of a crossbar tile; rows take inputs, columns take output channels.

    Raises:
        InvalidValueError: if an argument is out of range.
    """

    p: float
    kind: str = field(default="stuck-zero", kw_only=True)
    granularity: str = field(default="tensor", kw_only=True)
    tile: Tile = field(default=(512, 512), kw_only=True)
    level_name: ClassVar[str] = "p"
    settings: ClassVar[tuple[str, ...]] = ("granularity", "tile")

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", check_number("p", self.p, minimum=0, maximum=1))
        check_choice("kind", self.kind, KINDS)
        check_choice("granularity", self.granularity, GRANULARITIES)
        object.__setattr__(self, "tile", check_tile(self.tile))

    @property
    def name(self) -> str:
        """The kind, followed by whatever differs from the default and matters."""
        parts = [self.kind]
        if self.kind == "stuck-max" and self.granularity != "tensor":
            parts.append(self.granularity)
        if self.tile != (512, 512) and (self.kind.startswith("dead") or self.granularity in ("tile", "column")):
            parts.append("{}x{}".format(*self.tile))
        return "-".join(parts)

    @property
    def level(self) -> float:
        """The share of faulty weights or lines."""
        return self.p

    def at(self, level: float) -> Self:
        """Return the same faults at another share, in [0, 1]."""
        return replace(self, p=level)

    def describe(self) -> dict[str, Any]:
        """Return kind, granularity and tile."""
        return {"kind": self.kind, "granularity": self.granularity, "tile": list(self.tile)}

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return the weight with its faults; see :meth:`Noise.perturb`."""
        exact = check_weight(weight)
        matrix = view.matrix(exact)
        if matrix.numel() == 0 or self.p == 0:
            return weight.detach().clone()
        filters, inputs = matrix.shape
        rows, columns = self.tile
        if self.kind == "dead-rows":
            lines = self._faulty(stream, (-(-filters // columns), inputs), matrix)
            faulty = lines.repeat_interleave(columns, dim=0)[:filters]
        elif self.kind == "dead-columns":
            lines = self._faulty(stream, (filters, -(-inputs // rows)), matrix)
            faulty = lines.repeat_interleave(rows, dim=1)[:, :inputs]
        else:
            faulty = self._faulty(stream, (filters, inputs), matrix)
        stuck = torch.zeros_like(matrix)
        if self.kind == "stuck-max":
            signs = torch.from_numpy(stream.child("sign").generator().integers(0, 2, (filters, inputs)) * 2 - 1)
            stuck = signs.to(matrix) * reference_scale(matrix, "max", self.granularity, self.tile)
        return view.restore(torch.where(faulty, stuck, matrix), weight.shape).to(weight.dtype, copy=True)

    def _faulty(self, stream: Stream, shape: tuple[int, int], like: Tensor) -> Tensor:
        return torch.from_numpy(stream.generator().random(shape) < self.p).to(like.device)
