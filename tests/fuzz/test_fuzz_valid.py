"""What is valid is read as it was written, whatever it is called and however it is set."""

from __future__ import annotations

import math
import tempfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from strategies import NOISE_FILES, SETTINGS, TRAININGS, profiles, rows, states

import noiserobust as nr
from noiserobust.cli.parsing import checked_settings
from noiserobust.config import TrainConfig
from noiserobust.models.weights import read_weights
from noiserobust.noise.device import DeviceNoise
from noiserobust.noise.profiles import load_profile
from noiserobust.noise.registry import build_noise
from noiserobust.results.schema import DRAW_KEY
from noiserobust.results.store import DrawStore, as_frame, known, read_rows
from noiserobust.results.summary import summarize
from noiserobust.yamlfile import read_settings

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def written(content: Any, name: str = "file.yaml") -> Path:
    path = Path.cwd() / name
    path.write_text(yaml.dump(content, Dumper=DUMPER, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def built(kind: Any, content: dict[str, Any]) -> Any:
    """Make the object of settings without parser: what the parser has to make of them."""
    hints = get_type_hints(kind)
    groups = {f.name for f in fields(kind) if is_dataclass(hints[f.name])}
    return kind(**{name: built(hints[name], value) if name in groups else value for name, value in content.items()})


def check_training(content: dict[str, Any]) -> None:
    assert checked_settings(TrainConfig, read_settings(written(content))) == built(TrainConfig, content)


def check_profile(content: dict[str, Any]) -> None:
    profile = load_profile(written(content))
    assert load_profile(written(profile.content())) == profile
    noise = DeviceNoise.of(profile)
    weight = torch.linspace(-1, 1, 12).reshape(3, 4)
    noisy = noise.perturb(weight, nr.Stream(0, "w"))
    assert noisy.shape == weight.shape
    assert torch.isfinite(noisy).all()
    assert torch.equal(noisy, DeviceNoise.of(load_profile(written(content))).perturb(weight, nr.Stream(0, "w")))


def check_noise(content: dict[str, Any]) -> None:
    noise = build_noise(str(written(content)))
    noisy = noise.perturb(torch.ones(3, 4), nr.Stream(0, "w"))
    assert torch.isfinite(noisy).all()
    if "level" in content:
        assert noise.level == content["level"]
    assert math.isfinite(noise.level)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in DRAW_KEY)


def check_draws(given: tuple[list[dict[str, Any]], Any]) -> None:
    written_rows, said = given
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    with DrawStore(folder, {"said": said}, {}) as store:
        assert store.remember("settled", lambda: said) == said
        for row in written_rows:
            store.append(row)
    assert list(read_rows(folder)) == written_rows
    assert known(folder, "settled") == said
    with DrawStore(folder, {"said": said}, {}) as store:
        assert store.rows == written_rows
        store.finish(summarize(as_frame([])))
    read = list(read_rows(folder))
    assert sorted(read, key=key) == sorted(written_rows, key=key)


def check_weights(state: dict[str, torch.Tensor]) -> None:
    torch.save(state, "w.pt")
    save_file(state, "w.safetensors")
    for path in (Path("w.pt"), Path("w.safetensors")):
        read = read_weights(path).state
        assert {name: (t.dtype, t.shape) for name, t in read.items()} == {
            n: (t.dtype, t.shape) for n, t in state.items()
        }
        assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("strategy", "check"),
    [
        pytest.param(TRAININGS, check_training, id="trainings"),
        pytest.param(profiles(), check_profile, id="profiles"),
        pytest.param(NOISE_FILES, check_noise, id="noises"),
        pytest.param(st.tuples(rows(), SETTINGS), check_draws, id="draws"),
        pytest.param(states(), check_weights, id="weights"),
    ],
)
@pytest.mark.parametrize("number", [8, pytest.param(500, marks=pytest.mark.thorough)])
def test_what_is_valid_is_read_as_it_was_written(strategy, check, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings(max_examples=number, deadline=None, derandomize=True)(given(strategy)(check))()
