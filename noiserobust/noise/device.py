"""Noise of real analog devices, described by profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from noiserobust.noise.base import Noise, check_weight, chip_stream
from noiserobust.noise.chip import Chip, program_sites
from noiserobust.noise.compose import Weakened
from noiserobust.noise.crossbar import program, read
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.noise.profiles import Profile, load_profile
from noiserobust.noise.sites import Select, Site, find_sites
from noiserobust.noise.timed import TimedNoise
from noiserobust.rng import Stream
from noiserobust.times import SECONDS, format_time, parse_time


@dataclass(frozen=True)
class DeviceNoise(TimedNoise):
    """What an analog device makes of a weight, at a time after programming.

    At equal streams all times describe one *programmed chip followed through time*: programming error and drift
    exponents are the same, the read noise is new at each time. Drift compensation is applied.

    Args:
        profile: the device.
        t: time since the end of programming, > 0: seconds, or text such as ``"1h"``, ``"1d"``, ``"1y"``; one day by
            default.

    Raises:
        InvalidValueError: if ``t`` is not a time of which the profile says something.
    """

    profile: Profile
    t: float = SECONDS["d"]

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

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """Return the noise of a profile a day after programming, or at the last of its times if it is of less."""
        first, last = profile.valid_times
        return cls(profile, SECONDS["d"] if first <= SECONDS["d"] <= last else profile.times[-1])

    @property
    def name(self) -> str:
        """The profile's name, followed by the settings that were overridden."""
        return self.profile.full_name

    def with_settings(self, /, **settings: Any) -> Self:
        """Return the same device with settings that replace the profile's, as in :meth:`from_profile`."""
        return replace(self, profile=self.profile.with_overrides(**settings))

    def weakened(self, strength: float) -> Noise:
        """Return this device with its errors multiplied by ``strength``; its level is a time, not a strength."""
        return self if strength == 1 else Weakened(self, strength)

    def describe(self) -> dict[str, Any]:
        """Return the profile's name and all its settings."""
        return {"kind": "device", "profile": self.profile.name, **self.profile.settings()}

    def program(
        self,
        model: nn.Module,
        seed: int = 0,
        draw: int = 0,
        *,
        train_seed: int = 0,
        select: Select | None = None,
    ) -> Chip:
        """Return a chip with the weights of a model, at this noise's time; the model stays as it is.

        It is the very chip that :func:`noiserobust.perturbed` and :func:`noiserobust.evaluate` use for the same
        numbers, so its programming error and drift exponents are theirs.

        Args:
            model: whose weights are programmed.
            seed: root seed of the chips.
            draw: number of the chip.
            train_seed: which of several trainings of one method this is.
            select: which weights live on the chip, as in :func:`noiserobust.find_sites`.

        Raises:
            InvalidValueError: if no weight can be programmed.
        """
        return self.on_chip(find_sites(model, select), chip_stream(seed, train_seed, draw))

    def on_chip(self, sites: Sequence[Site], stream: Stream) -> Chip:
        """Return a chip with these weights; see :meth:`program`."""
        _, train_seed, draw = stream.path
        origin = {"seed": stream.seed, "train_seed": int(train_seed), "draw": int(draw)}
        return Chip(self.profile, program_sites(self.profile, sites, stream), origin, self.t)

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return the weight as read from the chip; see :meth:`Noise.perturb`. Groups of equal weights stay."""
        # Conductances are float32 whatever the weight is: they are measured to three digits.
        exact = check_weight(weight).float()
        if exact.numel() == 0:
            return weight.detach().clone()
        chip = program(self.profile, view.matrix(exact), stream)
        noisy = read(chip, self.t, stream.child("read", repr(self.t)))
        return view.restore(noisy, weight.shape).to(weight.dtype)
