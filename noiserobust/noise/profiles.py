"""Device profiles: YAML files that state a device's noise, its source and its units.

A profile is checked wholly when it is loaded: unknown keys, missing keys, wrong units (units are part of the key,
``g_max_us``, ``t_read_s``) and values out of range are errors that name the file and the key.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
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
from noiserobust.noise.converters import CONVERTERS, Converter
from noiserobust.noise.curves import Check
from noiserobust.noise.physics import MODELS, Physics
from noiserobust.noise.reference import GRANULARITIES, Tile
from noiserobust.times import format_time, parse_time, write_time
from noiserobust.yamlfile import read_yaml

BACKENDS = ("aihwkit", "measured")
COMPENSATIONS = ("none", "global", "per_column", "mean_shift")

_TOP = [
    *("schema_version", "name", "technology", "description", "source", "backend", "model", "parameters"),
    *("conductance", "granularity", "tile", "clip_percentile", "periphery", "compensation"),
    *("times", "valid_times"),
]


@dataclass(frozen=True)
class Profile:
    """What is known of a device.

    Args:
        name: registered name.
        technology: such as ``"PCM"``.
        description: a sentence or two.
        source: where the numbers come from: citation, doi, figure.
        model: a key of :data:`noiserobust.noise.physics.MODELS`.
        parameters: of the model, as in the file; units in the key (``_s`` seconds, ``_us`` microsiemens).
        converter: how a weight becomes conductances, a key of :data:`noiserobust.noise.converters.CONVERTERS`.
        conductance: parameters of the converter.
        granularity: what shares one mapping from weights to conductances: ``"filter"``, ``"tensor"``, ``"tile"`` or
            ``"column"``.
        tile: ``(rows, columns)`` of a crossbar tile.
        clip_percentile: of the weights' magnitudes of a group; larger ones are cut off before they are mapped. 100
            cuts none.
        periphery: of a tile, for its full simulation: ``dac_bits``, ``adc_bits`` (0 for none), ``input_noise`` (std, of
            the largest input), ``output_noise`` (std, of what the largest weight gives for the largest input),
            ``input_bound`` and ``output_bound`` in the same units.
        compensation: ``"none"``; one factor that restores the mean magnitude of a tensor (of a tile, if weights are
            mapped by tile or column), ``"global"``, or of each of its columns, ``"per_column"``; ``"mean_shift"``, one
            number that restores the mean.
        times: times since programming worth looking at, in seconds.
        valid_times: the first and the last time of which the profile says something, in seconds.
        measured: of a device fitted to measurements: ``range_us``, the conductances of which they say something, with
            ``estimates`` and ``goodness``; None for others.
        original: the profile as written, if settings were overridden.
    """

    name: str
    technology: str
    description: str
    source: Mapping[str, str]
    model: str
    parameters: Mapping[str, Any]
    converter: str
    conductance: Mapping[str, Any]
    granularity: str
    tile: Tile
    clip_percentile: float
    periphery: Mapping[str, float]
    compensation: str
    times: tuple[float, ...]
    valid_times: tuple[float, float]
    measured: Mapping[str, Any] | None = field(default=None, repr=False)
    original: Profile | None = field(default=None, repr=False, compare=False)

    def __hash__(self) -> int:
        return hash((self.name, repr(self._flat())))

    @cached_property
    def physics(self) -> Physics:
        """The model with its parameters."""
        kind, checks = MODELS[self.model]
        return kind(**{key: check(f"parameters.{key}", self.parameters[key]) for key, check in checks.items()})

    @cached_property
    def mapping(self) -> Converter:
        """The converter with its parameters."""
        kind, checks = CONVERTERS[self.converter]
        return kind(**{key: check(f"conductance.{key}", self.conductance[key]) for key, check in checks.items()})

    def check_time(self, t: float) -> None:
        """Raise InvalidValueError if the profile says nothing of a time, in seconds."""
        self.physics.check_time(t)
        first, last = self.valid_times
        if not first <= t <= last:
            raise InvalidValueError(
                f"Expected `t` to be between {format_time(first)} and {format_time(last)}, of which the profile "
                f"{self.name} says something, but got {format_time(t)}"
            )

    def with_overrides(self, **overrides: Any) -> Profile:
        """Return the profile with some settings replaced; each is checked as if it stood in the file.

        Args:
            overrides: any parameter of the model, the converter or the periphery, ``converter`` itself (with the
                parameters that the old one does not have), ``granularity``, ``tile``, ``clip_percentile``,
                ``compensation``.

        Raises:
            InvalidValueError: if a setting is unknown or out of range.
        """
        profile = self
        if "converter" in overrides:
            profile = self._converted(overrides)
            overrides = {k: v for k, v in overrides.items() if k not in ("converter", *profile.conductance)}
        for key, value in overrides.items():
            if key in self.parameters:
                changed = _checked(key, value, MODELS[self.model][1][key])
                profile = replace(profile, parameters={**profile.parameters, key: changed})
            elif key in self.conductance:
                changed = _checked(key, value, CONVERTERS[self.converter][1][key])
                profile = replace(profile, conductance={**profile.conductance, key: changed})
            elif key in PERIPHERY:
                profile = replace(profile, periphery={**profile.periphery, key: _checked(key, value, PERIPHERY[key])})
            elif key in _SETTINGS:
                profile = replace(profile, **{key: _SETTINGS[key](key, value)})
            else:
                known = [*self.parameters, *self.conductance, "converter", *PERIPHERY, *_SETTINGS]
                raise unknown_name(f"setting of profile {self.name}", key, known)
        profile = replace(profile, original=self.original or self)
        _check_range(profile)
        return profile

    def _converted(self, overrides: Mapping[str, Any]) -> Profile:
        converter = check_choice("converter", overrides["converter"], CONVERTERS)
        given = {**self.conductance, **overrides}
        checks = CONVERTERS[converter][1]
        conductance = _values("conductance", {key: given[key] for key in checks if key in given}, checks)
        return replace(self, converter=converter, conductance=conductance)

    @property
    def full_name(self) -> str:
        """The name, followed by the settings that were overridden."""
        changed = {**self.overridden()}
        if "tile" in changed:
            changed["tile"] = "{}x{}".format(*self.tile)
        return "-".join([self.name, *(f"{key}={value}" for key, value in changed.items())])

    def overridden(self) -> dict[str, Any]:
        """Return the settings whose values are not those of the profile as written."""
        written = (self.original or self)._flat()
        return {key: value for key, value in self._flat().items() if key not in written or value != written[key]}

    def content(self) -> dict[str, Any]:
        """Return what the file of this profile holds, JSON-able."""
        rows, columns = self.tile
        return {
            "schema_version": 1,
            "name": self.name,
            "technology": self.technology,
            "description": self.description,
            "source": dict(self.source),
            "backend": "aihwkit" if self.measured is None else "measured",
            **self.settings(),
            "tile": {"rows": rows, "columns": columns},
            "times": [write_time(t) for t in self.times],
            "valid_times": {"from": write_time(self.valid_times[0]), "to": write_time(self.valid_times[1])},
            **({} if self.measured is None else {"measured": dict(self.measured)}),
        }

    def _flat(self) -> dict[str, Any]:
        own = {"converter": self.converter, **self.conductance}
        return {**self.parameters, **own, **self.periphery, **{key: getattr(self, key) for key in _SETTINGS}}

    def settings(self) -> dict[str, Any]:
        """Return all that determines the noise, JSON-able."""
        return {
            "model": self.model,
            "parameters": dict(self.parameters),
            "conductance": {"converter": self.converter, **self.conductance},
            "granularity": self.granularity,
            "tile": list(self.tile),
            "clip_percentile": self.clip_percentile,
            "periphery": dict(self.periphery),
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
    measured = isinstance(content, dict) and content.get("backend") == "measured"
    top = _mapping("profile", content, [*_TOP, "measured"] if measured else _TOP)
    if top["schema_version"] != 1 or isinstance(top["schema_version"], bool):
        raise InvalidValueError(f"Expected `schema_version` to be 1, but got {top['schema_version']!r}")
    check_choice("backend", top["backend"], BACKENDS)
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
        parameters=_values("parameters", top["parameters"], MODELS[model][1]),
        converter=converter,
        conductance=_values("conductance", conductance, CONVERTERS[converter][1]),
        times=tuple(parse_time(t) for t in times),
        valid_times=_valid_times(top["valid_times"]),
        measured=_measured(top["measured"]) if measured else None,
        periphery=_values("periphery", top["periphery"], PERIPHERY),
        **{key: check(key, top[key]) for key, check in _SETTINGS.items()},
    )
    _check_range(profile)
    for t in profile.times:
        profile.check_time(t)
    return profile


def _check_range(profile: Profile) -> None:
    limits = profile.mapping.g_min_us, profile.mapping.g_max_us
    if profile.measured is not None:
        low, high = profile.measured["range_us"]
        if limits[0] < low * (1 - 1e-6) or limits[1] > high * (1 + 1e-6):
            raise InvalidValueError(
                f"Expected conductances within {low:g} to {high:g} µS, the measured range, but got `g_min_us` = "
                f"{limits[0]:g} and `g_max_us` = {limits[1]:g}"
            )
    profile.physics.check_range(*limits)


def _measured(value: object) -> dict[str, Any]:
    mapping = _mapping("measured", value, ["range_us", "estimates", "goodness"])
    ends = mapping["range_us"]
    if not isinstance(ends, list) or len(ends) != 2:
        raise InvalidValueError(f"Expected `measured.range_us` to be two conductances, but got {ends!r}")
    ends = [check_number("measured.range_us", end, minimum=0) for end in ends]
    return copy.deepcopy({**mapping, "range_us": ends})


def _valid_times(value: object) -> tuple[float, float]:
    mapping = _mapping("valid_times", value, ["from", "to"])
    first, last = parse_time(mapping["from"]), parse_time(mapping["to"])
    check_number("valid_times.to", last, maximum=1e12)
    if first > last:
        raise InvalidValueError(f"Expected `valid_times` to be from one time to a later one, but got {value!r}")
    return first, last


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


def _values(name: str, value: Any, checks: Mapping[str, Check]) -> dict[str, Any]:
    mapping = _mapping(name, value, list(checks))
    return {key: _checked(f"{name}.{key}", mapping[key], check) for key, check in checks.items()}


def _checked(name: str, value: object, check: Check) -> Any:
    """Return a value as it stands in a file, if it is valid; numbers as floats, so that 1 and 1.0 are the same."""
    try:
        found = check(name, value)
    except InvalidValueError as error:
        hint = "; YAML takes a number such as 250e-9 for text: write 250.0e-9" if isinstance(value, str) else ""
        raise InvalidValueError(f"{error}{hint}") from None
    if isinstance(found, (int, float)):
        return found
    return list(found) if isinstance(found, tuple) else copy.deepcopy(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidValueError(f"Expected `{name}` to be a text, but got {value!r}")
    return value.strip()


def _tile(name: str, value: Any) -> Tile:
    if isinstance(value, (tuple, list)) and len(value) == 2:
        value = {"rows": value[0], "columns": value[1]}
    mapping = _mapping(name, value, ["rows", "columns"])
    return (
        check_integer("tile.rows", mapping["rows"], minimum=1),
        check_integer("tile.columns", mapping["columns"], minimum=1),
    )


def _bits(name: str, value: object) -> float:
    bits = check_integer(name, value, minimum=0)
    if not 2 <= (bits or 2) <= 24:
        raise InvalidValueError(f"Expected `{name}` to be 2 to 24, or 0 for none, but got {bits}")
    return bits


PERIPHERY: dict[str, Check] = {
    "dac_bits": _bits,
    "adc_bits": _bits,
    "input_noise": lambda name, value: check_number(name, value, minimum=0),
    "output_noise": lambda name, value: check_number(name, value, minimum=0),
    "input_bound": lambda name, value: check_number(name, value, above=0),
    "output_bound": lambda name, value: check_number(name, value, above=0),
}
"""What surrounds the devices of a tile, with what each number has to be."""

_SETTINGS: dict[str, Check] = {
    "granularity": lambda name, value: check_choice(name, value, GRANULARITIES),
    "tile": _tile,
    "clip_percentile": lambda name, value: check_number(name, value, above=50, maximum=100),
    "compensation": lambda name, value: check_choice(name, value, COMPENSATIONS),
}
