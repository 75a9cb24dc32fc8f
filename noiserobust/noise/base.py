"""The interface every noise has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from noiserobust.errors import InvalidValueError, check_integer, check_number, unknown_name
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.rng import Stream

CLEAN = "clean"
"""The word for "without noise" wherever levels are given."""


class Noise(ABC):
    """Random errors of weights stored on analog hardware, at one severity.

    Immutable; level 0 means no noise. The same object serves the trainer and the evaluator; :meth:`at` gives it
    another severity. At equal streams two severities describe *the same chip*: what is random about it is the same,
    its strength differs.
    """

    level_name: ClassVar[str]
    """What the severity is called: ``"sigma"``, ``"b"``, ``"t"``."""

    settings: ClassVar[tuple[str, ...]] = ()
    """Fields, of a dataclass, that :meth:`with_settings` takes."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for result tables; two noises that differ in more than their level have different names."""

    @property
    @abstractmethod
    def level(self) -> float:
        """The severity, in units of ``level_name``."""

    @abstractmethod
    def at(self, level: float) -> Self:
        """Return the same noise at another severity."""

    def with_settings(self, /, **settings: Any) -> Self:
        """Return the same noise with other settings than its level.

        Args:
            settings: any of :attr:`settings`.

        Raises:
            InvalidValueError: if a setting is unknown or out of range.
        """
        for key in settings:
            if not self.settings:
                raise InvalidValueError(f"Expected no settings beside the level of {self.name} noise, but got {key!r}")
            if key not in self.settings:
                raise unknown_name(f"setting of {self.name} noise", key, self.settings)
        return replace(self, **settings) if settings else self  # type: ignore[type-var]

    def weakened(self, strength: float) -> Noise:
        """Return the noise at a share of its strength, as schedules of a training ask for it.

        By default this is a share of the level; a noise whose level is no strength says otherwise.

        Args:
            strength: finite, >= 0; 1 leaves the noise as it is, 0 is no noise.
        """
        return self if strength == 1 else self.at(self.level * strength)

    @abstractmethod
    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return a noisy copy of a weight.

        Args:
            weight: floating point tensor of any shape on any device; not changed.
            stream: where the random numbers come from; equal streams give equal noise on every device.
            view: how the weight is laid out in filters.

        Returns:
            Detached tensor of the same shape, dtype and device.
        """

    def draw(self, requests: Sequence[tuple[Stream, tuple[int, ...]]]) -> Sequence[Tensor | None]:
        """Return random numbers for several weights at once, to be handed to :meth:`perturb_`, or None for each.

        Args:
            requests: stream and shape of each weight.
        """
        return [None] * len(requests)

    def perturb_(
        self,
        weight: Tensor,
        stream: Stream,
        view: FilterView = FILTERS,
        drawn: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> None:
        """Do what :meth:`perturb` does, in place.

        Args:
            weight: as for :meth:`perturb`; changed.
            stream: as for :meth:`perturb`.
            view: as for :meth:`perturb`.
            drawn: what :meth:`draw` returned for this stream.
            gain: factor of the error, of a shape that broadcasts to that of the weight; 1 by default.
        """
        exact = check_weight(weight)
        noisy = self.perturb(weight if gain is None else exact, stream, view)
        with torch.no_grad():
            weight.copy_(noisy if gain is None else torch.addcmul(exact, noisy - exact, gain.to(exact.dtype)))

    def describe(self) -> dict[str, Any]:
        """Return all but the level that determines the noise, JSON-able; results are continued only if it is the same.

        By default the class and, of a dataclass, all fields but the level; override if there is more.
        """
        names: list[str] = [f.name for f in fields(self)] if is_dataclass(self) else []
        settings = {name: repr(getattr(self, name)) for name in names if name != self.level_name}
        return {"kind": f"{type(self).__module__}.{type(self).__qualname__}", **settings}

    def parse_level(self, text: str | float) -> float:
        """Return a level given as a number or as text in the units of ``level_name``.

        Raises:
            InvalidValueError: if it is not a valid level of this noise.
        """
        try:
            level = float(text) if isinstance(text, str) else text
        except ValueError:
            raise InvalidValueError(
                f"Expected a level of `{self.level_name}` to be a number, but got {text!r}"
            ) from None
        return check_number(self.level_name, self.at(level).level)


def chip_stream(seed: int, train_seed: int, draw: int) -> Stream:
    """Return the stream of one chip; levels and methods share it, so that comparisons are paired."""
    check_integer("train_seed", train_seed, minimum=0)
    return Stream(seed, "deploy", train_seed, check_integer("draw", draw, minimum=0))


def check_weight(weight: Tensor) -> Tensor:
    """Return a weight detached and in the dtype in which noise is computed: float64 if it has it, else float32.

    Raises:
        InvalidValueError: if it is not a floating point tensor.
    """
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        got = f"dtype {weight.dtype}" if isinstance(weight, Tensor) else type(weight).__name__
        raise InvalidValueError(f"Expected `weight` to be a floating point tensor, but got {got}")
    return weight.detach().to(torch.float64 if weight.dtype == torch.float64 else torch.float32)
