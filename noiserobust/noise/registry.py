"""From the name of a noise, as on the command line, to the object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noiserobust.config import NoiseConfig
from noiserobust.errors import InvalidValueError, check_choice, unknown_name
from noiserobust.noise.base import Noise
from noiserobust.noise.device import DeviceNoise
from noiserobust.noise.kernels import KernelTransform
from noiserobust.noise.profiles import parse_profile, profile_names
from noiserobust.noise.scaled import SCALED_NOISES
from noiserobust.yamlfile import read_yaml

DEFAULT_LEVEL = 0.05
"""Sigma or b of a scaled noise for which no level is given."""

KERNELS = "kernels"
"""The name of the random kernel transforms of weight augmentation."""


def build_noise(spec: str, level: str | float | None = None, **settings: Any) -> Noise:
    """Return a noise by name.

    Args:
        spec: ``"gaussian"``, ``"laplace"``, ``"kernels"``, a profile's name, or a ``.yaml`` file: a device profile, or
            settings such as ``{noise: gaussian, reference: l2}``.
        level: its severity; by default 0.05 for scaled noise, 0.22 for kernels, one day for a device.
        settings: what differs from the default or from the file, such as ``reference="l2"``.

    Raises:
        InvalidValueError: if there is no such noise or a setting or the level is not valid.
        MissingFileError: if there is no such file.
    """
    noise = _from_file(Path(spec)) if spec.endswith((".yaml", ".yml")) else _from_name(spec)
    noise = noise.with_settings(**settings)
    return noise if level is None else noise.at(noise.parse_level(level))


def noise_from_config(config: NoiseConfig, default: str = "gaussian") -> Noise:
    """Return the noise that settings describe, of the kind ``default`` if they do not say which.

    Raises:
        InvalidValueError: if a setting is not valid or does not go with the noise.
    """
    settings = {"reference": config.reference, "granularity": config.granularity}
    return build_noise(config.name or default, config.level, **{k: v for k, v in settings.items() if v is not None})


def _from_name(name: str) -> Noise:
    if name in SCALED_NOISES:
        return SCALED_NOISES[name](DEFAULT_LEVEL)
    if name == KERNELS:
        return KernelTransform()
    if name in profile_names():
        return DeviceNoise.from_profile(name)
    raise unknown_name("noise", name, [*SCALED_NOISES, KERNELS, *profile_names()])


def _from_file(path: Path) -> Noise:
    content: Any = read_yaml(path)
    if isinstance(content, dict) and "schema_version" in content:
        profile = parse_profile(content, str(path))
        return DeviceNoise(profile)
    if not isinstance(content, dict) or not isinstance(content.get("noise"), str):
        raise InvalidValueError(
            f"Expected {path} to hold a device profile or a mapping with a `noise`, but got {content!r}"
        )
    settings = {str(key): value for key, value in content.items() if key != "noise"}
    try:
        kind = check_choice("noise", content["noise"], SCALED_NOISES)
        return SCALED_NOISES[kind](DEFAULT_LEVEL).with_settings(**settings)
    except InvalidValueError as error:
        raise InvalidValueError(f"{path}: {error}") from None
