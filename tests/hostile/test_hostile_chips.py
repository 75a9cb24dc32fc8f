"""Chips from strangers, with hashes that are right: anybody can compute a hash."""

import hashlib
import json
import os

import pytest
import safetensors.torch
import torch
from torch import nn

import noiserobust as nr
from noiserobust.errors import InvalidValueError, NoiseRobustError
from noiserobust.noise.chip import _digest


@pytest.fixture
def chip(untouched):
    """Return a function that writes a chip with other tensors and another manifest, and the folder."""
    folder = untouched / "chip"
    noise = nr.DeviceNoise.from_profile("reram-wan-2022")
    noise.program(nn.Linear(4, 3), seed=1).save(folder)
    (file,) = folder.glob("*.safetensors")
    tensors = safetensors.torch.load_file(file)
    original = json.loads((folder / "manifest.json").read_text())

    def write(change_tensors=lambda tensors: None, change=lambda manifest: None):
        parts, manifest = dict(tensors), json.loads(json.dumps(original))
        change_tensors(parts)
        content = safetensors.torch.save(parts)
        manifest["tensors"] = hashlib.sha256(content).hexdigest()
        (folder / f"chip-{manifest['tensors'][:16]}.safetensors").write_bytes(content)
        change(manifest)
        described = {key: manifest.get(key) for key in ("profile", "overrides", "origin", "tensors")}
        manifest["sha256"] = _digest(described)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return write


def test_a_chip_written_anew_is_one(chip):
    assert nr.Chip.load(chip()).origin["seed"] == 1


def planted(tensor):
    def change(tensors):
        tensors["weight/weight"] = tensor

    return change


def without(key):
    return lambda tensors: tensors.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.clear(),
        without("weight/weight"),
        without("weight/g_us"),
        lambda tensors: tensors.update({"weight/extra": torch.ones(3, 4)}),
        lambda tensors: tensors.update({"weight": torch.ones(3, 4)}),
        lambda tensors: tensors.update({"other/weight": torch.ones(3, 4)}),
        lambda tensors: tensors.update({"weight/g_us": tensors["weight/g_us"][:1].clone()}),
        lambda tensors: tensors.update({"weight/g_us": tensors["weight/g_us"][..., :2].clone()}),
        lambda tensors: tensors.update({"weight/g_us": tensors["weight/g_us"] * float("nan")}),
        lambda tensors: tensors.update({"weight/g_us": tensors["weight/g_us"].double()}),
        planted(torch.ones(12)),
        planted(torch.ones(4, 3)),
        planted(torch.ones(0, 4)),
        planted(torch.ones(3, 4, dtype=torch.int32)),
        planted(torch.ones(3, 4, dtype=torch.complex64)),
        planted(torch.full((3, 4), float("inf"))),
    ],
)
def test_tensors_that_make_no_chip(chip, change):
    folder = chip(change)
    with pytest.raises(InvalidValueError, match="to hold a chip, but got: Expected"):
        nr.Chip.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": {"seed": float("inf"), "train_seed": 0, "draw": 0}},
        {"origin": {"seed": -1, "train_seed": 0, "draw": 0}},
        {"origin": {"seed": 1.5, "train_seed": 0, "draw": 0}},
        {"origin": [1, 2, 3]},
        {"origin": None},
        {"overrides": {"__class__": "os"}},
        {"overrides": {"profile": "x"}},
        {"overrides": [["a", "b"]]},
        {"profile": "os:system"},
        {"profile": None},
        {"tensors": "../../../../etc/passwd"},
        {"tensors": 3},
        {"tensors": None},
        {"tensors": "a\0b"},
        {"t": "NaN"},
        {"t": -1},
        {"t": float("inf")},
        {"t": {}},
    ],
    ids=repr,
)
def test_manifests_that_make_no_chip(chip, change):
    folder = chip(change=lambda manifest: manifest.update(change))
    with pytest.raises(NoiseRobustError, match=r"^Expected"):
        nr.Chip.load(folder)


def test_a_pipe_in_place_of_the_manifest(chip):
    folder = chip()
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(InvalidValueError, match="to be a file, but it is a pipe or a device"):
        nr.Chip.load(folder)
