"""aihwkit's hardware-aware training as a baseline: its noise is what we say, its weights are exported exactly."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn
from torch.nn.functional import cross_entropy

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.config import MethodConfig, NoiseConfig, OptimizerConfig, SelectConfig, TrainConfig
from noiserobust.evaluate.heldout import held_out_score
from noiserobust.models.weights import read_weights
from noiserobust.train.runs import train_seeds

pytest.importorskip("aihwkit.nn", reason="needs the extra `aihwkit`")

SCRIPT = Path(__file__).parents[2] / "experiments" / "tune" / "aihwkit_hwa.py"
PROFILE = "pcm-nandakumar-2019"
PLAIN = {"modifier.std_dev": 0.0, "clip.type": "NONE", "remap.type": "NONE"}
"""What leaves nothing of the training but SGD, with an ideal forward pass."""


def load():
    spec = importlib.util.spec_from_file_location("aihwkit_hwa", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["aihwkit_hwa"] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


hwa = load()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The script as it is run, for an epoch of two seeds."""
    out = tmp_path_factory.mktemp("hwa")
    before = torch.get_rng_state()
    hwa.main(["--seeds", "0", "1", "--epochs", "1", "--out", str(out)])
    assert torch.equal(torch.get_rng_state(), before)
    return out


class TestScript:
    def test_weights_say_how_they_were_trained(self, trained):
        weights = read_weights(trained / "seed1" / "best.safetensors")
        said = {
            "method": "aihwkit-hwa",
            "model": "digits-cnn",
            "normalize": str(hwa.parse_normalize("digits")),
            "train_seed": "1",
            "epoch": "1",
            "trained_method": "aihwkit-hwa",
            "trained_noise": "gaussian-tensor",
            "trained_level": "0.1",
        }
        assert said.items() <= weights.metadata.items()
        assert set(weights.state) == set(nr.build_model("digits-cnn").state_dict())
        manifest = json.loads((trained / "manifest.json").read_text())
        assert manifest["configuration"]["method"]["modifier.std_dev"] == 0.1
        assert "aihwkit" in manifest["environment"]["versions"]

    def test_evaluate_takes_them(self, trained, tmp_path):
        files = [str(trained / f"seed{seed}" / "best.safetensors") for seed in (0, 1)]
        options = ["--model", "digits-cnn", "--data", "digits", "--noise", PROFILE, "--out", str(tmp_path / "out")]
        assert main(["evaluate", "--weights", *files, *options, "--levels", "clean", "1d", "--draws", "2"]) == 0
        draws = pd.read_csv(tmp_path / "out" / "draws.csv")
        assert set(draws["method"]) == {"aihwkit-hwa"}
        assert set(draws["train_seed"]) == {0, 1}
        assert draws["value"].min() > 30  # an epoch is short, guessing gives 10

    def test_the_epoch_is_scored_as_by_our_trainer(self, trained):
        row = pd.read_csv(trained / "seed0" / "metrics.csv").iloc[0]
        config = TrainConfig("digits-cnn", "digits", held_out=0.2, select=SelectConfig(NoiseConfig(PROFILE, "1d")))
        _, held_out = nr.load_data("digits", "train").split(0.2, nr.Stream(0, "held-out"))
        model = nr.build_model("digits-cnn")
        model.load_state_dict(read_weights(trained / "seed0" / "best.safetensors").state)
        normalize = hwa.parse_normalize("digits")
        clean, noisy = held_out_score(held_out, normalize, config, 0, torch.device("cpu"))(model)
        assert (row["held_out_accuracy"], row["held_out_perturbed_accuracy"]) == (clean, noisy)

    @pytest.mark.slow
    def test_it_is_deterministic_by_seed(self, trained, tmp_path):
        torch.manual_seed(7)
        hwa.main(["--seeds", "1", "--epochs", "1", "--out", str(tmp_path)])
        again, first, other = (
            (folder / "last.safetensors").read_bytes()
            for folder in (tmp_path / "seed1", trained / "seed1", trained / "seed0")
        )
        assert again == first != other

    def test_finished_seeds_are_kept_and_other_settings_refused(self, trained, tmp_path):
        before = (trained / "seed0" / "best.safetensors").stat().st_mtime_ns
        hwa.main(["--seeds", "0", "1", "--epochs", "1", "--out", str(trained)])
        assert (trained / "seed0" / "best.safetensors").stat().st_mtime_ns == before
        with pytest.raises(nr.NoiseRobustError, match=r"modifier\.std_dev"):
            hwa.main(["--seeds", "0", "--epochs", "1", "--std-dev", "0.06", "--out", str(trained)])

    @pytest.mark.slow
    def test_a_trained_network_can_be_the_start(self, trained, tmp_path):
        start = hwa.start(TrainConfig("digits-cnn", "digits"), 1, trained).state_dict()
        kept = read_weights(trained / "seed1" / "best.safetensors").state
        assert all(torch.equal(start[name], kept[name]) for name in kept)
        hwa.main(["--seeds", "1", "--epochs", "1", "--pretrained", str(trained), "--out", str(tmp_path)])
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        source = read_weights(trained / "seed1" / "best.safetensors").metadata["training_sha256"]
        assert manifest["configuration"]["method"]["pretrained"] == source


