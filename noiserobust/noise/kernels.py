"""Random shifts, crops, turns and flips of convolution kernels: the transforms of weight augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from typing_extensions import Self

from noiserobust.errors import InvalidValueError, check_number, unknown_name
from noiserobust.noise.base import Noise, check_weight
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.rng import Stream

Transform = Callable[[Tensor], Tensor]
"""A linear map of weights ``(out, in, height, width)`` to weights of the same shape."""


@dataclass(frozen=True)
class KernelTransform(Noise):
    """One random transform of all kernels of a weight, the same for each of its filters and channels.

    Args:
        p: probability of each transform, in [0, 1].
        kinds: what is done, in this order: ``"translate"`` shifts by -1 or +1 along each axis (each with probability
            ``p``) and fills with zeros; ``"crop"`` cuts one row, column or both off at a random side and resizes
            bilinearly to the old size; ``"rot90"`` turns by 90, 180 or 270 degrees; ``"flip"`` mirrors.

    Weights other than those of two-dimensional convolutions with kernels larger than 1 x 1 stay what they are; kernels
    that are not square are turned by 180 degrees only.

    Raises:
        InvalidValueError: if an argument is out of range.

    Source: "Weights augmentation: it has never ever ever ever let her model down", arXiv 2405.19590; the authors' code
    shifts each axis with probability 0.22.
    """

    p: float = 0.22
    kinds: tuple[str, ...] = field(default=("translate", "crop"), kw_only=True)
    level_name: ClassVar[str] = "p"

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", check_number("p", self.p, minimum=0, maximum=1))
        given: object = self.kinds
        if isinstance(given, str) or not given:
            raise InvalidValueError(f"Expected `kinds` to be some of {', '.join(_KINDS)}, but got {self.kinds!r}")
        object.__setattr__(self, "kinds", tuple(self.kinds))
        for kind in self.kinds:
            if kind not in _KINDS:
                raise unknown_name("kinds", kind, _KINDS)

    @property
    def name(self) -> str:
        """The kinds."""
        return "-".join(("kernel", *self.kinds))

    @property
    def level(self) -> float:
        """The probability."""
        return self.p

    def at(self, level: float) -> Self:
        """Return the same transforms at another probability, in [0, 1]."""
        return replace(self, p=level)

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return the transformed weight, the shadow weight; see :meth:`Noise.perturb`."""
        return self.transform(stream, weight.shape)(check_weight(weight)).to(weight.dtype, copy=True)

    def pull_back(self, gradient: Tensor, stream: Stream) -> Tensor:
        """Return the gradient with respect to the weight from that with respect to the transformed weight.

        Args:
            gradient: of the shape of the weight.
            stream: that of :meth:`perturb`.
        """
        transform = self.transform(stream, gradient.shape)
        # The transforms are linear: their derivative is the same at every weight.
        with torch.enable_grad():
            weight = torch.zeros_like(check_weight(gradient), requires_grad=True)
            (pulled,) = torch.autograd.grad(transform(weight), weight, check_weight(gradient))
        return pulled.to(gradient.dtype)

    def transform(self, stream: Stream, shape: torch.Size) -> Transform:
        """Return the transform that a stream stands for, of weights of this shape."""
        if len(shape) != 4 or max(shape[-2:]) == 1:
            return lambda weight: weight
        random = stream.generator()
        chosen = [_KINDS[kind](random, self.p, (shape[-2], shape[-1])) for kind in self.kinds]

        def apply(weight: Tensor) -> Tensor:
            for transform in chosen:
                weight = transform(weight)
            return weight

        return apply


Size = tuple[int, int]


def _translate(random: np.random.Generator, p: float, size: Size) -> Transform:
    moved, signs = random.random(2) < p, random.integers(0, 2, 2) * 2 - 1
    down, right = (int(m * s) if n > 1 else 0 for m, s, n in zip(moved, signs, size, strict=True))

    def shift(weight: Tensor) -> Tensor:
        return pad(weight, (right, -right, down, -down))  # negative padding cuts off

    return shift


def _crop(random: np.random.Generator, p: float, size: Size) -> Transform:
    happens, sides, ends = random.random() < p, random.integers(0, 3), random.integers(0, 2, 2)
    rows, columns = (sides != 1 and size[0] > 1), (sides != 0 and size[1] > 1)
    top, left = int(rows and ends[0]), int(columns and ends[1])
    height, width = size[0] - int(rows), size[1] - int(columns)

    def crop(weight: Tensor) -> Tensor:
        part = weight[..., top : top + height, left : left + width]
        return interpolate(part, size=size, mode="bilinear", align_corners=False)

    return crop if happens else _identity


def _rot90(random: np.random.Generator, p: float, size: Size) -> Transform:
    happens, turns = random.random() < p, int(random.integers(1, 4))
    turns = turns if size[0] == size[1] else 2
    return (lambda weight: torch.rot90(weight, turns, (-2, -1))) if happens else _identity


def _flip(random: np.random.Generator, p: float, size: Size) -> Transform:
    happens, axis = random.random() < p, int(random.integers(-2, 0))
    return (lambda weight: weight.flip(axis)) if happens else _identity


def _identity(weight: Tensor) -> Tensor:
    return weight


_KINDS: dict[str, Callable[[np.random.Generator, float, Size], Transform]] = {
    "translate": _translate,
    "crop": _crop,
    "rot90": _rot90,
    "flip": _flip,
}
