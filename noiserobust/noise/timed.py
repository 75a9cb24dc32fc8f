"""Noise whose severity is the time since programming."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from typing_extensions import Self

from noiserobust.errors import InvalidValueError
from noiserobust.noise.base import Noise
from noiserobust.noise.profiles import Profile
from noiserobust.noise.sites import Site
from noiserobust.rng import Stream
from noiserobust.times import parse_time


class TimedNoise(Noise):
    """A dataclass with a profile, which says of which times it knows something, and a time ``t`` in seconds."""

    profile: Profile
    t: float
    level_name: ClassVar[str] = "t"

    def __post_init__(self) -> None:
        if not isinstance(self.profile, Profile):
            raise InvalidValueError(
                f"Expected `profile` to be a profile, as from_profile takes it by name, but got {self.profile!r}"
            )
        object.__setattr__(self, "t", parse_time(self.t))
        self.profile.check_time(self.t)

    @abstractmethod
    def on_chip(self, sites: Sequence[Site], stream: Stream) -> Noise:
        """Return the noise of one chip with these weights: what is left of it is the reading.

        Args:
            sites: the weights.
            stream: what the chip is drawn from, as :func:`noiserobust.noise.base.chip_stream` returns it.
        """

    @property
    def level(self) -> float:
        """The time since programming in seconds."""
        return self.t

    def at(self, level: str | float) -> Self:
        """Return the same at another time, > 0, in seconds or as text such as ``"1d"``."""
        return replace(self, t=parse_time(level))  # type: ignore[type-var]

    def parse_level(self, text: str | float) -> float:
        """Return a time in seconds from a number of seconds or text such as ``1d``."""
        return self.at(text).t
