"""Noises made of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.noise.base import Noise, check_weight
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.rng import Stream


@dataclass(frozen=True)
class Weakened(Noise):
    """``w + strength * (noise(w) - w)``, for noises whose level is no strength."""

    noise: Noise
    strength: float

    @property
    def level_name(self) -> str:  # type: ignore[override]
        """That of the noise."""
        return self.noise.level_name

    @property
    def name(self) -> str:
        """The strength and the name of the noise."""
        return f"{self.strength:g}*{self.noise.name}"

    @property
    def level(self) -> float:
        """That of the noise."""
        return self.noise.level

    def at(self, level: float) -> Self:
        """Return the same share of the noise at another severity."""
        return replace(self, noise=self.noise.at(level))

    def parse_level(self, text: str | float) -> float:
        """Return a level as the noise reads it."""
        return self.noise.parse_level(text)

    def describe(self) -> dict[str, Any]:
        """Return what the noise is, and the strength."""
        return {"kind": "weakened", "strength": self.strength, "noise": self.noise.describe()}

    def weakened(self, strength: float) -> Noise:
        """Return a share of this."""
        return replace(self, strength=self.strength * strength)

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return a share of the way to the noisy weight; see :meth:`Noise.perturb`."""
        exact = check_weight(weight)
        return torch.lerp(exact, self.noise.perturb(exact, stream, view), self.strength).to(weight.dtype)


@dataclass(frozen=True)
class Compose(Noise):
    """Several noises one after the other, each on what those before it have left, with random numbers of its own.

    The level is that of one of them; at level 0 there is no noise at all.

    Args:
        noises: at least one.
        vary: index of the noise whose level is that of the whole.

    Raises:
        InvalidValueError: if an argument is out of range.
    """

    noises: Sequence[Noise]
    vary: int = 0

    def __post_init__(self) -> None:
        given: object = self.noises
        if not isinstance(given, Sequence) or not given or not all(isinstance(n, Noise) for n in given):
            raise InvalidValueError(f"Expected `noises` to be noises, at least one, but got {given!r}")
        object.__setattr__(self, "noises", tuple(given))
        if check_integer("vary", self.vary, minimum=0) >= len(self.noises):
            raise InvalidValueError(
                f"Expected `vary` to be below {len(self.noises)}, the number of noises, but got {self.vary}"
            )

    @property
    def level_name(self) -> str:  # type: ignore[override]
        """That of the noise that varies."""
        return self._varied.level_name

    @property
    def name(self) -> str:
        """The names, joined; of all but the varied one with their levels."""
        parts = []
        for i, noise in enumerate(self.noises):
            parts.append(noise.name if i == self.vary else f"{noise.name}({noise.level_name}={noise.level:g})")
        return "+".join(parts)

    @property
    def level(self) -> float:
        """That of the noise that varies."""
        return self._varied.level

    def at(self, level: float) -> Self:
        """Return the same with the varied noise at another severity."""
        noises = [n.at(level) if i == self.vary else n for i, n in enumerate(self.noises)]
        return replace(self, noises=noises)

    def parse_level(self, text: str | float) -> float:
        """Return a level as the varied noise reads it."""
        return self._varied.parse_level(text)

    def weakened(self, strength: float) -> Noise:
        """Return all of them at a share of their strength."""
        return replace(self, noises=[n.weakened(strength) for n in self.noises])

    def describe(self) -> dict[str, Any]:
        """Return what each is, and the levels of those that do not vary."""
        parts = []
        for i, noise in enumerate(self.noises):
            parts.append(noise.describe() | ({} if i == self.vary else {"level": noise.level}))
        return {"kind": "compose", "vary": self.vary, "noises": parts}

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return the weight after all of them; see :meth:`Noise.perturb`."""
        noisy = check_weight(weight)
        if self.level == 0:
            return weight.detach().clone()
        for i, noise in enumerate(self.noises):
            own = Stream(stream.seed, *stream.path[:-1], "part", i, *stream.path[-1:])  # the name stays the last part
            noisy = noise.perturb(noisy, own, view)
        return noisy.to(weight.dtype)

    @property
    def _varied(self) -> Noise:
        return self.noises[self.vary]
