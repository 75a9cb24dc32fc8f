"""Calibration after programming: what it can undo it undoes, and nothing of it stays."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.calibration import Calibration, Calibrator
from noiserobust.models.weights import write_weights
from noiserobust.noise.base import Noise
from noiserobust.noise.sites import find_sites


class Known(Noise):
    """A gain and an offset of weights, of the whole layer or of each column: all that calibration can undo."""

    name, level_name, level = "known", "x", 1.0

    def __init__(self, by_column):
        self.by_column = by_column

    def at(self, level):
        return self

    def perturb(self, weight, stream, view=None):
        shape = (weight.shape[0], *[1] * (weight.ndim - 1)) if self.by_column else (1,)
        gain = 0.5 + torch.from_numpy(stream.generator().random(shape)).to(weight)
        return weight * gain


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )
    for _ in range(20):
        model(torch.randn(50, 2, 8, 8))
    return model.eval()


def data(n=200, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, 8, 8, generator=generator)
    return x, network()(x).argmax(1)  # without noise all are right


def accuracy(noise, kind, n=100):
    x, y = data()
    calibration = kind and Calibration(kind, data(n, seed=2)[0])
    return nr.evaluate(
        [network()], (x, y), noise=noise, levels=[1.0], draws=5, calibration=calibration
    ).draws.value.mean()


def test_gains_are_undone_by_the_kind_that_can():
    for by_column in (False, True):
        assert accuracy(Known(by_column), None) < 99
        assert accuracy(Known(by_column), "column") == 100
    assert accuracy(Known(False), "layer") > accuracy(Known(False), None) + 1
    assert accuracy(Known(True), "layer") < 100


def test_least_squares_is_that_of_numpy():
    model, noise = network(), nr.GaussianNoise(0.2)
    sites = find_sites(model)
    x = data(60)[0]
    for kind in ("layer", "column"):
        calibrator = Calibrator(model, sites, Calibration(kind, x), lambda part: part)
        with torch.inference_mode():
            clean = model[0](x)
        with nr.perturbed(model, noise), torch.inference_mode():
            raw = model[0](x)
            with calibrator.calibrated():
                found = model[0](x)
        groups = [(raw, clean, found)] if kind == "layer" else [(raw[:, c], clean[:, c], found[:, c]) for c in range(6)]
        for y, t, f in groups:
            slope, offset = np.polyfit(y.flatten().double(), t.flatten().double(), 1)
            np.testing.assert_allclose(f, slope * y + offset, rtol=1e-3, atol=1e-4)


def test_later_layers_are_calibrated_behind_calibrated_ones():
    # If each layer's outputs are brought to the reference exactly, so are those of the network.
    model, x = network(), data(60)[0]
    calibrator = Calibrator(model, find_sites(model), Calibration("column", x), lambda part: part)
    with torch.inference_mode():
        clean = model(x)
        with nr.perturbed(model, Known(True)):
            assert (model(x) - clean).abs().max() > 0.1
            with calibrator.calibrated():
                torch.testing.assert_close(model(x), clean, rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(model(x[:7]), clean[:7], rtol=1e-3, atol=1e-4)


def test_batchnorm_is_measured_on_the_chip():
    model, x = network(), data(60)[0]
    calibrator = Calibrator(model, find_sites(model), Calibration("batchnorm", x, batch_size=20), lambda part: part)
    with nr.perturbed(model, nr.GaussianNoise(0.3)), torch.no_grad():
        outputs = [model[0](part) for part in x.split(20)]
        with calibrator.calibrated():
            expected = torch.stack([o.mean((0, 2, 3)) for o in outputs]).mean(0)
            torch.testing.assert_close(model[1].running_mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["batchnorm", "layer", "column"])
def test_nothing_of_it_stays(kind):
    model, x = network(), data(60)[0]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    calibrator = Calibrator(model, find_sites(model), Calibration(kind, x), lambda part: part)
    with torch.no_grad():
        clean = model(x)
        for error in (None, ZeroDivisionError):
            try:
                with nr.perturbed(model, nr.GaussianNoise(0.3)), calibrator.calibrated():
                    if error:
                        raise error
            except ZeroDivisionError:
                pass
            assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
            assert torch.equal(model(x), clean)


def test_results_say_so_and_are_not_pooled_with_others(tmp_path):
    x, y = data()
    calibration = Calibration("layer", data(30, seed=2)[0])
    arguments = {"noise": nr.GaussianNoise(0.1), "levels": [0, 0.1], "draws": 2, "out": tmp_path / "a"}
    draws = nr.evaluate([network()], (x, y), calibration=calibration, **arguments).draws
    assert set(draws.noise) == {"gaussian+layer-calibration"}
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["configuration"]["calibration"]["examples"] == 30
    with pytest.raises(InvalidValueError, match="calibration"):
        nr.evaluate([network()], (x, y), **arguments)


def test_the_command_calibrates(tmp_path, capsys):
    torch.manual_seed(0)
    write_weights(tmp_path / "w.safetensors", nr.build_model("digits-cnn"), {"method": "sgd", "train_seed": "0"})
    common = ["evaluate", "--model", "digits-cnn", "--weights", tmp_path / "w.safetensors", "--data", "digits"]
    common += ["--noise", "pcm-nandakumar-2019", "--levels", "1y", "--draws", 2]

    mlp = tmp_path / "mlp.safetensors"
    write_weights(mlp, nr.build_model("digits-mlp"), {"method": "sgd", "train_seed": "0"})

    def run(*more):
        return main([str(a) for a in [*common, *more]])

    assert run("--calibrate", "column", "--calibration-examples", 50, "--out", tmp_path / "a") == 0
    assert run("--out", tmp_path / "b") == 0
    assert set(pd.read_csv(tmp_path / "a/draws.csv").noise) == {"pcm-nandakumar-2019+column-calibration"}
    capsys.readouterr()
    for more, said in (
        (("--calibrate", "colum"), "did you mean 'column'"),
        (("--model", "digits-mlp", "--weights", mlp, "--calibrate", "batchnorm"), "Expected a model with running"),
        (
            ("--calibrate", "layer", "--calibration-examples", 1),
            "Expected `calibration-examples` to be an integer >= 2",
        ),
    ):
        assert run(*more, "--out", tmp_path / "c") == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Calibration("row", torch.ones(3, 2)), "Expected `kind` to be one of"),
        (lambda: Calibration("layer", torch.ones(3)), "Expected `x` to be .* but got one of shape"),
        (lambda: Calibration("layer", torch.ones(3, 2), 0), "Expected `batch_size` to be an integer >= 1"),
        (lambda: Calibration("layer", torch.ones(1, 2)), "Expected `x` to be a tensor of at least two inputs"),
        (lambda: Calibration("layer", [1, 2]), "Expected `x` to be a tensor"),
    ],
)
def test_arguments_are_checked(make, said):
    with pytest.raises(InvalidValueError, match=said):
        make()


def test_a_model_without_statistics_has_none_to_measure():
    model = nn.Linear(4, 3)
    with pytest.raises(InvalidValueError, match="Expected a model with running statistics for `batchnorm`"):
        Calibrator(model, find_sites(model), Calibration("batchnorm", torch.ones(5, 4)), lambda x: x)


def test_layers_that_cannot_be_calibrated_are_named():
    model = nn.LSTM(4, 3)
    with pytest.raises(InvalidValueError, match=r"for `layer` calibration, but the model has noise on weight_ih_l0"):
        Calibrator(model, find_sites(model), Calibration("layer", torch.ones(5, 4)), lambda x: x)


def test_a_single_example_left_over_counts_as_one():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    x = torch.cat([torch.randn(100, 3), 10 * torch.randn(1, 3)])
    calibrator = Calibrator(model, find_sites(model), Calibration("batchnorm", x), lambda part: part)
    with calibrator.calibrated(), torch.no_grad():
        expected = model[0](x).var(0)
        assert (model[1].running_var / expected - 1).abs().max() < 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["batchnorm", "layer", "column"])
def test_models_of_other_dtypes_are_calibrated(dtype, kind):
    x, y = data(50)
    calibration = Calibration(kind, x)
    arguments = {"noise": nr.GaussianNoise(0.1), "levels": [0.1], "draws": 1, "calibration": calibration}
    assert len(nr.evaluate([network().to(dtype)], (x, y), **arguments).draws) == 1
    assert len(nr.evaluate([network()], (x, y), precision="bf16", **arguments).draws) == 1
