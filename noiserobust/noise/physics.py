"""How conductances go astray: while they are programmed, afterwards, and when they are read.

A model turns target conductances into the state of programmed devices, once, and that state into the conductances read
at a time, as often as wanted. All conductances are in µS, all times in s since the end of programming.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from noiserobust.errors import InvalidValueError, check_number
from noiserobust.noise.curves import LARGEST, Check, Conductance, Curve, extremes, parse_curve, tables
from noiserobust.times import format_time, parse_time

State = dict[str, Tensor]
"""What stays of programmed devices: tensors of the shape of the conductances, by name."""

Limits = tuple[float, float]


@dataclass(frozen=True)
class Physics(ABC):
    """A model of devices. Random numbers are standard normal, of the shape of the conductances, float32."""

    randoms: ClassVar[tuple[str, ...]]
    """What programming draws random numbers for."""
    reads: ClassVar[bool] = True
    """Whether reading draws random numbers."""

    @abstractmethod
    def program(self, target: Conductance, random: Mapping[str, Tensor]) -> State:
        """Return the state of devices that were to get these conductances.

        Args:
            target: in µS.
            random: numbers for each of :attr:`randoms`.
        """

    @abstractmethod
    def read(self, state: State, limits: Limits, t: float, random: Tensor | None) -> Tensor:
        """Return conductances in µS as read at a time; the state stays.

        Args:
            state: from :meth:`program`.
            limits: the smallest and largest conductance that weights are mapped to, in µS.
            t: in s, > 0.
            random: numbers, if the model :attr:`reads`.
        """

    def check_time(self, t: float) -> None:
        """Raise InvalidValueError if nothing is known of a time."""
        return

    def check_range(self, g_min_us: float, g_max_us: float) -> None:
        """Raise InvalidValueError if the model says nothing of conductances between these, or nonsense."""
        for field in fields(self):
            for curve in _curves(getattr(self, field.name)):
                for (first, last), low, high in tables(curve, g_min_us, g_max_us):
                    if not first <= low * (1 + 1e-6) <= high <= last * (1 + 1e-6):
                        raise InvalidValueError(
                            f"Expected the table of `{field.name}` to cover {low:g} to {high:g} µS, the conductances "
                            f"that weights are mapped to, but got {first:g} to {last:g}"
                        )
                smallest, largest = extremes(curve, g_min_us, g_max_us)
                if not 0 <= smallest <= largest <= LARGEST:
                    got = smallest if not smallest >= 0 else largest
                    raise InvalidValueError(
                        f"Expected `{field.name}` to be >= 0 and <= {LARGEST:g} from {g_min_us:g} to {g_max_us:g} µS, "
                        f"but got {got:g}"
                    )


@dataclass(frozen=True)
class PowerLawDrift(Physics):
    """Devices that drift as a power of time and have read noise of the kind 1/f.

    ``g_prog = |mean(g) + std(g) z1|+``, ``nu = |mean(g) + std(g) z2|``, ``g_drift = g_prog ((t + t_0) / t_0)^-nu`` and
    ``g_read = |g_drift + |g_drift| q(g_prog) sqrt(ln((t + t_0 + t_read) / (2 t_read))) z3|+``.

    Source: Nandakumar et al., ICECS 2019; Joshi et al., Nature Communications 2020, Eq. 1-3.

    Args:
        programming_std_us: std of the programming error, µS.
        reference_g_max_us: largest conductance for which that std was measured; for another it is scaled. None for
            a std that is the same for each.
        drift_exponent_mean: mean of nu.
        drift_exponent_std: its std over devices.
        t_0_s: time of the first read after programming, s.
        read_noise: q, relative.
        t_read_s: length of a read, s.
        prog_noise_scale: factor of the programming error.
        read_noise_scale: factor of the read noise.
        drift_scale: factor of nu.
        programming_mean_us: mean of the programmed conductance, µS; None for the target itself.
    """

    programming_std_us: Curve
    reference_g_max_us: float | None
    drift_exponent_mean: Curve
    drift_exponent_std: Curve
    t_0_s: float
    read_noise: Curve
    t_read_s: float
    prog_noise_scale: float = 1.0
    read_noise_scale: float = 1.0
    drift_scale: float = 1.0
    programming_mean_us: Curve | None = None
    randoms: ClassVar[tuple[str, ...]] = ("programming", "drift")

    def program(self, target: Conductance, random: Mapping[str, Tensor]) -> State:
        """Return programmed conductances, drift exponents and relative read noise; see :class:`Physics`."""
        scale = self.prog_noise_scale
        if self.reference_g_max_us is not None:
            scale *= target.g_max_us / self.reference_g_max_us
        mean = target.us if self.programming_mean_us is None else self.programming_mean_us(target)
        programmed = torch.addcmul(mean, self.programming_std_us(target), random["programming"], value=scale)
        exponent = torch.addcmul(self.drift_exponent_mean(target), self.drift_exponent_std(target), random["drift"])
        programmed.clamp_(min=0)
        noise = self.read_noise(Conductance(programmed, target.g_max_us))
        return {"g_us": programmed, "nu": exponent.abs_().mul_(self.drift_scale), "q": noise.expand_as(programmed)}

    def read(self, state: State, limits: Limits, t: float, random: Tensor | None) -> Tensor:
        """Return drifted conductances with read noise; see :class:`Physics`."""
        drifted = (state["nu"] * -math.log1p(t / self.t_0_s)).exp_().mul_(state["g_us"])
        since = t + self.t_0_s
        growth = _growth(since, self.t_read_s)
        if random is None or not self.read_noise_scale:
            return drifted
        factor = (state["q"] * random).mul_(self.read_noise_scale * growth).add_(1)
        return drifted.mul_(factor).clamp_(min=0)


@dataclass(frozen=True)
class Snapshots(Physics):
    """Devices whose error was measured at a few times only: ``g = |g_target + std(g_target, t) z|+``.

    Each device keeps its ``z``: it stays at the same quantile of the errors at all times.

    Args:
        std_us: std of the error, µS, by time in s.
        reference_g_max_us: largest conductance for which it was measured; for another it is scaled.
        noise_scale: factor of the error.
    """

    std_us: Mapping[float, Curve]
    reference_g_max_us: float
    noise_scale: float = 1.0
    randoms: ClassVar[tuple[str, ...]] = ("programming",)
    reads: ClassVar[bool] = False

    def program(self, target: Conductance, random: Mapping[str, Tensor]) -> State:
        """Return targets and quantiles; see :class:`Physics`."""
        return {"g_us": target.us.clone(), "z": random["programming"].clone()}

    def read(self, state: State, limits: Limits, t: float, random: Tensor | None) -> Tensor:
        """Return conductances at one of the times; see :class:`Physics`."""
        self.check_time(t)
        std = self.std_us[t](Conductance(state["g_us"], limits[1]))
        scale = self.noise_scale * limits[1] / self.reference_g_max_us
        return torch.addcmul(state["g_us"], std, state["z"], value=scale).clamp_(min=0)

    def check_time(self, t: float) -> None:
        """Raise InvalidValueError unless the error was measured at this time."""
        if t not in self.std_us:
            known = ", ".join(format_time(k).replace(" ", "") for k in sorted(self.std_us))
            raise InvalidValueError(
                f"Expected `t` to be one of {known}, the times at which the device was measured, but got "
                f"{format_time(t).replace(' ', '')}"
            )


@dataclass(frozen=True)
class LogarithmicRelaxation(Physics):
    """Devices that relax with the logarithm of time, whatever their conductance, between two limits.

    ``g_prog = g_target + std(g_target) z1``, ``g_relaxed = g_prog + m ln t + (a + b ln t) z2`` and ``g_read =
    g_relaxed + k log10(g_relaxed) sqrt(ln((t + t_read) / (2 t_read))) z3``, cut off at the smallest and largest
    conductance. Each device keeps ``z1`` and ``z2``.

    Args:
        programming_std_us: std of the programming error, µS.
        relaxation_mean_us: m, µS for each natural logarithm of time in s.
        relaxation_std_us: ``(a, b)``, µS.
        read_noise_us: k, µS.
        t_read_s: length of a read, s.
        prog_noise_scale: factor of the programming error.
        read_noise_scale: factor of the read noise.
        drift_scale: factor of the relaxation, mean and std.
    """

    programming_std_us: Curve
    relaxation_mean_us: float
    relaxation_std_us: tuple[float, float]
    read_noise_us: float
    t_read_s: float
    prog_noise_scale: float = 1.0
    read_noise_scale: float = 1.0
    drift_scale: float = 1.0
    randoms: ClassVar[tuple[str, ...]] = ("programming", "relaxation")

    def program(self, target: Conductance, random: Mapping[str, Tensor]) -> State:
        """Return programmed conductances and what the relaxation of each is; see :class:`Physics`."""
        std = self.programming_std_us(target)
        programmed = torch.addcmul(target.us, std, random["programming"], value=self.prog_noise_scale)
        return {"g_us": programmed, "z": random["relaxation"].clone()}

    def read(self, state: State, limits: Limits, t: float, random: Tensor | None) -> Tensor:
        """Return relaxed conductances with read noise; see :class:`Physics`."""
        mean = self.drift_scale * self.relaxation_mean_us * math.log(t)
        std = self.drift_scale * (self.relaxation_std_us[0] + self.relaxation_std_us[1] * math.log(t))
        relaxed = torch.add(state["g_us"], state["z"], alpha=std).add_(mean)
        if random is not None and self.read_noise_scale:
            growth = _growth(t, self.t_read_s)
            noise = relaxed.clamp(min=1).log10_().mul_(random)  # conductances below 1 µS are not read
            relaxed.add_(noise, alpha=self.read_noise_scale * self.read_noise_us * growth)
        return relaxed.clamp_(*limits)


def _growth(t: float, t_read: float) -> float:
    """Return how 1/f noise has grown: ``sqrt(ln((t + t_read) / (2 t_read)))``, 0 within the first read."""
    return math.sqrt(max(0.0, math.log((t + t_read) / (2 * t_read))))


def _at_least_0(name: str, value: object) -> float:
    return check_number(name, value, minimum=0, maximum=LARGEST)


def _above_0(name: str, value: object) -> float:
    return check_number(name, value, above=0, maximum=LARGEST)


def _duration(name: str, value: object) -> float:
    return check_number(name, _above_0(name, value), minimum=1e-15)


def _two(name: str, value: object) -> tuple[float, float]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise InvalidValueError(f"Expected `{name}` to be two numbers, but got {value!r}")
    low, high = (check_number(name, v, minimum=-LARGEST, maximum=LARGEST) for v in value)
    return low, high


def _by_time(name: str, value: object) -> dict[float, Curve]:
    if not isinstance(value, Mapping) or not value:
        raise InvalidValueError(f"Expected `{name}` to be formulas by time, but got {value!r}")
    return {parse_time(t): parse_curve(f"{name}.{t}", curve) for t, curve in value.items()}


def _or_none(parse: Check) -> Check:
    return lambda name, value: None if value is None else parse(name, value)


def _curves(value: object) -> list[Curve]:
    if isinstance(value, Mapping):
        return [curve for curve in value.values() if isinstance(curve, Curve)]
    return [value] if isinstance(value, Curve) else []


_SCALES: dict[str, Check] = {
    "prog_noise_scale": _at_least_0,
    "read_noise_scale": _at_least_0,
    "drift_scale": _at_least_0,
}

MODELS: dict[str, tuple[type[Physics], Mapping[str, Check]]] = {
    "power_law_drift": (
        PowerLawDrift,
        {
            "programming_mean_us": _or_none(parse_curve),
            "programming_std_us": parse_curve,
            "reference_g_max_us": _or_none(_above_0),
            "t_0_s": _duration,
            "drift_exponent_mean": parse_curve,
            "drift_exponent_std": parse_curve,
            "t_read_s": _duration,
            "read_noise": parse_curve,
            **_SCALES,
        },
    ),
    "snapshots": (
        Snapshots,
        {"std_us": _by_time, "reference_g_max_us": _above_0, "noise_scale": _at_least_0},
    ),
    "logarithmic_relaxation": (
        LogarithmicRelaxation,
        {
            "programming_std_us": parse_curve,
            "relaxation_mean_us": lambda name, value: check_number(name, value, minimum=-LARGEST, maximum=LARGEST),
            "relaxation_std_us": _two,
            "read_noise_us": _at_least_0,
            "t_read_s": _duration,
            **_SCALES,
        },
    ),
}
"""Models of devices by the name they have in a profile, with their parameters."""
