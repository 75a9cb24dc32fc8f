"""A programmed chip: fixed errors, followed through time, kept on disk."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import noiserobust as nr
from noiserobust.errors import InvalidValueError, MissingFileError, OutputError
from noiserobust.noise.profiles import profile_names

TIMES = ["1s", "1d"]


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        convolutions = nn.Conv2d(2, 6, 3, groups=2), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, groups=2), nn.Flatten()
        return nn.Sequential(*convolutions, nn.Linear(4 * 49, 5)).eval()


def weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items() if v.ndim > 1}


def on_chip(model, noise, **numbers):
    with nr.perturbed(model, noise, **numbers):
        return weights(model)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("t", TIMES)
def test_a_chip_is_the_one_that_evaluation_uses(name, t):
    model, noise = network(), nr.DeviceNoise.from_profile(name, t)
    chip = noise.program(model, seed=1, draw=2, train_seed=3)
    numbers = {"seed": 1, "draw": 2, "train_seed": 3}
    assert same(on_chip(model, chip, **numbers), on_chip(model, noise, **numbers))
    other = nr.DeviceNoise.from_profile(name, "1d").program(model, seed=1, draw=2, train_seed=3)
    assert same(on_chip(model, other.at(t), **numbers), on_chip(model, noise, **numbers))
    assert not same(on_chip(model, noise.program(model, seed=1, draw=4), **numbers), on_chip(model, noise, **numbers))


def test_only_the_reading_is_new_with_another_draw():
    model = network()
    chip = nr.DeviceNoise.from_profile("pcm-hermes-1", "1h").program(model)
    one, other = (on_chip(model, chip, draw=k) for k in (0, 1))
    assert not same(one, other)
    quiet = nr.DeviceNoise.from_profile("pcm-hermes-1", "1h", read_noise_scale=0.0).program(model)
    assert same(on_chip(model, quiet, draw=0), on_chip(model, quiet, draw=1))
    for key, read in one.items():  # both readings are around the same chip
        spread = (read - other[key]).std()
        assert spread < 0.9 * math.sqrt(2) * (read - weights(model)[key]).std()


def test_a_device_without_read_noise_drifts_as_a_power_of_time():
    model = nn.Linear(50, 40)
    noise = nr.DeviceNoise.from_profile("pcm-nandakumar-2019", "1s", read_noise_scale=0.0, compensation="none")
    chip = noise.program(model)
    (state,) = (p.state for p in chip.programmed.values())
    for t in (1.0, 3600.0, 3e7):
        g = state["g_us"] * ((t + 20) / 20) ** -state["nu"]
        expected = (g[0] - g[1]) / 25 * model.weight.abs().max()
        torch.testing.assert_close(on_chip(model, chip.at(t))["weight"], expected, rtol=1e-5, atol=1e-7)


def tensors(folder):
    (path,) = folder.glob("chip-*.safetensors")
    return path


def test_a_chip_survives_the_disk(tmp_path):
    model = network()
    settings = {"granularity": "tile", "tile": (4, 4), "converter": "dual_pair", "factors": [1, 3]}
    chip = nr.DeviceNoise.from_profile("pcm-nandakumar-2019", **settings).program(model, seed=5, draw=6)
    chip.save(tmp_path / "chip")
    again = nr.Chip.load(tmp_path / "chip", t="1h")
    assert again.t == 3600
    assert again.name == chip.name
    assert again.describe() == chip.describe()
    assert same(on_chip(model, again, draw=1), on_chip(model, chip.at("1h"), draw=1))
    manifest = json.loads((tmp_path / "chip/manifest.json").read_text())
    assert manifest["origin"] == {"seed": 5, "train_seed": 0, "draw": 6}
    assert manifest["profile"]["name"] == "pcm-nandakumar-2019"
    assert sorted(p.name for p in (tmp_path / "chip").iterdir()) == [tensors(tmp_path / "chip").name, "manifest.json"]


def test_spoilt_chips_are_refused(tmp_path):
    folder = tmp_path / "chip"
    with pytest.raises(MissingFileError, match=r"Expected a file .*manifest\.json"):
        nr.Chip.load(folder)
    nr.DeviceNoise.from_profile("reram-wan-2022").program(network()).save(folder)
    file = tensors(folder)
    whole, manifest = file.read_bytes(), (folder / "manifest.json").read_text()
    for content in (whole[:-1], whole[:-4] + b"\0\0\0\1", b""):
        file.write_bytes(content)
        with pytest.raises(InvalidValueError, match="to be the file of its manifest"):
            nr.Chip.load(folder)
    file.unlink()
    with pytest.raises(MissingFileError, match=r"\.safetensors, but there is none"):
        nr.Chip.load(folder)
    file.write_bytes(whole)
    changes = [{"kind": "evaluation"}, {"schema_version": 2}, {"origin": {}}, {"profile": {}}, {"overrides": 3}]
    for change in [*changes, {"overrides": {"g_max_us": 20.0}}, {"origin": {"seed": 1, "train_seed": 0, "draw": 0}}]:
        (folder / "manifest.json").write_text(json.dumps({**json.loads(manifest), **change}))
        with pytest.raises(InvalidValueError, match="Expected"):
            nr.Chip.load(folder)
    (folder / "manifest.json").write_text(manifest)
    nr.Chip.load(folder)


def test_a_chip_keeps_its_time_and_takes_no_other_results_place(tmp_path):
    chip = nr.DeviceNoise.from_profile("reram-wan-2022", "2d").program(network(), seed=3, draw=1, train_seed=2)
    assert chip.origin == {"seed": 3, "train_seed": 2, "draw": 1}
    chip.save(tmp_path / "chip")
    assert nr.Chip.load(tmp_path / "chip").t == 2 * 86400
    chip.save(tmp_path / "chip")  # a chip may be saved again
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "manifest.json").write_text('{"kind": "evaluation", "schema_version": 1}')
    with pytest.raises(InvalidValueError, match=r"manifest\.json to be that of a chip"):
        chip.save(evaluation)
    assert [p.name for p in evaluation.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("writes", ["write_atomic", "write_json"])
def test_a_full_disk_leaves_the_chip_that_was_there(tmp_path, monkeypatch, writes):
    model, noise = network(), nr.DeviceNoise.from_profile("pcm-hermes-2")
    old, new = noise.program(model), noise.program(model, seed=1)
    old.save(tmp_path)

    def full(*_):
        raise OutputError("Expected to be able to write, but got: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"noiserobust.noise.chip.{writes}", full)
        with pytest.raises(OutputError, match="No space left"):
            new.save(tmp_path)
    assert same(on_chip(model, nr.Chip.load(tmp_path)), on_chip(model, old))
    new.save(tmp_path)
    assert same(on_chip(model, nr.Chip.load(tmp_path)), on_chip(model, new))
    tensors(tmp_path)  # one file is left


def test_weights_that_are_no_numbers_are_not_programmed():
    model = network()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(InvalidValueError, match=r"Expected .*weight to be finite, but it holds NaN"):
        nr.DeviceNoise.from_profile("pcm-hermes-2").program(model)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: nr.DeviceNoise.from_profile("pcm-hermes-2").program(None), "`model` to be a module, but got NoneType"),
        (lambda: nr.DeviceNoise.from_profile("pcm-hermes-2").program(network(), draw=-1), "`draw` to be an integer"),
        (lambda: nr.DeviceNoise("pcm-hermes-2"), "`profile` to be a profile, as from_profile takes it by name"),
        (lambda: nr.DeviceNoise.from_profile("pcm-hermes-2", adc_bits=1), "`.*adc_bits` to be 2 to 24, or 0 for none"),
    ],
)
def test_slips_are_named(call, said):
    with pytest.raises(InvalidValueError, match=said):
        call()


def test_a_chip_belongs_to_its_weights():
    chip = nr.DeviceNoise.from_profile("pcm-hermes-2").program(network(0))
    with pytest.raises(InvalidValueError, match="to be the weight that the chip was programmed with"):
        on_chip(network(1), chip)
    with pytest.raises(InvalidValueError, match=r"Expected a chip with a weight weight, but it has 0\.weight"):
        on_chip(nn.Linear(3, 4), chip)
    model = network(0)
    with nr.perturbed(model, chip), pytest.raises(InvalidValueError, match="read from clean weights"):
        on_chip(model, chip)  # it cannot drift twice
    with pytest.raises(InvalidValueError, match="Expected a chip to be used at strength 1"):
        chip.weakened(0.5)


def test_a_chip_is_evaluated_over_time():
    model = network()
    x, y = torch.randn(60, 2, 8, 8), torch.arange(60) % 5
    noise = nr.DeviceNoise.from_profile("pcm-nandakumar-2019")
    chip = noise.program(model, draw=7)
    found = nr.evaluate([model], (x, y), noise=chip, levels=TIMES, draws=3).draws
    assert found.groupby("level").size().to_dict() == {1.0: 3, 86400.0: 3}
    assert set(found.noise) == {"pcm-nandakumar-2019-chip7"}
    with nr.perturbed(model, chip.at("1d"), draw=2):
        right = (model(x).argmax(1) == y).float().mean().item()
    assert np.isclose(found[(found.level == 86400) & (found.draw == 2)].value.item(), 100 * right)


def test_times_are_checked():
    chip = nr.DeviceNoise.from_profile("reram-wan-2022").program(network())
    for bad in ("1h", "3d", 0):
        with pytest.raises(InvalidValueError, match="Expected `t` to be"):
            chip.at(bad)


def test_read_noise_can_be_new_for_each_batch():
    model, noise = network(), nr.DeviceNoise.from_profile("pcm-hermes-1", "1d")
    x, y = torch.randn(60, 2, 8, 8), torch.arange(60) % 5
    arguments = {"noise": noise, "levels": ["clean", "1d"], "draws": 2, "reads": "batch"}
    found = nr.evaluate([model], (x, y), batch_size=20, **arguments).draws
    assert set(found.noise) == {"pcm-hermes-1+read-each-batch"}
    stream = nr.Stream(0, "deploy", 0, 1)
    right = 0
    chip = noise.program(model, draw=1)
    for batch in range(3):
        readings = {f"{name}.weight": module for name, module in model.named_modules() if hasattr(module, "weight")}
        span, clean = slice(20 * batch, 20 * (batch + 1)), weights(model)
        for site in nr.find_sites(model):
            read = chip.perturb(site.weight(), stream.child("batch", batch, site.name), site.view)
            readings[site.name].weight.data.copy_(read)
        right += (model(x[span]).argmax(1) == y[span]).sum().item()
        for name, module in readings.items():
            module.weight.data.copy_(clean[name])
    assert np.isclose(found.value.iloc[-1], 100 * right / 60)
    quiet = noise.with_settings(read_noise_scale=0.0)  # without read noise it is all the same
    runs = [
        nr.evaluate([model], (x, y), noise=quiet, levels=["1d"], draws=2, batch_size=20, reads=reads).draws
        for reads in ("pass", "batch")
    ]
    assert runs[0].value.tolist() == runs[1].value.tolist()
    chip_draws = nr.evaluate([model], (x, y), noise=chip, levels=["1d"], draws=2, batch_size=20, reads="batch").draws
    assert len(chip_draws) == 2


def test_only_devices_are_read():
    data = torch.randn(6, 2, 8, 8), torch.arange(6) % 5
    with pytest.raises(InvalidValueError, match="Expected a device for `reads` of a batch, but got gaussian"):
        nr.evaluate([network()], data, noise=nr.GaussianNoise(0.1), reads="batch")
    with pytest.raises(InvalidValueError, match="Expected `reads` to be one of"):
        nr.evaluate([network()], data, noise=nr.GaussianNoise(0.1), reads="row")
    noise, calibration = nr.DeviceNoise.from_profile("pcm-hermes-1"), nr.Calibration("layer", data[0])
    with pytest.raises(InvalidValueError, match="Expected no calibration with `reads` of a batch"):
        nr.evaluate([network()], data, noise=noise, reads="batch", calibration=calibration)
