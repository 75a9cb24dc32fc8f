"""How the strength of a perturbation changes over a training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from noiserobust.errors import InvalidValueError, check_integer, check_number


class Schedule(ABC):
    """The share of a method's full strength at each optimizer step: of SAM's rho, of a noise's standard deviation."""

    @abstractmethod
    def __call__(self, step: int, total_steps: int | None = None) -> float:
        """Return the strength of a step, >= 0; 1 is the full strength, 0 no perturbation.

        Args:
            step: optimizer steps taken so far, >= 0.
            total_steps: of the whole training, for schedules that are given as a fraction of it.

        Raises:
            InvalidValueError: if the schedule needs ``total_steps`` and there are none.
        """

    def check(self, total_steps: int | None) -> None:
        """Raise InvalidValueError unless the schedule can do with ``total_steps``."""
        self(0, total_steps)


@dataclass(frozen=True)
class Constant(Schedule):
    """Full strength from the first step."""

    def __call__(self, step: int, total_steps: int | None = None) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Ramp(Schedule):
    """``start + (1 - start) * shape(t / T)``, and full strength from step T on.

    Args:
        steps: T in optimizer steps, >= 1.
        fraction: T as a fraction of the training, in (0, 1]; without ``steps`` and ``fraction`` T is the whole of it.
        start: strength of the first step, in [0, 1].

    Raises:
        InvalidValueError: if an argument is out of range, or both ``steps`` and ``fraction`` are given.

    Source: "Incorruptible neural networks", section 5.2. What is ramped is rho or the standard deviation.
    """

    steps: int | None = None
    fraction: float | None = field(default=None, kw_only=True)
    start: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_integer("steps", self.steps, minimum=1)
        if self.fraction is not None:
            check_number("fraction", self.fraction, above=0, maximum=1)
            if self.steps is not None:
                raise InvalidValueError(
                    f"Expected `steps` or `fraction` to be given, but got both: {self.steps} and {self.fraction}"
                )
        check_number("start", self.start, minimum=0, maximum=1)

    def __call__(self, step: int, total_steps: int | None = None) -> float:
        """Return the strength of a step, in [start, 1]."""
        progress = min(step / self._length(total_steps), 1.0)
        return self.start + (1 - self.start) * self._shape(progress)

    def _length(self, total_steps: int | None) -> float:
        if self.steps is not None:
            return self.steps
        if total_steps is None:
            raise InvalidValueError(
                f"Expected `total_steps` to be given with a {type(self).__name__} over a fraction of the training, "
                "but got None"
            )
        return (1.0 if self.fraction is None else self.fraction) * total_steps

    @abstractmethod
    def _shape(self, progress: float) -> float:
        """Return a rise from 0 to 1 over [0, 1]."""


@dataclass(frozen=True)
class PowerRamp(Ramp):
    """``(t / T) ** power``."""

    power: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("power", self.power, above=0)

    def _shape(self, progress: float) -> float:
        return float(progress**self.power)


@dataclass(frozen=True)
class LinearRamp(Ramp):
    """``t / T``."""

    def _shape(self, progress: float) -> float:
        return progress


@dataclass(frozen=True)
class QuadraticRamp(Ramp):
    """``(t / T) ** 2``, the best of the schedules in "Incorruptible neural networks", Table 3."""

    def _shape(self, progress: float) -> float:
        return progress**2


@dataclass(frozen=True)
class CosineRamp(Ramp):
    """``(1 - cos(pi t / T)) / 2``.

    The schedule of ARWP's code, ``sigma0 * (1 + inc * (1 - cos(pi t / T)) / 2)``, is ``sigma = sigma0 * (1 + inc)``
    with ``CosineRamp(start=1 / (1 + inc))``.
    """

    def _shape(self, progress: float) -> float:
        return (1 - math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class OffToOn(Ramp):
    """``start`` before T, full strength from T on."""

    def _shape(self, progress: float) -> float:
        return float(progress >= 1)


SCHEDULES: dict[str, type[Constant] | type[Ramp]] = {
    "constant": Constant,
    "linear": LinearRamp,
    "quadratic": QuadraticRamp,
    "power": PowerRamp,
    "cosine": CosineRamp,
    "off-to-on": OffToOn,
}
"""Schedules by their name in settings."""
