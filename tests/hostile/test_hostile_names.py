"""``file.py:callable`` is the only place where code is named: nothing else that comes in a file imports any."""

import json
import sys

import numpy as np
import pytest
import torch

import noiserobust as nr
from noiserobust.data.normalize import parse_normalize
from noiserobust.data.registry import load_data
from noiserobust.errors import NoiseRobustError
from noiserobust.evaluate.files import resolve_weights
from noiserobust.models.registry import build_model
from noiserobust.models.weights import read_weights, write_weights
from noiserobust.noise.profiles import load_profile
from noiserobust.noise.registry import build_noise


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """Return the folder of a module that leaves a trace when it is imported, from which modules can be imported."""
    (tmp_path / "evil.py").write_text("open(__file__ + '.ran', 'w').close()\ndef make(*_, **__): return None\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("evil", None)


def ran(folder):
    return (folder / "evil.py.ran").exists()


NAMES = ["evil:make", "evil.py:make", "./evil.py:make", "evil.make", "evil", "evil.py"]


@pytest.mark.parametrize("name", ["evil:make", "evil.py:make"])
def test_model_and_data_name_code_which_is_run(evil, name):
    for use in (lambda: build_model(name), lambda: load_data(name, "test")):
        with pytest.raises(NoiseRobustError, match="but"):  # what it makes is no model and no data
            use()
        assert ran(evil)
        (evil / "evil.py.ran").unlink()
        for module in [m for m in sys.modules if "evil" in m]:
            del sys.modules[module]


@pytest.mark.parametrize("name", NAMES)
def test_no_other_name_is_imported(evil, name):
    uses = [
        lambda: build_noise(name),
        lambda: load_profile(name),
        lambda: parse_normalize(name),
        lambda: load_data(f"npz:{name}", "test"),
        lambda: load_data(f"imagefolder:{name}", "test"),
        lambda: load_data(f"cifar10-c:{name}/fog/3", "test"),
        lambda: read_weights(name),
        lambda: nr.Chip.load(name),
        lambda: nr.DeviceNoise.from_profile(name),
    ]
    for use in uses:
        with pytest.raises(NoiseRobustError, match=r"^Expected"):
            use()
    assert not ran(evil)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    [
        "{{noise: '{0}'}}",
        "{{compose: [{{noise: '{0}'}}, {{noise: '{0}'}}]}}",
        "{{noise: gaussian, reference: '{0}'}}",
        "{{noise: gaussian, granularity: '{0}'}}",
        "{{noise: gaussian, class_path: '{0}'}}",
        "{{noise: gaussian, level: '{0}'}}",
        "{{class_path: '{0}', init_args: {{}}}}",
        "{{schema_version: 1, backend: '{0}', model: '{0}'}}",
        "{{noise: !!python/name:{0} ''}}",
        "!!python/object/apply:{0} []",
        "!!python/module:{0} ''",
        "noise: !!python/object/new:{0} {{}}",
    ],
)
def test_no_noise_file_imports_anything(evil, name, text):
    (evil / "n.yaml").write_text(text.format(name))
    for read in (build_noise, load_profile):
        with pytest.raises(NoiseRobustError, match=r"n\.yaml"):
            read(str(evil / "n.yaml"))
    assert not ran(evil)


@pytest.mark.parametrize("name", NAMES)
def test_what_weights_say_of_themselves_is_text(evil, name):
    keys = ("model", "method", "data", "trained_method", "trained_noise", "trained_level", "training_sha256")
    model = build_model("digits-mlp")
    write_weights(evil / "w.safetensors", model, dict.fromkeys(keys, name))
    found = resolve_weights("digits-mlp", [evil / "w.safetensors"])
    assert found.subjects[0].method == name
    write_weights(evil / "w.safetensors", model, {"normalize": name})
    assert resolve_weights("digits-mlp", [evil / "w.safetensors"]).normalize == name
    assert not ran(evil)


@pytest.mark.parametrize("name", NAMES)
def test_a_chip_names_no_code(evil, name):
    nr.DeviceNoise.from_profile("reram-wan-2022").program(torch.nn.Linear(3, 2)).save(evil / "chip")
    file = evil / "chip" / "manifest.json"
    manifest = json.loads(file.read_text())
    for change in (
        {"kind": name},
        {"profile": name},
        {"profile": manifest["profile"] | {"model": name}},
        {"profile": manifest["profile"] | {"backend": name}},
        {"profile": manifest["profile"] | {"conductance": {"converter": name}}},
        {"overrides": {"model": name}},
    ):
        from noiserobust.noise.chip import _digest

        changed = manifest | change
        described = {key: changed[key] for key in ("profile", "overrides", "origin", "tensors")}
        file.write_text(json.dumps(changed | {"sha256": _digest(described)}))
        with pytest.raises(NoiseRobustError, match=r"^Expected"):
            nr.Chip.load(evil / "chip")
    assert not ran(evil)


def test_data_name_no_code(evil):
    for name in NAMES:
        np.savez(evil / "d.npz", **{name.replace("/", "-"): np.zeros(1)})
        with pytest.raises(NoiseRobustError, match="to hold the arrays"):
            load_data(f"npz:{evil}/d.npz", "test")
    assert not ran(evil)