def steps(analog, number):
    """Take optimizer steps on random images, so that scales, ranges and statistics have moved."""
    optimizer = hwa.AnalogSGD(analog.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    optimizer.regroup_param_groups(analog)
    analog.train()
    for _ in range(number):
        optimizer.zero_grad()
        cross_entropy(analog(torch.randn(32, 1, 8, 8)), torch.randint(10, (32,))).backward()
        optimizer.step()
    return analog.eval()


@pytest.mark.parametrize("recipe", hwa.RECIPES)
@pytest.mark.parametrize("forward", ["noisy", "ideal"])
class TestExport:
    def test_the_digital_network_has_the_outputs_of_the_analog_one(self, recipe, forward):
        with nr.Stream(0, "export").as_torch_default():
            analog = steps(hwa.to_analog(nr.build_model("digits-cnn"), hwa.settings(recipe, forward)), 8)
            x = torch.randn(64, 1, 8, 8)
        digital = nr.build_model("digits-cnn")
        digital.load_state_dict(hwa.to_digital(analog))
        for tile in analog.analog_tiles():  # an ideal periphery; in evaluation there is no weight noise
            tile.rpu_config.forward.is_perfect = True
            tile.input_range = None
        with torch.no_grad():
            wanted, found = analog(x), digital.eval()(x)
        assert wanted.std() > 0.01
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        # Tiles hold weights of another scale, which the export has undone.
        on_tile, _ = next(analog.analog_tiles()).get_weights(apply_weight_scaling=False)
        assert on_tile.abs().max() == pytest.approx(1.0)
        assert not torch.allclose(on_tile, digital[0].weight.flatten(1), rtol=0.1)


class TestTraining:
    def test_without_noise_and_clipping_it_is_our_sgd(self, tmp_path):
        config = TrainConfig(
            "digits-cnn",
            "digits",
            method=MethodConfig("sgd"),
            optimizer=OptimizerConfig(lr=0.05),
            epochs=1,
            batch_size=32,
            held_out=0.2,
            select=SelectConfig(NoiseConfig(PROFILE, "1d")),
        )
        plain = hwa.Hwa(hwa.settings("tutorial", "ideal") | PLAIN)
        [theirs] = hwa.train_seeds(config, plain, [3], tmp_path / "aihwkit")
        [ours] = train_seeds(
            config, [3], tmp_path / "ours", make_score=held_out_score, device=torch.device("cpu"), progress=False
        )
        found, wanted = read_weights(theirs).state, read_weights(ours).state
        for name in wanted:  # split, initial weights and order are the same
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=1e-5)

    @pytest.mark.slow
    def test_statistics_can_be_those_of_the_trained_weights(self, tmp_path, trained):
        hwa.main(["--seeds", "0", "--epochs", "1", "--statistics", "clean", "--out", str(tmp_path)])
        clean, left = (read_weights(f / "seed0" / "last.safetensors").state for f in (tmp_path, trained))
        assert torch.equal(clean["0.weight"], left["0.weight"])
        rest, _ = nr.load_data("digits", "train").split(0.2, nr.Stream(0, "held-out"))
        x = hwa.parse_normalize("digits")(rest.x)
        outputs = nn.functional.conv2d(x, clean["0.weight"], padding=1)
        mean = outputs.mean((0, 2, 3))
        torch.testing.assert_close(clean["1.running_mean"], mean, rtol=1e-2, atol=1e-3)
        assert (left["1.running_mean"] - mean).norm() > 3 * (clean["1.running_mean"] - mean).norm()


class TestNoise:
    """ADD_NORMAL, relative to the actual largest weight, is our Gaussian noise of the whole tensor."""

    @staticmethod
    def layer(recipe):
        """A layer whose output channels differ in scale."""
        with nr.Stream(0, "layer").as_torch_default():
            linear = nn.Linear(300, 200, bias=False)
            with torch.no_grad():
                linear.weight.normal_().mul_(torch.linspace(0.1, 1, 200)[:, None])
            return hwa.to_analog(nn.Sequential(linear), hwa.settings(recipe, "ideal"))

    @staticmethod
    def errors(analog):
        """The weights, and the errors of those that a training pass has: unit vectors read them out."""
        weight = hwa.to_digital(analog)["0.weight"]
        with nr.Stream(0, "pass").as_torch_default(), torch.no_grad():
            read = analog.train()(torch.eye(300)).T
        return weight, read - weight

    @pytest.mark.parametrize("recipe", hwa.RECIPES)
    def test_same_distribution(self, recipe):
        analog = self.layer(recipe)
        for tile in analog.analog_tiles():
            tile.post_update_step()  # clips and maps, as after every optimizer step
        weight, errors = self.errors(analog)
        sigma = hwa.RECIPES[recipe]["modifier.std_dev"]
        noise = nr.GaussianNoise(sigma, granularity="tensor")
        ours = noise.perturb(weight, nr.Stream(0, "ours")) - weight
        scale = float(sigma * weight.abs().max())
        standard_error = scale / errors.numel() ** 0.5
        for sample in (errors, ours):
            assert abs(sample.mean()) < 4 * standard_error
            assert abs(sample.std() - scale) < 4 * standard_error / 2**0.5  # 1.2 % of it: 5 % would be seen
        assert ks_2samp(errors.flatten(), ours.flatten()).pvalue > 1e-3
        # Noise relative to each channel is another, and would be found out.
        by_filter = nr.GaussianNoise(sigma).perturb(weight, nr.Stream(0, "ours")) - weight
        assert ks_2samp(errors.flatten(), by_filter.flatten()).pvalue < 1e-9
        # All channels have the same noise, however small their weights.
        assert errors[:20].std() == pytest.approx(scale, rel=0.05)

    def test_the_first_step_of_the_example_is_relative_to_channels(self):
        weight, errors = self.errors(self.layer("example"))
        relative = errors / weight.abs().amax(1, keepdim=True)
        assert relative.std() == pytest.approx(0.1, rel=0.02)
        assert errors[:20].std() < 0.5 * errors[-20:].std()
