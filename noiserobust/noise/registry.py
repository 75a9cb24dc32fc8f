"""From the name of a noise, as on the command line, to the object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noiserobust.config import NoiseConfig
from noiserobust.errors import InvalidValueError, NoiseRobustError, unknown_name
from noiserobust.noise.base import Noise
from noiserobust.noise.compose import Compose
from noiserobust.noise.device import DeviceNoise
from noiserobust.noise.faults import KINDS as FAULTS
from noiserobust.noise.faults import Faults
from noiserobust.noise.kernels import KernelTransform
from noiserobust.noise.profiles import load_profile, parse_profile, profile_names
from noiserobust.noise.quantization import Quantization
from noiserobust.noise.scaled import SCALED_NOISES
from noiserobust.yamlfile import read_yaml

KERNELS = "kernels"
"""The name of the random kernel transforms of weight augmentation."""

_NOISES: dict[str, Noise] = {
    **{kind: noise(0.05) for kind, noise in SCALED_NOISES.items()},
    **{kind: Faults(0.01, kind=kind) for kind in FAULTS},
    "quantization": Quantization(8),
    KERNELS: KernelTransform(),
}
"""Noises by name, at the level they have if none is given."""


def build_noise(spec: str, level: str | float | None = None, /, **settings: Any) -> Noise:
    """Return a noise by name.

    Args:
        spec: ``"gaussian"``, ``"laplace"``, ``"quantization"``, ``"stuck-zero"``, ``"stuck-max"``, ``"dead-rows"``,
            ``"dead-columns"``, ``"kernels"``, a profile's name, or a ``.yaml`` file: a device profile, settings such as
            ``{noise: gaussian, reference: l2}``, or several, ``{compose: [{noise: pcm-nandakumar-2019}, {noise:
            stuck-zero, level: 0.01}]}``, of which the first has the level.
        level: its severity; by default sigma or b = 0.05, 8 bits, 1 % of faults, p = 0.22 for kernels, one day for a
            device.
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
    if name in _NOISES:
        return _NOISES[name]
    if name in profile_names():
        return DeviceNoise.of(load_profile(name))
    raise unknown_name("noise", name, [*_NOISES, *profile_names()])


def _from_file(path: Path) -> Noise:
    content: Any = read_yaml(path)
    if isinstance(content, dict) and "schema_version" in content:
        return DeviceNoise.of(parse_profile(content, str(path)))
    if not isinstance(content, dict) or not (isinstance(content.get("noise"), str) or "compose" in content):
        raise InvalidValueError(
            f"Expected {path} to hold a device profile or a mapping with a `noise` or `compose`, but got {content!r}"
        )
    try:
        return _composed(content, path) if "compose" in content else _from_settings(content, path)
    except NoiseRobustError as error:
        raise InvalidValueError(f"{path}: {error}") from None


def _composed(content: dict[Any, Any], path: Path) -> Noise:
    parts = content["compose"]
    for key in content:
        if key != "compose":
            raise InvalidValueError(f"Expected `compose` to stand alone, but got {key!r} as well")
    if not isinstance(parts, list) or not all(isinstance(p, dict) and isinstance(p.get("noise"), str) for p in parts):
        raise InvalidValueError(f"Expected `compose` to be a list of mappings with a `noise`, but got {parts!r}")
    return Compose([_from_settings(part, path) for part in parts])


def _from_settings(content: dict[Any, Any], path: Path) -> Noise:
    spec = content["noise"]
    settings = {str(key): value for key, value in content.items() if key != "noise"}
    if not spec.endswith((".yaml", ".yml")):
        return build_noise(spec, settings.pop("level", None), **settings)
    profile = path.parent / spec  # beside the file that names it
    noise = DeviceNoise.of(load_profile(profile))
    level = settings.pop("level", noise.level)
    return noise.with_settings(**settings).at(level)
