"""How weights were trained, as far as figures tell trainings apart by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noiserobust.errors import NoiseRobustError
from noiserobust.times import format_time, parse_time

ROBUST = "robust"

FAMILIES = ("sgd", "sam", "asam", "rwp", "arwp", "was", ROBUST)
"""Names of methods in the order of figures; what is not known comes last."""

ASCENDING, NOISY = ("sam", "asam"), ("rwp", "arwp", ROBUST)

_DEFAULTS = {"sam": 0.05, "asam": 0.5, "rwp": 0.05, "arwp": 0.05, "was": 0.22, "robust": 0.2}
_PLAIN_NOISES = {"gaussian": "σ", "laplace": "b"}


@dataclass(frozen=True)
class Recipe:
    """How weights were trained.

    Attributes:
        family: ``method.name``, such as ``sam``; empty if it is not known.
        strength: rho of SAM and ASAM; the level of the noise of the others, in seconds for a device; None without.
        symbol: what the strength is called.
        noise: the name of the noise, with its reference if that is another than the maximum; empty without noise.
        perturbed_weight: share of the perturbed gradient, in (0, 1].
        schedule: of the strength.
        ramp: settings ``steps`` and ``fraction`` of the schedule, each a number or None.
    """

    family: str = ""
    strength: float | None = None
    symbol: str = ""
    noise: str = ""
    perturbed_weight: float = 1.0
    schedule: str = "constant"
    ramp: tuple[float | None, float | None] = (None, None)

    @property
    def ramped(self) -> bool:
        """Whether the strength changes over the training."""
        return self.schedule != "constant"

    @property
    def mixed(self) -> bool:
        """Whether the clean gradient has a share."""
        return self.perturbed_weight < 1

    @property
    def strength_text(self) -> str:
        """The strength as people write it, empty if there is none."""
        if self.strength is None:
            return ""
        return format_time(self.strength) if self.symbol == "t" else f"{self.strength:.6g}"

    @property
    def order(self) -> tuple[int, str, float, float, str]:
        """Sorts by family, strength, share and schedule."""
        place = FAMILIES.index(self.family) if self.family in FAMILIES else len(FAMILIES)
        return place, self.noise, self.strength or 0.0, -self.perturbed_weight, self.schedule


def recipe_of(configuration: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a training's configuration; settings that are missing or no settings have their defaults."""
    method = _group(configuration, "method")
    family = method.get("name")
    if not isinstance(family, str):
        return Recipe()
    schedule = _group(method, "schedule")
    ramp = (_number(schedule.get("steps")), _number(schedule.get("fraction")))
    weight = _number(method.get("perturbed_weight"))
    rest: dict[str, Any] = {
        "perturbed_weight": 1.0 if weight is None else weight,
        "schedule": str(schedule.get("name") or "constant"),
        "ramp": ramp,
    }
    if family in ASCENDING:
        rho = _number(method.get("rho"))
        return Recipe(family, _DEFAULTS[family] if rho is None else rho, "ρ", **rest)
    if family not in FAMILIES or family == "sgd":
        return Recipe(family, **rest)
    noise = _group(method, "noise")
    name = noise.get("name") or ("kernels" if family == "was" else "gaussian")
    reference = noise.get("reference") or "max"
    span = method.get("level_range")
    level = noise.get("level") if not isinstance(span, list) or not span else span[-1]
    if level is None and name in ("gaussian", "laplace", "kernels"):
        level = _DEFAULTS[family]
    strength, time = _level(level)
    symbol = _PLAIN_NOISES.get(str(name), "p" if family == "was" else "t" if time else "level")
    symbol = "γ" if (name, reference) == ("gaussian", "l2") else symbol
    return Recipe(family, strength, symbol, f"{name}" if reference == "max" else f"{name}, {reference}", **rest)


def recipe_of_weights(trained: object) -> Recipe:
    """Return what weights say of their training in the manifest of an evaluation: ``{method, noise, level}``."""
    if not isinstance(trained, dict) or not isinstance(trained.get("method"), str):
        return Recipe()
    family, strength = trained["method"], _number(trained.get("level"))
    noise = str(trained.get("noise") or "")
    return Recipe(family, strength, _PLAIN_NOISES.get(noise, "level") if noise else "", noise)


def selection_noise(configuration: Mapping[str, Any]) -> str:
    """Return the noise under which the held-out accuracy was taken, such as ``gaussian 0.05``."""
    method, noise = _group(configuration, "method"), _group(_group(configuration, "select"), "noise")
    own = False
    if not any(v is not None for v in noise.values()) and method.get("name") in NOISY:
        own, span, noise = True, method.get("level_range"), _group(method, "noise")
        if isinstance(span, list) and span:
            noise = {**noise, "level": span[-1]}
    name = noise.get("name") or "gaussian"
    level = noise.get("level")
    if own and method.get("name") == ROBUST and name in _PLAIN_NOISES and isinstance(level, int | float):
        level = level / 2  # of what it is trained with
    if level is None:
        level = 0.05 if name in _PLAIN_NOISES else "1d"
    reference = f", {noise['reference']}" if noise.get("reference") not in (None, "max") else ""
    return f"{name} {level:g}{reference}" if isinstance(level, int | float) else f"{name} {level}{reference}"


def _level(level: object) -> tuple[float | None, bool]:
    """Return a level as a number, and whether it is a time."""
    if _number(level) is not None:
        return _number(level), False
    if not isinstance(level, str):
        return None, False
    try:
        return float(level), False
    except ValueError:
        pass
    try:
        return parse_time(level), True
    except NoiseRobustError:
        return None, False


def _group(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
