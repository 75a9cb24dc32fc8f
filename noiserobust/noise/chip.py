"""A programmed chip: a model's weights on devices whose errors are what they are, to be read at any time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from typing_extensions import Self

from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.noise.base import Noise, check_weight
from noiserobust.noise.crossbar import Programmed, program, read
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.noise.profiles import Profile, parse_profile
from noiserobust.noise.sites import Site
from noiserobust.noise.timed import TimedNoise
from noiserobust.results.files import make_folder, read_json, write_atomic, write_errors, write_json
from noiserobust.results.manifest import environment
from noiserobust.rng import Stream
from noiserobust.times import SECONDS, format_time, parse_time
from noiserobust.untrusted import open_file, size_of

TENSORS = "chip-{}.safetensors"  # of a hash
MANIFEST = "manifest.json"
ORIGIN = ("seed", "train_seed", "draw")


@dataclass(frozen=True, eq=False)
class Chip(TimedNoise):
    """A model's weights after programming; what is still random about them is the reading.

    A noise like any other, for the model that was programmed: :func:`noiserobust.perturbed` puts the model on it at a
    time, :func:`noiserobust.evaluate` measures it over times, each of ``draws`` reading it anew. Made by
    :meth:`DeviceNoise.program <noiserobust.noise.device.DeviceNoise.program>`.

    Args:
        profile: the device.
        programmed: each weight by its name.
        origin: what the chip was drawn from: ``seed``, ``train_seed``, ``draw``.
        t: time of reading, in seconds since programming.
    """

    profile: Profile
    programmed: Mapping[str, Programmed] = field(repr=False)
    origin: Mapping[str, int]
    t: float = SECONDS["d"]

    @property
    def name(self) -> str:
        """The profile's name and the number of the chip."""
        return f"{self.profile.full_name}-chip{self.origin['draw']}"

    def weakened(self, strength: float) -> Noise:
        """Return the chip itself at strength 1.

        Raises:
            InvalidValueError: at another: a chip is what it is.
        """
        if strength != 1:
            raise InvalidValueError(f"Expected a chip to be used at strength 1, but got {strength:g}")
        return self

    def describe(self) -> dict[str, Any]:
        """Return the profile with its settings, and what the chip was drawn from."""
        return {"kind": "chip", "profile": self.profile.name, **self.profile.settings(), **self.origin}

    def on_chip(self, sites: Sequence[Site], stream: Stream) -> Noise:
        """Return the chip itself."""
        return self

    def perturb(self, weight: Tensor, stream: Stream, view: FilterView = FILTERS) -> Tensor:
        """Return a weight as it is read from this chip; see :meth:`Noise.perturb`.

        Args:
            weight: the one that was programmed.
            stream: its last part is the name of the weight; random numbers of the reading come from it.
            view: how it is laid out in filters.

        Raises:
            InvalidValueError: if no weight of this name, or another one, was programmed.
        """
        name = str(stream.path[-1]) if stream.path else ""
        programmed = self.programmed.get(name)
        if programmed is None:
            raise InvalidValueError(f"Expected a chip with a weight {name}, but it has {', '.join(self.programmed)}")
        matrix = view.matrix(check_weight(weight).float())
        if not torch.equal(matrix, programmed.weight.to(matrix.device)):
            raise InvalidValueError(
                f"Expected {name} to be the weight that the chip was programmed with, but it is another; a chip "
                "belongs to the weights of one training, and is read from clean weights"
            )
        noisy = read(programmed.to(weight.device), self.t, stream.child("read", repr(self.t)))
        return view.restore(noisy, weight.shape).to(weight.dtype)

    def save(self, folder: str | Path) -> None:
        """Write the chip to a folder, ``chip-*.safetensors`` and ``manifest.json``; one that is there is replaced.

        Raises:
            InvalidValueError: if the folder holds results of another kind.
            OutputError: if it cannot be written; a chip that was there is then untouched.
        """
        path = make_folder(Path(folder))
        if (path / MANIFEST).exists():
            _read_manifest(path)
        tensors = {}
        for name, programmed in self.programmed.items():
            parts = {"weight": programmed.weight, **programmed.state}
            tensors.update({f"{name}/{key}": value.cpu().contiguous() for key, value in parts.items()})
        content = safetensors.torch.save(tensors)
        described: dict[str, Any] = {
            "profile": (self.profile.original or self.profile).content(),
            "overrides": self.profile.overridden(),
            "origin": dict(self.origin),
            "tensors": hashlib.sha256(content).hexdigest(),
        }
        file = path / TENSORS.format(described["tensors"][:16])
        write_atomic(file, content)
        manifest = {"schema_version": 1, "kind": "chip", **described, "t": self.t, "sha256": _digest(described)}
        write_json(path / MANIFEST, {**manifest, **environment()})
        with write_errors(path):
            for other in set(path.glob(TENSORS.format("*"))) - {file}:
                other.unlink()

    @classmethod
    def load(cls, folder: str | Path, t: str | float | None = None) -> Self:
        """Return the chip that :meth:`save` wrote.

        Args:
            folder: where to.
            t: time of reading; by default that of the chip when it was saved.

        Raises:
            MissingFileError: if there is no such folder, or no whole chip in it.
            InvalidValueError: if the files are not those of a chip.
        """
        path = Path(folder)
        manifest = _read_manifest(path)
        described = {key: manifest.get(key) for key in ("profile", "overrides", "origin", "tensors")}
        if _digest(described) != manifest.get("sha256"):
            raise InvalidValueError(f"Expected {path / MANIFEST} to be as it was written, but its hash differs")
        digest = str(described["tensors"])
        if not re.fullmatch("[0-9a-f]{64}", digest):  # it is part of a file's name
            raise InvalidValueError(f"Expected `tensors` of {path / MANIFEST} to be a SHA-256, but it is not")
        file = path / TENSORS.format(digest[:16])
        with open_file(file, "chip") as opened:
            content = opened.read(size_of(opened))
        if hashlib.sha256(content).hexdigest() != digest:
            raise InvalidValueError(f"Expected {file} to be the file of its manifest, but its hash differs")
        try:
            profile = parse_profile(manifest["profile"], str(path / MANIFEST)).with_overrides(**manifest["overrides"])
            origin = {key: check_integer(key, manifest["origin"][key], minimum=0) for key in ORIGIN}
            t = parse_time(manifest["t"] if t is None else t)
            programmed = _parts(profile, safetensors.torch.load(content))
        except Exception as error:  # any at all: anybody can write a manifest and its hash
            raise InvalidValueError(f"Expected {path} to hold a chip, but got: {error}") from None
        return cls(profile, programmed, origin, t)

    def __repr__(self) -> str:
        return f"Chip({self.name!r}, t={format_time(self.t)!r}, weights={len(self.programmed)})"


