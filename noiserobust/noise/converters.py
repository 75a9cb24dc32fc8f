"""How a weight becomes the conductances of one or more devices, and what conductances read mean as a weight.

Weights are in units of the largest that is mapped: in [-1, 1], or in [0, 1] for converters that are not bipolar.
Conductances are in µS, of shape ``(devices, *weights.shape)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from noiserobust.errors import InvalidValueError, check_integer, check_number
from noiserobust.noise.curves import LARGEST, Check


@dataclass(frozen=True)
class Converter(ABC):
    """Between weights and conductances from ``g_min_us`` to ``g_max_us``."""

    g_max_us: float
    g_min_us: float
    bipolar: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.g_min_us >= self.g_max_us:
            raise InvalidValueError(
                f"Expected `g_min_us` to be below g_max_us = {self.g_max_us:g}, but got {self.g_min_us:g}"
            )

    @property
    @abstractmethod
    def devices(self) -> int:
        """Number of devices a weight has."""

    @abstractmethod
    def to_conductances(self, weights: Tensor) -> Tensor:
        """Return the conductances that weights should be programmed to."""

    @abstractmethod
    def to_weights(self, conductances: Tensor) -> Tensor:
        """Return the weights that conductances stand for, whatever they are."""

    @property
    def _span(self) -> float:
        return self.g_max_us - self.g_min_us


@dataclass(frozen=True)
class SinglePair(Converter):
    """One device for positive and one for negative weights; the other stays at ``g_min_us``."""

    devices: ClassVar[int] = 2

    def to_conductances(self, weights: Tensor) -> Tensor:
        """Return them, the positive device first."""
        both = torch.stack([weights, -weights])
        return both.clamp_(min=0).mul_(self._span).add_(self.g_min_us)

    def to_weights(self, conductances: Tensor) -> Tensor:
        """Return the difference of the two, scaled."""
        return (conductances[0] - conductances[1]).div_(self._span)


@dataclass(frozen=True)
class SingleDevice(Converter):
    """One device a weight: the smallest weight at ``g_min_us``, the largest at ``g_max_us``."""

    bipolar: ClassVar[bool] = False
    devices: ClassVar[int] = 1

    def to_conductances(self, weights: Tensor) -> Tensor:
        """Return them."""
        return weights.unsqueeze(0).mul(self._span).add_(self.g_min_us)

    def to_weights(self, conductances: Tensor) -> Tensor:
        """Return them, scaled and shifted."""
        return (conductances[0] - self.g_min_us).div_(self._span)


@dataclass(frozen=True)
class NPair(Converter):
    """Several pairs of different significance; one is used only where those before it are exhausted.

    Args:
        factors: significance of each pair, > 0.
    """

    factors: tuple[float, ...] = (1.0,)

    @property
    def devices(self) -> int:
        """Two for each pair."""
        return 2 * len(self.factors)

    def to_conductances(self, weights: Tensor) -> Tensor:
        """Return them: for each pair the positive device, then the negative one."""
        both = torch.stack([weights, -weights]).clamp_(min=0).mul_(sum(self.factors))
        parts = []
        for factor in self.factors:
            parts.append((both / factor).clamp_(max=1).mul_(self._span).add_(self.g_min_us))
            both = (both - factor).clamp_(min=0)
        return torch.cat(parts)

    def to_weights(self, conductances: Tensor) -> Tensor:
        """Return the sum of the pairs' differences, each times its significance, scaled."""
        weights = torch.zeros_like(conductances[0])
        for factor, plus, minus in zip(self.factors, conductances[::2], conductances[1::2], strict=True):
            weights.add_(plus - minus, alpha=factor)
        return weights.div_(self._span * sum(self.factors))


@dataclass(frozen=True)
class BitSlices(Converter):
    """Magnitudes of ``bits * slices`` bits, ``bits`` of them in each of several pairs, the lowest first.

    Args:
        bits: of one pair, >= 1.
        slices: number of pairs, >= 1.
    """

    bits: int = 4
    slices: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits * self.slices > 24:
            raise InvalidValueError(
                f"Expected `bits` times `slices` to be at most 24, but got {self.bits} times {self.slices}"
            )

    @property
    def devices(self) -> int:
        """Two for each slice."""
        return 2 * self.slices

    def to_conductances(self, weights: Tensor) -> Tensor:
        """Return them: for each slice the positive device, then the negative one."""
        largest = 2 ** (self.bits * self.slices) - 1
        left = torch.stack([weights, -weights]).clamp_(0, 1).mul_(largest).round_()
        parts = []
        for _ in range(self.slices):
            digit = torch.remainder(left, 2**self.bits)
            left = torch.div(left - digit, 2**self.bits)
            parts.append(digit.mul_(self._span / (2**self.bits - 1)).add_(self.g_min_us))
        return torch.cat(parts)

    def to_weights(self, conductances: Tensor) -> Tensor:
        """Return the sum of the pairs' differences, each times its place value, scaled."""
        weights = torch.zeros_like(conductances[0])
        for place, (plus, minus) in enumerate(zip(conductances[::2], conductances[1::2], strict=True)):
            weights.add_(plus - minus, alpha=float(2 ** (self.bits * place)))
        return weights.mul_((2**self.bits - 1) / (self._span * (2 ** (self.bits * self.slices) - 1)))


_ENDS: dict[str, Check] = {
    "g_max_us": lambda name, value: check_number(name, value, above=0, maximum=LARGEST),
    "g_min_us": lambda name, value: check_number(name, value, minimum=0, maximum=LARGEST),
}


def _factors(name: str, value: object, number: int | None = None) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or not value or (number is not None and len(value) != number):
        wanted = f"a list of {number} numbers" if number else "a list of numbers"
        raise InvalidValueError(f"Expected `{name}` to be {wanted}, but got {value!r}")
    return tuple(check_number(name, factor, minimum=1e-3, maximum=1e3) for factor in value)


def _count(name: str, value: object, most: int) -> int:
    count = check_integer(name, value, minimum=1)
    if count > most:
        raise InvalidValueError(f"Expected `{name}` to be at most {most}, but got {count}")
    return count


CONVERTERS: dict[str, tuple[type[Converter], Mapping[str, Check]]] = {
    "single_pair": (SinglePair, _ENDS),
    "single_device": (SingleDevice, _ENDS),
    "n_pair": (NPair, {**_ENDS, "factors": _factors}),
    "dual_pair": (NPair, {**_ENDS, "factors": lambda name, value: _factors(name, value, 2)}),
    "bit_slices": (
        BitSlices,
        {**_ENDS, "bits": lambda name, value: _count(name, value, 8), "slices": lambda n, value: _count(n, value, 8)},
    ),
}
"""Converters by the name they have in a profile, with their parameters."""
