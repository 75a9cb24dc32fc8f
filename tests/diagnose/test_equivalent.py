"""What a device does to weights in numbers, and the Gaussian noise that does as much."""

import math
from io import StringIO

import pandas as pd
import pytest
import torch
import yaml
from torch import nn

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.diagnose.equivalent import TOTAL, as_text, equivalent_noise
from noiserobust.diagnose.errors import drift, spread, weight_error
from noiserobust.errors import InvalidValueError
from noiserobust.models.weights import write_weights
from noiserobust.noise.base import Noise
from noiserobust.noise.profiles import load_profile, profile_names

STREAMS = [nr.Stream(0, "chip", k) for k in range(3)]


class Known(Noise):
    """``gain * w + shift + error`` with errors of a known distribution and size."""

    name, level_name, level = "known", "x", 1.0

    def __init__(self, gain=0.7, shift=0.03, std=0.02, kind="normal"):
        self.gain, self.shift, self.std, self.kind = gain, shift, std, kind

    def at(self, level):
        return self

    def perturb(self, weight, stream, view=None):
        z = torch.from_numpy(getattr(stream, self.kind)(tuple(weight.shape))).double()
        return self.gain * (weight + self.std * z) + self.shift


@pytest.fixture
def weight():
    return torch.from_numpy(nr.Stream(0, "w").normal((200, 300))).double()


def test_the_parts_of_an_error_are_told_apart(weight):
    largest = weight.abs().max().item()
    found = weight_error(Known(), weight, STREAMS)
    assert found.gain == pytest.approx(0.7, rel=1e-3)
    assert found.shift == pytest.approx(0.03 / largest, rel=1e-2)
    assert found.std_of_tensor == pytest.approx(0.02 / largest, rel=1e-2)
    filters = weight.abs().amax(1)
    assert found.std_of_filter == pytest.approx(0.02 / filters.square().mean().sqrt().item(), rel=1e-2)
    assert found.relative == pytest.approx(0.02 / weight.square().mean().sqrt().item(), rel=1e-2)
    assert found.std_small == pytest.approx(found.std_large, rel=0.05)
    assert found.kurtosis == pytest.approx(0, abs=0.05)
    assert weight_error(Known(kind="laplace"), weight, STREAMS).kurtosis == pytest.approx(3, abs=0.2)


def test_max_scaled_noise_is_equivalent_to_itself():
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.Flatten(), nn.Linear(500, 30))
    for sigma in (0.01, 0.1):
        table = equivalent_noise(model, nr.GaussianNoise(sigma), [sigma], chips=8)
        assert table.layer.tolist() == ["0.weight", "2.weight", TOTAL]
        assert table.sigma.tolist() == pytest.approx([sigma] * 3, rel=0.1)
        assert table.weights.tolist() == [540, 15000, 15540]


def test_layers_count_alike_in_the_total():
    model = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 300))
    with torch.no_grad():
        model[1].weight[0, 0] = 20 * model[1].weight.abs().max()  # an outlier: the other weights drown
    table = equivalent_noise(model, nr.DeviceNoise.from_profile("pcm-nandakumar-2019"), ["1d"]).set_index("layer")
    one, other = (table.loc[f"{i}.weight"] for i in (0, 1))
    assert other["sigma"] > 3 * one["sigma"]
    unit = {i: table.loc[f"{i}.weight", "relative"] / table.loc[f"{i}.weight", "sigma"] for i in (0, 1)}
    expected = math.sqrt((one["relative"] ** 2 + other["relative"] ** 2) / (unit[0] ** 2 + unit[1] ** 2))
    assert table.loc[TOTAL, "sigma"] == pytest.approx(expected)


def test_the_device_degrades_like_its_equivalent():
    # Outputs of a linear layer: the mean square error under the device, gain taken off, and under the Gaussian noise.
    layer = nn.Linear(400, 200, bias=False)
    noise = nr.DeviceNoise.from_profile("pcm-hermes-2", "1d")
    table = equivalent_noise(layer, noise, ["1d"])
    sigma, gain = table.sigma.iloc[-1], table.gain.iloc[-1]
    x = torch.randn(500, 400, generator=torch.Generator().manual_seed(0))

    def error(noise, gain=1.0):
        with torch.no_grad():
            clean = layer(x)
            found = []
            for draw in range(5):
                with nr.perturbed(layer, noise, draw=draw):
                    found.append((layer(x) / gain - clean).square().mean().item())
        return sum(found) / len(found)

    assert error(noise, gain) == pytest.approx(error(nr.GaussianNoise(sigma)), rel=0.1)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    write_weights(path, nr.build_model("digits-mlp"), {"method": "sgd", "train_seed": "0"})
    return path


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_command_prints_and_writes_the_table(capsys, weights, tmp_path):
    name = "reram-wan-2022"
    arguments = ["profiles", "equivalent", name, "--model", "digits-mlp", "--weights", weights, "--t", "1s", "2d"]
    status, out, _ = run(capsys, *arguments, "--chips", 2, "--out", tmp_path / "a/table.csv")
    assert status == 0
    model = nr.build_model("digits-mlp")
    nr.models.weights.fit_weights(model, nr.models.weights.read_weights(weights))
    expected = equivalent_noise(model, nr.DeviceNoise.from_profile(name), ["1s", "2d"], chips=2)
    assert out == as_text(expected) + "\n"
    assert "t = 2 d" in out
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a/table.csv"), expected)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--t", "1h"], "Expected `t` to be one of 1s, 1d, 2d"),
        (["--chips", "0"], "Expected `chips` to be an integer >= 1"),
        (["--out", "table.txt"], "Expected `out` to end in .csv"),
        (["--weights", "none.safetensors"], "none.safetensors"),
        (["--model", "digits-mpl"], "did you mean 'digits-mlp'"),
    ],
)
def test_bad_input_is_one_line(capsys, weights, more, said):
    arguments = ["profiles", "equivalent", "reram-wan-2022", "--model", "digits-mlp", "--weights", weights]
    status, out, err = run(capsys, *arguments, *more)
    assert (status, out) == (2, "")
    assert err.startswith("noiserobust: error: Expected ")
    assert err.count("\n") == 1
    assert said in err


