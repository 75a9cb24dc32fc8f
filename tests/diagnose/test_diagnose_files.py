"""``noiserobust diagnose sharpness | gradients | curvature | filters``: tables, folders, careless input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

import noiserobust as nr
from noiserobust import diagnose
from noiserobust.cli import main
from noiserobust.cli.diagnose import ACTIONS
from noiserobust.data.normalize import parse_normalize
from noiserobust.diagnose.folders import CRITICAL_DTYPES, CURVATURE_DTYPES, SHARPNESS_DTYPES
from noiserobust.models.weights import fit_weights, read_weights, write_weights
from noiserobust.results.filters import FILTERS_DTYPES, read_filters

SHARPNESS = {"noise": "gaussian", "levels": [0.05, 0.1], "draws": 3, "rhos": [0.05, 0.1]}
SETTINGS = {
    "sharpness": SHARPNESS,
    "gradients": {"rho": 0.05, "strengths": [0.5, 1], "m": 32, "batches": 2, "critical": 0.5},
    "curvature": {"top": 1, "probes": 2, "noise": "gaussian", "level": 0.05},
    "filters": {},
}
FILES = {
    "sharpness": ["sharpness.csv"],
    "gradients": ["gradients.csv", "critical.csv"],
    "curvature": ["curvature.csv"],
    "filters": ["filters.csv", "variation.csv"],
}

FROZEN = """
from torch import nn


class Net(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


def build():
    return Net(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10), nn.BatchNorm1d(10))
