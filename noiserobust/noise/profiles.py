"""Device profiles: YAML files that state a device's noise, its source and its units.

A profile is checked wholly when it is loaded: unknown keys, missing keys, wrong units (units are part of the key,
``g_max_us``, ``t_read_s``) and values out of range are errors that name the file and the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from noiserobust.errors import (
    InvalidValueError,
    NoiseRobustError,
    check_choice,
    check_integer,
    check_number,
    did_you_mean,
    unknown_name,
)
from noiserobust.noise.reference import GRANULARITIES, Tile
from noiserobust.times import parse_time
from noiserobust.yamlfile import read_yaml

COMPENSATIONS = ("none", "global")


@dataclass(frozen=True)
class Bounds:
    """The finite numbers a parameter may take: ``minimum <= value`` or ``above < value``."""

    minimum: float | None = None
    above: float | None = None


MODELS: dict[str, dict[str, Bounds]] = {
    "PCMLikeNoiseModel": {
        "t_0_s": Bounds(above=0),
        "t_read_s": Bounds(above=0),
        "prog_noise_scale": Bounds(minimum=0),
        "read_noise_scale": Bounds(minimum=0),
        "drift_scale": Bounds(minimum=0),
    }
}
"""Noise models of aihwkit that a profile can name, with their parameters."""

CONVERTERS: dict[str, dict[str, Bounds]] = {
    "single_pair": {"g_max_us": Bounds(above=0), "g_min_us": Bounds(minimum=0)},
}
"""How a weight becomes conductances, with the parameters of each way."""

_TOP = [
    *("schema_version", "name", "technology", "description", "source", "backend", "model", "parameters"),
    *("conductance", "granularity", "tile", "compensation", "times"),
]


@dataclass(frozen=True)
class Profile:
    """What is known of a device.

    Args:
        name: registered name.
        technology: such as ``"PCM"``.
        description: a sentence or two.
        source: where the numbers come from: citation, doi, figure.
        model: aihwkit noise model, a key of :data:`MODELS`.
        parameters: of the model; units in the key (``_s`` seconds).
        converter: how a weight becomes conductances, a key of :data:`CONVERTERS`.
        conductance: parameters of the converter (``_us`` microsiemens).
        granularity: what shares one mapping from weights to conductances: ``"filter"``, ``"tensor"`` or ``"tile"``.
        tile: ``(rows, columns)`` of a crossbar tile.
        compensation: drift compensation: ``"none"`` or ``"global"`` (one factor a tensor, or a tile if mapped so).
        times: times since programming worth looking at, in seconds.
        original: the profile as written, if settings were overridden.
    """

    name: str
    technology: str
    description: str
    source: Mapping[str, str]
    model: str
    parameters: Mapping[str, float]
    converter: str
    conductance: Mapping[str, float]
    granularity: str
    tile: Tile
    compensation: str
    times: tuple[float, ...]
    original: Profile | None = field(default=None, repr=False, compare=False)

    def with_overrides(self, **overrides: Any) -> Profile:
        """Return the profile with some settings replaced; each is checked as if it stood in the file.

        Args:
            overrides: any parameter of the model or the converter, ``granularity``, ``tile``, ``compensation``.

        Raises:
            InvalidValueError: if a setting is unknown or out of range.
        """
        profile = self
        for key, value in overrides.items():
            if key in self.parameters:
                bounds = MODELS[self.model][key]
                profile = replace(profile, parameters={**profile.parameters, key: _number(key, value, bounds)})
            elif key in self.conductance:
                bounds = CONVERTERS[self.converter][key]
                profile = replace(profile, conductance={**profile.conductance, key: _number(key, value, bounds)})
            elif key == "granularity":
                profile = replace(profile, granularity=check_choice(key, value, GRANULARITIES))
            elif key == "compensation":
                profile = replace(profile, compensation=check_choice(key, value, COMPENSATIONS))
            elif key == "tile":
                profile = replace(profile, tile=_tile(value))
            else:
                known = [*self.parameters, *self.conductance, "granularity", "tile", "compensation"]
                raise unknown_name(f"setting of profile {self.name}", key, known)
        _check_range(profile)
        return replace(profile, original=self.original or self)

    def overridden(self) -> dict[str, Any]:
        """Return the settings whose values are not those of the profile as written."""
        written = (self.original or self)._flat()
        return {key: value for key, value in self._flat().items() if value != written[key]}

    def _flat(self) -> dict[str, Any]:
        tile = "{}x{}".format(*self.tile)
        return {
            **self.parameters,
            **self.conductance,
            "granularity": self.granularity,
            "tile": tile,
            "compensation": self.compensation,
        }

    def settings(self) -> dict[str, Any]:
        """Return all that determines the noise, JSON-able."""
        return {
            "model": self.model,
            "parameters": dict(self.parameters),
            "conductance": {"converter": self.converter, **self.conductance},
            "granularity": self.granularity,
            "tile": list(self.tile),
            "compensation": self.compensation,
        }


def profile_names() -> list[str]:
    """Return the names of the profiles that come with the package, sorted."""
    folder = resources.files("noiserobust_hardware_profiles")
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_profile(spec: str | Path) -> Profile:
    """Load a profile by its registered name or from a ``.yaml`` file.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if there is no such name, or the file is not a valid profile.
    """
    text = str(spec)
    if text.endswith((".yaml", ".yml")):
        return parse_profile(read_yaml(Path(text)), text)
    if text not in profile_names():
        raise unknown_name("profile", text, profile_names())
    content = resources.files("noiserobust_hardware_profiles").joinpath(f"{text}.yaml").read_text(encoding="utf-8")
    return parse_profile(yaml.safe_load(content), f"profile {text}")


def parse_profile(content: Any, where: str) -> Profile:
    """Check the content of a profile file and return it.

    Args:
        content: what the YAML holds.
        where: name of the file, for errors.

    Raises:
        InvalidValueError: naming the file and the key.
    """
    try:
        return _parse(content)
    except NoiseRobustError as error:
        raise InvalidValueError(f"{where}: {error}") from None


def _parse(content: Any) -> Profile:
    top = _mapping("profile", content, _TOP)
    if top["schema_version"] != 1 or isinstance(top["schema_version"], bool):
        raise InvalidValueError(f"Expected `schema_version` to be 1, but got {top['schema_version']!r}")
    check_choice("backend", top["backend"], ["aihwkit"])
    model = check_choice("model", top["model"], MODELS)
    raw_conductance = top["conductance"]
    if not isinstance(raw_conductance, dict) or "converter" not in raw_conductance:
        raise InvalidValueError("Expected `conductance` to be a mapping with a `converter`, but it is not")
    converter = check_choice("conductance.converter", raw_conductance["converter"], CONVERTERS)
    conductance = {k: v for k, v in raw_conductance.items() if k != "converter"}
    times = top["times"]
    if not isinstance(times, list) or not times:
        raise InvalidValueError(f"Expected `times` to be a list of times such as [1s, 1d], but got {times!r}")
    source = _mapping("source", top["source"], ["citation", "doi", "figure"])
    profile = Profile(
        name=_text("name", top["name"]),
        technology=_text("technology", top["technology"]),
        description=_text("description", top["description"]),
        source={key: _text(f"source.{key}", value) for key, value in source.items()},
        model=model,
        parameters=_numbers("parameters", top["parameters"], MODELS[model]),
        converter=converter,
        conductance=_numbers("conductance", conductance, CONVERTERS[converter]),
        granularity=check_choice("granularity", top["granularity"], GRANULARITIES),
        tile=_tile(top["tile"]),
        compensation=check_choice("compensation", top["compensation"], COMPENSATIONS),
        times=tuple(parse_time(t) for t in times),
    )
    _check_range(profile)
    return profile


def _check_range(profile: Profile) -> None:
    low, high = profile.conductance["g_min_us"], profile.conductance["g_max_us"]
    if low >= high:
        raise InvalidValueError(f"Expected `g_min_us` to be below g_max_us = {high:g}, but got {low:g}")


def _mapping(name: str, value: Any, keys: list[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValueError(f"Expected `{name}` to be a mapping, but got {value!r}")
    for key in value:
        if key not in keys:
            raise InvalidValueError(
                f"Expected the keys of `{name}` to be {', '.join(keys)}, but got {key!r}{did_you_mean(str(key), keys)}"
            )
    if missing := [key for key in keys if key not in value]:
        raise InvalidValueError(f"Expected `{name}` to have the keys {', '.join(keys)}, but {missing[0]} is missing")
    return value


def _numbers(name: str, value: Any, bounds: Mapping[str, Bounds]) -> dict[str, float]:
    mapping = _mapping(name, value, list(bounds))
    return {key: _number(f"{name}.{key}", mapping[key], limit) for key, limit in bounds.items()}


def _number(name: str, value: object, bounds: Bounds) -> float:
    try:
        return check_number(name, value, minimum=bounds.minimum, above=bounds.above)
    except InvalidValueError as error:
        hint = "; YAML takes a number such as 250e-9 for text: write 250.0e-9" if isinstance(value, str) else ""
        raise InvalidValueError(f"{error}{hint}") from None


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidValueError(f"Expected `{name}` to be a text, but got {value!r}")
    return value.strip()


def _tile(value: Any) -> Tile:
    if isinstance(value, (tuple, list)) and len(value) == 2:
        value = {"rows": value[0], "columns": value[1]}
    mapping = _mapping("tile", value, ["rows", "columns"])
    return (
        check_integer("tile.rows", mapping["rows"], minimum=1),
        check_integer("tile.columns", mapping["columns"], minimum=1),
    )
