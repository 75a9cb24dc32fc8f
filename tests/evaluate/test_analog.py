"""The full analog tile: ideal periphery adds nothing, real periphery what it should."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.data.arrays import from_arrays
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.api import describe
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.plan import Plan, parse_levels
from noiserobust.models.weights import write_weights
from noiserobust.noise.sites import find_sites
from noiserobust.report import write_report

pytest.importorskip("aihwkit.nn", reason="needs the extra `aihwkit`")
from noiserobust.evaluate.analog import AnalogModel

IDEAL = {"dac_bits": 0, "adc_bits": 0, "output_noise": 0.0, "input_bound": 1e6, "output_bound": 1e6}
STREAM = nr.Stream(0, "deploy", 0, 0)


def network(groups=1):
    torch.manual_seed(0)
    first = nn.Conv2d(2, 6, 3, groups=groups, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2)
    model = nn.Sequential(*first, nn.Flatten(), nn.Linear(36, 5, bias=False))
    for _ in range(10):
        model(torch.randn(50, 2, 8, 8))
    return model.eval()


def images(n=40):
    return torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def device(t="1d", **settings):
    return nr.DeviceNoise.from_profile("pcm-nandakumar-2019", t, **settings)


def outputs(model, noise, x, **settings):
    profile = device(**settings).profile
    with torch.no_grad(), AnalogModel(model, find_sites(model), profile).on_chip(noise, STREAM) as tiles:
        return tiles(x)


@pytest.mark.parametrize("tile", [(512, 512), (10, 4)])
@pytest.mark.parametrize("granularity", ["tensor", "filter", "tile"])
def test_with_an_ideal_periphery_it_is_the_network_on_the_chip(tile, granularity):
    model, x, settings = network(), images(), {"tile": tile, "granularity": granularity}
    noise = device(**settings)
    with nr.perturbed(model, noise), torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(outputs(model, noise, x, **IDEAL, **settings), expected, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        clean = model(x)
    torch.testing.assert_close(outputs(model, None, x, **IDEAL, **settings), clean, rtol=1e-3, atol=1e-4)
    assert (expected - clean).abs().max() > 0.05


def test_output_noise_has_its_std_and_comes_from_the_stream():
    torch.manual_seed(0)
    model = nn.Linear(64, 32, bias=False)
    x = torch.randn(2000, 64)
    settings = IDEAL | {"output_noise": 0.06}
    noisy = outputs(model, None, x, **settings)
    with torch.no_grad():
        error = (noisy - model(x)) / x.abs().amax(1, keepdim=True)
    expected = 0.06 * model.weight.abs().max().item()  # of what the largest weight gives for the largest input
    assert error.std().item() == pytest.approx(expected, rel=0.03)
    before = torch.get_rng_state()
    assert torch.equal(outputs(model, None, x, **settings), noisy)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bits", [3, 5, 8])
def test_converters_have_their_bits(bits):
    model = nn.Linear(1, 1, bias=False)
    x = torch.linspace(-1, 1, 4001)[:, None]
    # Inputs are scaled by the largest of each example: two features, so that there is something to round.
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0]]))
    pairs = torch.cat([x, torch.ones_like(x)], dim=1)
    rounded = outputs(model, None, pairs, **(IDEAL | {"dac_bits": bits, "input_bound": 1.0}))
    assert len(rounded.unique()) == 2**bits - 1
    assert (rounded - x).abs().max().item() <= 0.5 / (2 ** (bits - 1) - 1) + 1e-4


@pytest.mark.usefixtures("unrendered")
def test_what_cannot_be_a_tile_stays_digital_and_is_listed(tmp_path):
    model, x = network(groups=2), images()
    y = torch.arange(40) % 5
    result = nr.evaluate([model], (x, y), noise=device(), levels=["1d"], draws=2, analog=True, out=tmp_path)
    assert set(result.draws.noise) == {"pcm-nandakumar-2019+tile"}
    configuration = json.loads((tmp_path / "manifest.json").read_text())["configuration"]
    assert configuration["analog"] == ["3.weight", "5.weight"]
    assert configuration["digital"] == ["0.weight"]
    page = write_report([tmp_path], tmp_path / "report").html.read_text()
    assert "Under pcm-nandakumar-2019+tile some layers stayed digital" in page
    assert "simulated as tiles: 0.weight." in page
    analog = AnalogModel(model, find_sites(model), device().profile)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with analog.on_chip(device(), STREAM) as tiles:
        assert torch.equal(dict(tiles.named_modules())["0"].weight, model[0].weight)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(InvalidValueError, match=r"Expected a model with layers that can be analog tiles, but weight"):
        AnalogModel(nn.Embedding(5, 3), find_sites(nn.Embedding(5, 3)), device().profile)


def test_what_cannot_be_simulated_is_refused_before_anything_is_written(tmp_path):
    grouped = nn.Sequential(nn.Conv2d(2, 4, 8, groups=2), nn.Flatten())
    data = images(), torch.arange(40) % 4
    out = tmp_path / "out"
    with pytest.raises(InvalidValueError, match=r"layers that can be analog tiles, but 0\.weight cannot"):
        nr.evaluate([grouped], data, noise=device(), levels=["1d"], analog=True, out=out)
    assert not out.exists()
    model = network()
    plan = Plan(device(), parse_levels(device(), ["1d"]), 1, 0, analog=True)
    forward = Forward(from_arrays(images().numpy(), np.arange(40) % 5, "x"), lambda x: x, torch.device("cuda:0"))
    with pytest.raises(InvalidValueError, match="Expected `device` to be cpu with `analog`, but got cuda:0"):
        describe(plan, forward, model, {})


def test_a_chip_does_not_drift_twice():
    model, x = network(), images()
    analog = AnalogModel(model, find_sites(model), device(**IDEAL).profile)
    found = []
    for t in ("1d", "1y", "1d"):
        with torch.no_grad(), analog.on_chip(device(t), STREAM) as tiles:
            found.append(tiles(x))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_evaluation_on_tiles_is_that_of_the_tiles():
    model, x = network(), images()
    y = torch.arange(40) % 5
    draws = nr.evaluate([model], (x, y), noise=device(), levels=["clean", "1d"], draws=2, analog=True).draws
    assert len(draws) == 3
    analog = AnalogModel(model, find_sites(model), device().profile)
    with torch.no_grad(), analog.on_chip(device(), nr.Stream(0, "deploy", 0, 1)) as tiles:
        right = (tiles(x).argmax(1) == y).float().mean().item()
    assert np.isclose(draws.value.iloc[-1], 100 * right)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"noise": nr.GaussianNoise(0.1)}, "Expected a device for `analog`, but got gaussian noise"),
        ({"noise": device(), "reads": "batch"}, "Expected `analog` without `reads` of a batch"),
        ({"noise": device(), "calibration": nr.Calibration("layer", images())}, "without calibration"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, said):
    with pytest.raises(InvalidValueError, match=said):
        nr.evaluate([network()], (images(), torch.arange(40) % 5), analog=True, **settings)


def test_the_command_evaluates_on_tiles(tmp_path, capsys):
    torch.manual_seed(0)
    write_weights(tmp_path / "w.safetensors", nr.build_model("digits-mlp"), {"method": "sgd", "train_seed": "0"})
    words = [
        "evaluate",
        "--model",
        "digits-mlp",
        "--weights",
        tmp_path / "w.safetensors",
        "--data",
        "digits",
        "--analog",
    ]
    words += ["--noise", "pcm-hermes-2", "--levels", "1s", "1y", "--draws", 2, "--examples", 50]
    assert main([str(w) for w in [*words, "--out", tmp_path / "out"]]) == 0
    assert "pcm-hermes-2+tile" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["configuration"]["data"]["n_examples"] == 50
    assert main([str(w) for w in [*words, "--examples", 0, "--out", tmp_path / "b"]]) == 2
    assert "Expected `examples` to be an integer >= 1" in capsys.readouterr().err