"""
"""A network of which a layer stays in evaluation mode while the others are trained."""


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[Path]:
    """Two trainings of one method."""
    folder = tmp_path_factory.mktemp("weights")
    for seed in (3, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = nr.build_model("digits-mlp")
        write_weights(folder / f"{seed}.safetensors", model, {"method": "sgd", "train_seed": str(seed)})
    return [folder / f"{seed}.safetensors" for seed in (3, 1)]


def arguments(action: str, weights: list[Path], out: Path, **changes) -> list[object]:
    settings = {"model": "digits-mlp", "weights": weights, "out": out}
    if action != "filters":
        settings |= {"data": "digits", "examples": 70}
    line: list[object] = ["diagnose", action]
    for name, value in {**settings, **SETTINGS[action], **changes}.items():
        if value is True:
            line.append(f"--{name.replace('_', '-')}")
        elif value is not None:
            line += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [value])]
    return line


def model_of(path: Path) -> torch.nn.Module:
    model = nr.build_model("digits-mlp")
    fit_weights(model, read_weights(path))
    return model


def refused(result: tuple[int, str, str]) -> str:
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("noiserobust: error: Expected ")
    return err


@pytest.mark.parametrize("action", SETTINGS)
def test_weights_that_are_done_are_not_done_again_and_another_configuration_is_refused(action, run, weights, tmp_path):
    out = tmp_path / "out"
    status, printed, _ = run(*arguments(action, weights, out))
    assert status == 0
    assert str(out) in printed
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == action
    assert [w["train_seed"] for w in manifest["configuration"]["weights"]] == [3, 1]
    before = {name: (out / name).read_bytes() for name in FILES[action]}
    for name in FILES[action]:
        table = pd.read_csv(out / name)
        assert list(dict.fromkeys(table["train_seed"])) == [3, 1]
        (out / name).unlink()
    parts = sorted((out / "parts").iterdir())
    assert len(parts) == 2 * (2 if action == "gradients" else 1)
    parts[0].unlink()  # as if it had been interrupted
    stamps = {path: path.stat().st_mtime_ns for path in parts[1:]}
    assert run(*arguments(action, weights, out))[0] == 0
    assert {name: (out / name).read_bytes() for name in FILES[action]} == before
    assert {path: path.stat().st_mtime_ns for path in parts[1:]} == stamps
    assert parts[0].exists()
    others = {"sharpness": "draws", "gradients": "m", "curvature": "probes"}
    if action in others:
        line = refused(run(*arguments(action, weights, out, **{others[action]: 4})))
        assert "differing: " in line
        assert others[action] in line
    else:
        assert "differing: weights" in refused(run(*arguments(action, weights[:1], out)))
    other = "filters" if action != "filters" else "curvature"
    assert f"results of another kind: '{action}'" in refused(run(*arguments(other, weights, out)))


class TestSharpness:
    def test_the_table_is_what_the_functions_find(self, run, weights, tmp_path):
        assert run(*arguments("sharpness", weights, tmp_path / "out", split="train", seed=2))[0] == 0
        table = pd.read_csv(tmp_path / "out/sharpness.csv", keep_default_na=False, na_values={"standard_error": [""]})
        assert list(table) == list(SHARPNESS_DTYPES)
        data = nr.load_data("digits", "train")
        data = data.subset(nr.Stream(2, "examples").permutation(len(data))[:70].tolist())
        models = [model_of(path) for path in weights]
        settings = {"noise": nr.GaussianNoise(0.1), "draws": 3, "seed": 2, "train_seeds": [3, 1], "normalize": "digits"}
        wanted = nr.diagnose.average_sharpness(models, data, levels=[0.05, 0.1], **settings)
        wanted = wanted.sort_values("train_seed", ascending=False, kind="stable")  # in the order of the files
        found = table[table["direction"] == "average"]
        assert list(found["sharpness"]) == pytest.approx(list(wanted["sharpness"]), rel=1e-5)
        assert list(found["standard_error"]) == pytest.approx(list(wanted["standard_error"]), rel=1e-5)
        up = nr.diagnose.ascent_sharpness(models[0], data, [0.05, 0.1], normalize="digits")
        found = table[(table["direction"] == "ascent") & (table["train_seed"] == 3)]
        assert list(found["sharpness"]) == pytest.approx(list(up["sharpness"]), rel=1e-5)
        assert set(found["n_examples"]) == {70}
        configuration = json.loads((tmp_path / "out/manifest.json").read_text())["configuration"]
        assert configuration["data"]["split"] == "train"
        assert len(pd.read_csv(tmp_path / "out/average/draws.csv")) == 2 * (1 + 2 * 3)

    def test_one_direction_alone(self, run, weights, tmp_path):
        alone = {"noise": None, "levels": None, "draws": None, "m": 32, "batches": 2}
        status, printed, _ = run(*arguments("sharpness", weights[:1], tmp_path / "up", **alone))
        assert status == 0
        assert "ascent" in printed
        assert not (tmp_path / "up/average").exists()
        table = pd.read_csv(tmp_path / "up/sharpness.csv")
        assert set(table["n_samples"]) == {2}
        assert table["standard_error"].notna().all()
        assert run(*arguments("sharpness", weights[:1], tmp_path / "mean", rhos=None))[0] == 0
        assert set(pd.read_csv(tmp_path / "mean/sharpness.csv")["direction"]) == {"average"}

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"noise": None, "levels": None, "draws": None, "rhos": None}, "or both, but got neither"),
            ({"levels": None}, "`--noise` and `--levels` together"),
            ({"rhos": None, "m": 4}, "`--m` with `--rhos` only, but got it without"),
            ({"rhos": None, "batches": 4}, "`--batches` with `--rhos` only, but got it without"),
            *(
                ({"noise": None, "levels": None, "draws": None, name: value}, f"`--{name}` with `--noise` only")
                for name, value in {"draws": 0, "executor": "serial", "workers": 2, "address": "auto"}.items()
            ),
            ({"batches": 4}, "`batches` with `m` or a DataLoader only, but got 4 without"),
            ({"levels": ["clean"]}, "a level with noise, but got none"),
            ({"levels": [-1]}, "`sigma`"),
            ({"rhos": [-1]}, "`rhos` to be a finite number > 0"),
            ({"rhos": "many"}, "`rhos`"),
            ({"draws": 0}, "`draws` to be an integer >= 1"),
            ({"m": 0}, "`m` to be an integer >= 1"),
            ({"split": "valid"}, "`split` to be one of 'test', 'train'"),
            ({"executor": "threads"}, "`executor`"),
            ({"data": None}, "`--data` to be given"),
            ({"wanted": 75}, "`--wanted` with sensitivity only, but got sharpness"),
            ({"level": 0.1}, "`--level` with"),
            ({"top": 0}, "`--top` with curvature only, but got sharpness"),
            ({"batch_statistics": True}, "`--batch-statistics` with gradients only"),
            ({"drawz": 3}, "did you mean 'draws'?"),
        ],
    )
    def test_careless_input(self, run, weights, tmp_path, changes, said):
        assert said in refused(run(*arguments("sharpness", weights, tmp_path / "out", **changes)))
        assert not (tmp_path / "out").exists()


class TestGradients:
    @pytest.mark.slow
    def test_the_tables_are_what_the_functions_find(self, run, weights, tmp_path):
        noise = {"rho": None, "noise": "laplace", "level": 0.1, "draws": 2, "batch_statistics": True}
        status, printed, _ = run(*arguments("gradients", weights, tmp_path / "out", **noise))
        assert status == 0
        assert "critical perturbation length" in printed
        assert "update_gradient_norm" in printed
        table = pd.read_csv(tmp_path / "out/gradients.csv")
        data = nr.load_data("digits", "test")
        data = data.subset(nr.Stream(0, "examples").permutation(len(data))[:70].tolist())
        settings = {"m": 32, "batches": 2, "draws": 2, "normalize": "digits", "batch_statistics": True}
        laplace = nr.LaplaceNoise(0.1)
        for seed, path in zip((3, 1), weights, strict=True):
            wanted = nr.diagnose.gradient_table(
                model_of(path), data, laplace, strengths=[0.5, 1], train_seed=seed, **settings
            )
            own = table[table["train_seed"] == seed]
            assert list(own["value"]) == pytest.approx(list(wanted["value"]), rel=1e-4)
            assert list(own["quantity"]) == list(wanted["quantity"])
        critical = pd.read_csv(tmp_path / "out/critical.csv", keep_default_na=False)
        assert list(critical) == list(CRITICAL_DTYPES)
        assert all((critical["strength"] == "") == (critical["reason"] != ""))

    def test_layers_that_training_leaves_frozen_keep_their_stored_statistics(self, run, tmp_path):
        (tmp_path / "net.py").write_text(FROZEN)
        spec = f"{tmp_path / 'net.py'}:build"
        files, models = [], []
        for seed in (3, 1):
            torch.manual_seed(seed)
            models.append(nr.build_model(spec))
            for number in (1, 3):
                models[-1][number].running_mean.normal_()
            files.append(tmp_path / f"{seed}.safetensors")
            write_weights(files[-1], models[-1], {"method": "sgd", "train_seed": str(seed)})
        given = {"model": spec, "batch_statistics": True, "critical": None}
        assert run(*arguments("gradients", files, tmp_path / "out", **given))[0] == 0
        table = pd.read_csv(tmp_path / "out/gradients.csv")
        data = nr.load_data("digits", "test")
        data = data.subset(nr.Stream(0, "examples").permutation(len(data))[:70].tolist())
        order = torch.from_numpy(nr.Stream(0, "diagnose", "batches").permutation(70)[:64].copy())
        batches = [(parse_normalize("digits")(data.x[part]), data.y[part]) for part in order.split(32)]
        for seed, model in zip((3, 1), models, strict=True):
            model.train()
            wanted = torch.stack([cross_entropy(model(x), y) for x, y in batches]).mean().item()
            own = table[(table["train_seed"] == seed) & (table["quantity"] == "training_loss")]
            assert list(own["value"]) == pytest.approx([wanted, wanted], rel=1e-5)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"rho": None}, "either `--rho` or `--noise` with `--level`, but got neither"),
            ({"noise": "gaussian", "level": 0.1}, "either `--rho` or `--noise` with `--level`, but got both"),
            ({"noise": "gaussian"}, "`--noise` and `--level` together"),
            *(({"draws": n}, "`--draws` with `--noise` only, but got it without") for n in (0, 1, 3)),
            ({"rho": None, "noise": "gaussian", "level": 0.1, "draws": 0}, "`draws` to be an integer >= 1, but got 0"),
            ({"rho": None, "noise": "gaussian", "level": 0}, "a noise of a level > 0, but got 0"),
            ({"strengths": [0]}, "`strengths` to be a finite number > 0"),
            *(
                ({"critical": c}, f"`--critical` to be a finite number > 0 and < 1, but got {c}\n")
                for c in (0.0, 1.0, 1.5)
            ),
            *(({"rho": rho}, f"`--rho` to be a finite number > 0, but got {rho}\n") for rho in (-1.0, 0.0)),
            ({"batch_size": 10}, "`--batch-size` with"),
            ({"levels": [0.1]}, "`--levels` with sharpness only, but got gradients"),
        ],
    )
    def test_careless_input(self, run, weights, tmp_path, changes, said):
        assert said in refused(run(*arguments("gradients", weights, tmp_path / "out", **changes)))
        assert not (tmp_path / "out").exists()


class TestCurvature:
    def test_the_table_is_what_the_function_finds(self, run, weights, tmp_path):
        status, printed, _ = run(*arguments("curvature", weights, tmp_path / "out", select="crossbar"))
        assert status == 0
        assert "predicted_sharpness" in printed
        table = pd.read_csv(tmp_path / "out/curvature.csv", keep_default_na=False, na_values={"standard_error": [""]})
        assert list(table) == list(CURVATURE_DTYPES)
        data = nr.load_data("digits", "test")
        data = data.subset(nr.Stream(0, "examples").permutation(len(data))[:70].tolist())
        settings = {"probes": 2, "noise": nr.GaussianNoise(0.05), "select": "crossbar", "normalize": "digits"}
        wanted = nr.diagnose.hessian(model_of(weights[1]), data, **settings)
        own = table[table["train_seed"] == 1]
        whole = own[own["layer"] == ""].set_index("quantity")["value"]
        assert whole["eigenvalue"] == pytest.approx(wanted.eigenvalues[0], rel=1e-3)
        assert whole["trace"] == pytest.approx(wanted.trace, rel=1e-3)
        assert whole["predicted_sharpness"] == pytest.approx(wanted.predicted_sharpness, rel=1e-3)
        layers = own[(own["quantity"] == "trace") & (own["layer"] != "")]
        assert list(layers["layer"]) == list(wanted.layers["layer"])
        assert layers["value"].sum() == pytest.approx(whole["trace"], rel=1e-3)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"top": 0, "probes": 0}, "`top` or `probes` to be >= 1"),
            ({"probes": -1}, "`probes` to be an integer >= 0"),
            ({"probes": 0}, "`probes` to be >= 1 with a noise, but got 0"),
            ({"select": "all"}, "`select` to be one of 'crossbar', 'trained'"),
            ({"noise": "quantization", "level": 4}, "Gaussian or Laplace noise"),
            ({"level": None}, "`--noise` and `--level` together"),
            ({"rhos": [0.1]}, "`--rhos` with sharpness only, but got curvature"),
        ],
    )
    def test_careless_input(self, run, weights, tmp_path, changes, said):
        assert said in refused(run(*arguments("curvature", weights, tmp_path / "out", **changes)))
        assert not (tmp_path / "out").exists()


class TestFilters:
    def test_the_tables_are_what_the_functions_find(self, run, weights, tmp_path):
        status, printed, _ = run(*arguments("filters", weights, tmp_path / "out", method="mine"))
        assert status == 0
        assert "coefficient_of_variation" in printed
        table = read_filters(tmp_path / "out")
        assert list(table) == list(FILTERS_DTYPES)
        assert set(table["method"]) == {"mine"}
        own = table[table["train_seed"] == 1].reset_index(drop=True)
        wanted = nr.diagnose.filter_norms(model_of(weights[1]))
        pd.testing.assert_frame_equal(own[["layer", "filter", "norm"]], wanted, check_exact=True)
        variation = pd.read_csv(tmp_path / "out/variation.csv")
        assert len(variation) == 2 * wanted["layer"].nunique()

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"data": "digits"}, "`--data` with"),
            ({"seed": 0}, "`--seed` with"),
            ({"model": None}, "`--model` to be given"),
        ],
    )
    def test_careless_input(self, run, weights, tmp_path, changes, said):
        line = refused(run(*arguments("filters", weights, tmp_path / "out", **changes)))
        assert said in line
        assert not (tmp_path / "out").exists()


def test_options_of_one_name_are_parsed_alike_in_all_actions_and_all_have_help():
    for action in ACTIONS:
        assert set(action.required) <= set(action.options)
        for option, told in action.options.items():
            assert told["help"]
            for other in ACTIONS:
                same = {k: v for k, v in other.options.get(option, told).items() if k not in ("help", "default")}
                assert same == {k: v for k, v in told.items() if k not in ("help", "default")}


@pytest.mark.parametrize("action", ["sharpness", "gradients", "curvature"])
def test_a_network_whose_parameters_are_all_frozen_is_refused_before_anything_is_written(action, run, tmp_path):
    frozen = "return Net(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)"
    text = FROZEN.replace("return Net(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10), nn.BatchNorm1d(10))", frozen)
    (tmp_path / "net.py").write_text(text)
    spec = f"{tmp_path / 'net.py'}:build"
    write_weights(tmp_path / "1.safetensors", nr.build_model(spec), {"method": "sgd", "train_seed": "1"})
    line = arguments(action, [tmp_path / "1.safetensors"], tmp_path / "out", model=spec)
    assert "parameters that need gradients, but all are frozen" in refused(run(*line))
    assert not (tmp_path / "out").exists()
    if action == "sharpness":  # the average direction needs none
        assert run(*arguments(action, [tmp_path / "1.safetensors"], tmp_path / "out", model=spec, rhos=None))[0] == 0


@pytest.mark.parametrize(
    ("action", "changes", "said"),
    [
        ("sharpness", {"noise": None, "levels": None, "draws": None, "rhos": [1e300]}, "at rho = 1e+300, but got nan"),
        ("gradients", {"strengths": [1e300]}, "at strength 1e+300, rho = 5e+298, but got nan"),
        ("curvature", {"probes": 1, "level": 1e300}, "at sigma = 1e+300, but got"),
    ],
)
def test_what_is_out_of_all_proportion_is_said(action, changes, said, run, weights, tmp_path):
    assert said in refused(run(*arguments(action, weights[:1], tmp_path / "out", **changes)))
    assert not (tmp_path / f"out/{action}.csv").exists()


def test_a_damaged_part_is_said(run, weights, tmp_path):
    assert run(*arguments("filters", weights, tmp_path / "out"))[0] == 0
    part = tmp_path / "out/parts/filters-sgd-3.csv"
    part.write_text(part.read_text().replace("norm", "size"))
    assert "filters-sgd-3.csv to be what was written there" in refused(
        run(*arguments("filters", weights, tmp_path / "out"))
    )


def test_names_of_the_namespace_exist_and_none_is_that_of_a_module():
    folder = Path(diagnose.__file__).parent
    for name in diagnose.__all__:
        assert callable(getattr(nr.diagnose, name))
        assert not (folder / f"{name}.py").exists()
    with pytest.raises(AttributeError, match="no attribute 'sharp'"):
        _ = nr.diagnose.sharp


def test_the_namespace_alone_loads_no_torch():
    code = "import noiserobust as nr, sys\nnr.diagnose\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