def test_model_and_weights_are_needed(capsys):
    status, _, err = run(capsys, "profiles", "equivalent", "reram-wan-2022")
    assert status == 2
    assert "Expected `--model`, `--weights` to be given" in err


@pytest.mark.parametrize("name", profile_names())
def test_what_show_prints_is_the_profile(capsys, name, tmp_path):
    status, out, _ = run(capsys, "profiles", "show", name)
    assert status == 0
    (tmp_path / "mine.yaml").write_text(out)
    assert load_profile(tmp_path / "mine.yaml") == load_profile(name)
    assert yaml.safe_load(StringIO(out)) == load_profile(name).content()
    assert len([line for line in out.splitlines() if line.startswith("#")]) == 16 + len(load_profile(name).times)


def test_drift_and_spread_are_those_of_the_device():
    noise = nr.DeviceNoise.from_profile("pcm-nandakumar-2019")
    (found,) = drift(noise, [86400.0])
    assert found.gain == pytest.approx(0.653, rel=0.01)
    assert found.raw / found.compensated == pytest.approx(7.72 / 4.03, rel=0.1)  # largest weight: 4.3 std, not 4.76
    (found,) = drift(nr.DeviceNoise.from_profile("reram-cmo-fine"), [31557600.0])
    assert found.raw == pytest.approx(math.hypot(found.compensated, found.shift), rel=0.02)
    still = nr.DeviceNoise.from_profile("pcm-nandakumar-2019", drift_scale=0.0, read_noise_scale=0.0)
    sizes, stds = spread(still, 1.0, points=5, chips=5000)
    assert sizes.tolist() == [-1, -0.5, 0, 0.5, 1]
    # Away from zero, the programming error of the one device, and a half Gaussian of the other at zero.
    for size, std in zip(sizes.abs().tolist(), stds.tolist(), strict=True):
        own = (0.26348 + 1.9650 * size - 1.1731 * size**2) / 25
        other = 0.26348 / 25 * math.sqrt(0.5 - 0.5 / math.pi)
        if size:
            assert std == pytest.approx(math.hypot(own, other), rel=0.05)
        else:
            assert std == pytest.approx(math.sqrt(2) * other, rel=0.05)


@pytest.mark.parametrize("name", ["reram-wan-2022", "reram-cmo-coarse"])
@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.slow
def test_plot_writes_a_picture(capsys, name, kind, tmp_path):
    path = tmp_path / "a" / f"{name}.{kind}"
    status, out, _ = run(capsys, "profiles", "plot", name, "--out", path)
    assert (status, out) == (0, f"{path}\n")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    if kind == "svg":
        assert b"1 d" in content or b"<!-- 1 d -->" in content
    run(capsys, "profiles", "plot", name, "--out", path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("more", [[], ["--out", "device.pdf"]])
def test_a_picture_needs_a_file(capsys, more):
    status, _, err = run(capsys, "profiles", "plot", "reram-wan-2022", *more)
    assert status == 2
    assert "Expected `out` to end in .png or .svg, but got" in err


@pytest.mark.thorough
def test_small_layers_are_not_underestimated():
    for n in (3, 4, 9):
        weight = torch.from_numpy(nr.Stream(0, "w").normal((1, n)))
        streams = [nr.Stream(0, "chip", k) for k in range(4000)]
        assert weight_error(nr.GaussianNoise(0.05), weight, streams).std_of_filter == pytest.approx(0.05, rel=0.05)


def test_a_model_without_weights_is_refused():
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    with pytest.raises(InvalidValueError, match="not zero, but the model has none"):
        equivalent_noise(model, nr.DeviceNoise.from_profile("pcm-hermes-2"), ["1d"])


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--t", "1d"],
        ["show", "pcm-hermes-2", "--out", "x.yaml"],
        ["fit", "m.csv", "--t", "1d"],
        ["plot", "pcm-hermes-2", "--out", "x.png", "--model", "resnet20"],
    ],
)
def test_options_of_another_action_are_refused(capsys, words):
    status, out, err = run(capsys, "profiles", *words)
    assert (status, out) == (2, "")
    assert "only, but got " + words[0] in err
