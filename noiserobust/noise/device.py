"""Noise of real analog devices, by the inference noise models of IBM's aihwkit.

Weights stay in conductance space from programming to read-out: they are converted once, programmed, drifted and read,
and converted back with the *original* parameters. Going through weight space in between would map them to the
programmed maximum and change the gain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from noiserobust.errors import MissingDependencyError
from noiserobust.noise.base import Noise, check_weight
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.noise.profiles import Profile, load_profile
from noiserobust.noise.reference import per_tile, reference_scale
from noiserobust.rng import Stream
from noiserobust.times import SECONDS, format_time, parse_time


class _Model(Protocol):
    """The part of aihwkit's noise models that is used; conductances in µS, times in s."""

    g_converter: Any

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor: ...
    def generate_drift_coefficients(self, g_target: Tensor) -> Tensor: ...
    def apply_drift_noise_to_conductance(
        self, g_prog: Tensor, drift_noise_param: Tensor, t_inference: float
    ) -> Tensor: ...


@dataclass(frozen=True)
class DeviceNoise(Noise):
    """What an analog device makes of a weight, at a time after programming.

    At equal streams all times describe one *programmed chip followed through time*: programming error and drift
    exponents are the same, the read noise is new at each time. Drift compensation is applied.

    Args:
        profile: the device.
        t: time since the end of programming, > 0: seconds, or text such as ``"1h"``, ``"1d"``, ``"1y"``; one day by
            default.

    Raises:
        InvalidValueError: if ``t`` is not a time > 0.
        MissingDependencyError: when noise is drawn and aihwkit is not installed.
    """

    profile: Profile
    t: float = SECONDS["d"]
    level_name: ClassVar[str] = "t"

    def __post_init__(self) -> None:
        object.__setattr__(self, "t", parse_time(self.t))

    def __repr__(self) -> str:
        return f"DeviceNoise({self.name!r}, t={format_time(self.t)!r})"

    @classmethod
    def from_profile(cls, name: str, t: str | float = "1d", **overrides: Any) -> Self:
        """Return the noise of a profile.

        Args:
            name: a registered profile or a ``.yaml`` file.
            t: time since programming, as for the class.
            overrides: settings that replace the profile's, such as ``compensation="none"``, ``g_max_us=20.0``,
                ``read_noise_scale=0.0``, ``granularity="filter"``.

        Raises:
            InvalidValueError: if there is no such profile, or a setting is unknown or out of range.
        """
        return cls(load_profile(name), parse_time(t)).with_settings(**overrides)

    @property
    def name(self) -> str:
        """The profile's name, followed by the settings that were overridden."""
        return "-".join([self.profile.name, *(f"{key}={value}" for key, value in self.profile.overridden().items())])

    @property
    def level(self) -> float:
        """The time since programming in seconds."""
        return self.t

    def at(self, level: str | float) -> Self:
        """Return the same device at another time, > 0, in seconds or as text such as ``"1d"``."""
        return replace(self, t=parse_time(level))

    def parse_level(self, text: str | float) -> float:
        """Return a time in seconds from a number of seconds or text such as ``1d``."""
        return parse_time(text)

    def with_settings(self, **settings: Any) -> Self:
        """Return the same device with settings that replace the profile's, as in :meth:`from_profile`."""
        return replace(self, profile=self.profile.with_overrides(**settings))

    def weakened(self, strength: float) -> Noise:
        """Return this device with its errors multiplied by ``strength``; its level is a time, not a strength."""
        return self if strength == 1 else _Weakened(self, strength)

    def describe(self) -> dict[str, Any]:
        """Return the profile's name and all its settings."""
        return {"kind": "device", "profile": self.profile.name, **self.profile.settings()}

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return the weight as read from the chip; see :meth:`Noise.perturb`. Weight groups of zeros stay zero."""
        # Conductances are computed on the CPU in float32 (aihwkit's models fail in bfloat16), whatever the weight is.
        exact = check_weight(weight).to("cpu", torch.float32)
        if exact.numel() == 0:
            return weight.detach().clone()
        matrix = view.matrix(exact)
        scale = reference_scale(matrix, "max", self.profile.granularity, self.profile.tile).expand_as(matrix)
        if not scale.any():
            return weight.detach().clone()
        target = torch.where(scale > 0, matrix / scale, 0)
        # Groups of zeros are not on the chip: the compensation must not see the noise of their devices.
        read = torch.where(scale > 0, self._read(target, stream), 0)
        noisy = read * self._compensation(target, read) * scale
        return view.restore(noisy, weight.shape).to(weight.device, weight.dtype)

    def _read(self, target: Tensor, stream: Stream) -> Tensor:
        """Return weights as read at ``t``; targets and result in units of the largest weight."""
        model = self._model
        conductances, params = model.g_converter.convert_to_conductances(target)
        with stream.child("programming").as_torch_default():
            programmed = [model.apply_programming_noise_to_conductance(g) for g in conductances]
        with stream.child("drift").as_torch_default():
            exponents = [model.generate_drift_coefficients(g) for g in conductances]
        with stream.child("read", repr(self.t)).as_torch_default():
            read = [
                model.apply_drift_noise_to_conductance(g, nu, self.t)
                for g, nu in zip(programmed, exponents, strict=True)
            ]
        noisy: Tensor = model.g_converter.convert_back_to_weights(read, params)
        return noisy

    def _compensation(self, target: Tensor, read: Tensor) -> Tensor:
        """Return the factor that restores the mean magnitude of the target, for a tensor or for each tile.

        For an ideal readout this is aihwkit's ``GlobalDriftCompensationWithExactReference``, ``mean|W_reference| /
        mean|W_now|``; see also Joshi et al. 2020, "global drift compensation".
        """
        if self.profile.compensation == "none":
            return torch.ones(())
        if self.profile.granularity == "tile":
            wanted, now = (per_tile(w, lambda block: block.abs().mean(), self.profile.tile) for w in (target, read))
        else:
            wanted, now = target.abs().mean(), read.abs().mean()
        return torch.where(now > 0, wanted / now, 1.0)

    @cached_property
    def _model(self) -> _Model:
        try:
            from aihwkit.inference.converter.conductance import SinglePairConductanceConverter
            from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
        except (ImportError, OSError, RuntimeError) as error:  # a build for another torch fails in all these ways
            raise MissingDependencyError(
                f"Expected aihwkit to be installed for the device profile {self.profile.name}, but got: {error}; "
                "try: pip install 'noiserobust[aihwkit]' (Linux x86-64, Python 3.10 to 3.12)"
            ) from error
        conductance, p = self.profile.conductance, self.profile.parameters
        converter = SinglePairConductanceConverter(g_max=conductance["g_max_us"], g_min=conductance["g_min_us"])
        return PCMLikeNoiseModel(  # type: ignore[no-any-return]
            g_converter=converter,
            t_0=p["t_0_s"],
            t_read=p["t_read_s"],
            prog_noise_scale=p["prog_noise_scale"],
            read_noise_scale=p["read_noise_scale"],
            drift_scale=p["drift_scale"],
        )


@dataclass(frozen=True)
class _Weakened(Noise):
    """``w + strength * (device(w) - w)``."""

    device: DeviceNoise
    strength: float
    level_name: ClassVar[str] = "t"

    @property
    def name(self) -> str:
        return f"{self.strength:g}*{self.device.name}"

    @property
    def level(self) -> float:
        return self.device.t

    def at(self, level: str | float) -> Self:
        return replace(self, device=self.device.at(level))

    def parse_level(self, text: str | float) -> float:
        return self.device.parse_level(text)

    def weakened(self, strength: float) -> Noise:
        return replace(self, strength=self.strength * strength)

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        exact = check_weight(weight)
        return torch.lerp(exact, self.device.perturb(exact, stream, view), self.strength).to(weight.dtype)
