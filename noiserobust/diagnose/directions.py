"""Directions in the space of the weights, and the plane they span, as a noise whose levels are the points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.noise.base import Noise, check_weight, chip_stream
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.rng import Stream

_TINY = 1e-10  # beside the norm, as Li et al. have it


class Direction(ABC):
    """A direction: for each noisy weight a tensor of its shape."""

    @abstractmethod
    def of(self, weight: Tensor, stream: Stream, view: FilterView) -> Tensor:
        """Return the direction's part for a weight.

        Args:
            weight: the trained weight, float32 or float64; not changed.
            stream: of a chip and the weight, ``Stream(seed, "deploy", train_seed, draw, name)``.
            view: how it is laid out in filters.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what determines the direction beside the weights, JSON-able."""


@dataclass(frozen=True)
class RandomDirection(Direction):
    """A Gaussian direction, of which each filter has the norm of the weights' filter.

    The numbers before normalisation are the same for all models of one architecture.

    Args:
        seed: root seed, >= 0.
        index: which of the directions of this seed, >= 0.

    Source: Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, section 4: ``d <- d |w| / |d|``
    for each filter; biases and normalisation parameters stay.
    """

    seed: int
    index: int

    def of(self, weight: Tensor, stream: Stream, view: FilterView) -> Tensor:
        """Return the direction's part for a weight."""
        numbers = Stream(self.seed, "landscape", self.index, stream.path[-1]).normal(tuple(weight.shape))
        matrix = view.matrix(torch.from_numpy(numbers).to(weight.device, weight.dtype))
        lengths = torch.linalg.vector_norm(view.matrix(weight), dim=1, keepdim=True)
        own = torch.linalg.vector_norm(matrix, dim=1, keepdim=True)
        return view.restore(matrix * (lengths / (own + _TINY)), weight.shape)

    def describe(self) -> dict[str, Any]:
        """Return seed and index."""
        return {"kind": "random", "seed": self.seed, "index": self.index}


@dataclass(frozen=True)
class NoiseDirection(Direction):
    """What a noise does to the weights on one chip: at 1 the network is on that chip, one of its own train seed.

    Args:
        noise: at its level.
        draw: number of the chip, as in :func:`noiserobust.evaluate`.
    """

    noise: Noise
    draw: int

    def of(self, weight: Tensor, stream: Stream, view: FilterView) -> Tensor:
        """Return the noise on a weight."""
        _, train_seed, _, *rest = stream.path
        chip = chip_stream(stream.seed, int(train_seed), self.draw).child(*rest)
        return self.noise.perturb(weight, chip, view) - weight

    def describe(self) -> dict[str, Any]:
        """Return noise, level and draw."""
        return {"kind": "noise", "noise": self.noise.describe(), "level": self.noise.level, "draw": self.draw}


class _Kept(dict[str, tuple[int | str, Tensor, list[Tensor]]]):
    """Directions by the name of the weight, with train seed and weight they are of; one for all points of a plane."""

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()  # a worker makes them itself: they are larger than what tells them


@dataclass(frozen=True)
class Plane(Noise):
    """Points ``w + x d1 + y d2``, possibly on noisy chips: level k is the k-th point, row by row, counted from 1.

    An evaluation of all of its levels is a landscape. Noise that is given falls on the displaced weights: the value is
    what a network with these weights would have on the chip.

    Args:
        directions: one or two.
        axes: for each direction its multiples.
        noise: on top, at its level; None for none.
        point: the level.
    """

    directions: Sequence[Direction]
    axes: Sequence[Sequence[float]]
    noise: Noise | None = None
    point: int = 0
    _kept: _Kept = field(default_factory=_Kept, repr=False, compare=False)

    level_name: ClassVar[str] = "point"

    @property
    def name(self) -> str:
        """``landscape``, with the noise on top."""
        return "landscape" if self.noise is None else f"landscape+{self.noise.name}"

    @property
    def level(self) -> float:
        """Number of the point."""
        return float(self.point)

    @property
    def size(self) -> int:
        """How many points there are."""
        number = 1
        for axis in self.axes:
            number *= len(axis)
        return number

    def at(self, level: float) -> Self:
        """Return another point of the plane.

        Raises:
            InvalidValueError: if there is none of that number.
        """
        number = check_integer("point", int(level) if float(level).is_integer() else level, minimum=0)
        if number > self.size:
            raise InvalidValueError(f"Expected `point` to be at most {self.size}, but got {number}")
        return replace(self, point=number)

    def coordinates(self, level: float | None = None) -> tuple[float, ...]:
        """Return the multiples of the directions at a point, by default this one."""
        rest = int(self.point if level is None else level) - 1
        found = []
        for axis in self.axes:
            rest, position = divmod(rest, len(axis))
            found.append(float(axis[position]))
        return tuple(found)

    def weakened(self, strength: float) -> Noise:
        """Not defined: a point has no strength.

        Raises:
            InvalidValueError: always.
        """
        raise InvalidValueError("Expected a noise with a strength, but got the points of a landscape")

    def describe(self) -> dict[str, Any]:
        """Return directions, axes and the noise on top."""
        noise = {} if self.noise is None else {"noise": {**self.noise.describe(), "level": self.noise.level}}
        directions = [direction.describe() for direction in self.directions]
        return {
            "kind": "landscape",
            "directions": directions,
            "axes": [list(map(float, a)) for a in self.axes],
            **noise,
        }

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return the weight at the point; see :meth:`Noise.perturb`."""
        exact = check_weight(weight)
        if self.point == 0:
            return weight.detach().clone()
        moved = exact.clone()
        for multiple, direction in zip(self.coordinates(), self._directions(exact, stream, view), strict=True):
            moved.add_(direction, alpha=multiple)
        if self.noise is not None:
            moved = self.noise.perturb(moved, stream, view)
        return moved.to(weight.dtype)

    def _directions(self, weight: Tensor, stream: Stream, view: FilterView) -> list[Tensor]:
        """Return the directions' parts for a weight; they are made once, and kept as long as the weight is the same."""
        name, train_seed = str(stream.path[-1]), stream.path[1]
        seed, kept, parts = self._kept.get(name, (None, None, []))
        same = kept is not None and (seed, kept.shape, kept.device) == (train_seed, weight.shape, weight.device)
        if kept is None or not same or not torch.equal(kept, weight):
            parts = [direction.of(weight, stream, view) for direction in self.directions]
            self._kept[name] = train_seed, weight.clone(), parts
        return parts