def program_sites(profile: Profile, sites: Sequence[Site], stream: Stream) -> dict[str, Programmed]:
    """Return the weights of a model after programming, each drawn from the child of ``stream`` of its name."""
    programmed = {}
    for site in sites:
        matrix = site.view.matrix(check_weight(site.weight()).float())
        if not torch.isfinite(matrix).all():
            raise InvalidValueError(f"Expected {site.name} to be finite, but it holds NaN or infinity")
        programmed[site.name] = program(profile, matrix.clone(), stream.child(site.name))
    return programmed


def _digest(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    if (folder / MANIFEST).exists():
        open_file(folder / MANIFEST, "chip").close()  # a pipe would be waited for
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != "chip" or manifest.get("schema_version") != 1:
        raise InvalidValueError(f"Expected {folder / MANIFEST} to be that of a chip, but it is not")
    return manifest


def _parts(profile: Profile, tensors: Mapping[str, Tensor]) -> dict[str, Programmed]:
    """Return the weights of a chip by name, each with all parts that one of the profile has, of the same shapes."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition("/")
        found.setdefault(name, {})[part] = value
        if value.dtype != torch.float32 or not torch.isfinite(value).all():
            raise InvalidValueError(f"Expected {key} to be finite numbers of float32, but it is not")
    if not found:
        raise InvalidValueError("Expected at least one weight, but there is none")
    # What it is like, from a weight of one number.
    like = program(profile, torch.zeros(1, 1), Stream(0)).state
    for name, parts in found.items():
        matrix = parts.get("weight", torch.empty(0)).shape
        shapes = {"weight": matrix, **{part: (*state.shape[:-2], *matrix) for part, state in like.items()}}
        if (
            len(matrix) != 2
            or 0 in matrix
            or {part: tuple(t.shape) for part, t in parts.items()}
            != {part: tuple(shape) for part, shape in shapes.items()}
        ):
            raise InvalidValueError(
                f"Expected {name} to have the parts {', '.join(shapes)} of one shape, but it has not"
            )
    return {name: Programmed(profile, parts.pop("weight"), parts) for name, parts in found.items()}
