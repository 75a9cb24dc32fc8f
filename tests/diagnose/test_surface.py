"""Loss landscapes: closed forms, agreement with evaluations, and what an evaluation can do with its jobs."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.diagnose.directions import NoiseDirection, Plane, RandomDirection
from noiserobust.diagnose.surface import LandscapeConfig, landscape
from noiserobust.errors import InvalidValueError
from noiserobust.models.weights import write_weights
from noiserobust.noise.layout import FILTERS
from noiserobust.report.gather import kind_of
from noiserobust.results.landscapes import LANDSCAPE_DTYPES, read_landscape

CURVATURE = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)


CHIP = nr.Stream(0, "deploy", 0, 0)


class Bowl(nn.Module):
    """The loss is ``1/2 sum over filters of (w - c)^T H (w - c)``, whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4, dtype=torch.float64)
        rng = np.random.default_rng(0)
        self.layer.weight.data = torch.from_numpy(rng.normal(size=(4, 3)))
        self.layer.bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        w = self.layer.weight - 0.1
        return (0.5 * torch.einsum("fi,ij,fj->", w, CURVATURE, w) + self.layer.bias.sum()).expand(len(x))


def height(output: Tensor, target: Tensor) -> tuple[Tensor, int]:
    return output.sum(), len(output)


DATA = torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)


def bowl(**more: Any) -> pd.DataFrame:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*DATA), batch_size=4)
    return landscape(Bowl(), loader, metrics=height, **more)


def test_a_quadratic_against_its_closed_form() -> None:
    found = bowl(points=5, extent=0.7, direction_seed=3)
    weight = Bowl().layer.weight.detach()
    directions = []
    for index in range(2):
        d = torch.from_numpy(nr.Stream(3, "landscape", index, "layer.weight").normal((4, 3))).double()
        directions.append(d * weight.norm(dim=1, keepdim=True) / (d.norm(dim=1, keepdim=True) + 1e-10))
    for row in found.itertuples():
        w = weight + row.x * directions[0] + row.y * directions[1] - 0.1
        assert row.value == pytest.approx(float(0.5 * torch.einsum("fi,ij,fj->", w, CURVATURE, w)), rel=1e-6)
    assert len(found) == 25
    assert sorted(set(found["x"])) == pytest.approx([-0.7, -0.35, 0, 0.35, 0.7])
    assert list(found) == list(LANDSCAPE_DTYPES)


def test_a_curve_has_the_second_derivative_of_the_hessian() -> None:
    found = bowl(points=3, dimensions=1, extent=1e-2).sort_values("x")["value"].to_numpy()
    weight = Bowl().layer.weight.detach()
    d = RandomDirection(0, 0).of(weight, CHIP.child("layer.weight"), FILTERS)
    curvature = float(torch.einsum("fi,ij,fj->", d, CURVATURE, d))
    assert (found[0] - 2 * found[1] + found[2]) / 1e-4 == pytest.approx(curvature, rel=1e-6)


def test_each_filter_of_a_direction_has_the_norm_of_the_weights() -> None:
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(rng.normal(size=(6, 4, 3, 3)))
    weight[2] = 0
    one, other = (RandomDirection(1, 0).of(w, CHIP.child("conv.weight"), FILTERS) for w in (weight, 5 * weight))
    assert torch.allclose(one.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1), rtol=1e-9)
    assert torch.allclose(other, 5 * one, rtol=1e-6)  # the same direction for both
    assert not one[2].any()
    across = RandomDirection(1, 1).of(weight, CHIP.child("conv.weight"), FILTERS)
    cosine = (one * across).sum() / one.norm() / across.norm()
    assert abs(cosine) < 0.3


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        )
        model(torch.randn(20, 1, 4, 4) * (seed + 1))  # statistics of its own
        return model.eval()


def data(n: int = 30) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(5)
    return torch.from_numpy(rng.normal(size=(n, 1, 4, 4)).astype("float32")), torch.from_numpy(rng.integers(0, 3, n))


def at(found: pd.DataFrame, x: float, y: float = math.nan, metric: str = "loss") -> float:
    here = np.isclose(found["x"], x) & (found["y"].isna() if math.isnan(y) else np.isclose(found["y"], y))
    return float(found[here & (found["metric"] == metric)]["value"].item())


def test_points_are_what_evaluations_find() -> None:
    model = network()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    noise = nr.GaussianNoise(0.2)
    chips = nr.evaluate(model, data(), noise=noise, levels=[0, 0.2], draws=2, seed=4, metrics=["loss", "accuracy"])
    value = chips.draws.set_index(["metric", "level", "draw"])["value"].sort_index()
    along = landscape(model, data(), along=noise, points=3, seed=4)
    pair = landscape([model, model], data(), along=noise, points=3, seed=4, dimensions=1)
    chips = nr.evaluate([model, model], data(), noise=noise, levels=[0.2], draws=1, seed=4, metrics="loss").draws
    for seed in (0, 1):  # each train seed has chips of its own
        own = pair[(pair["train_seed"] == seed) & (pair["x"] == 1) & (pair["metric"] == "loss")]["value"].item()
        assert own == pytest.approx(chips[chips["train_seed"] == seed]["value"].item(), rel=1e-5)
    for metric in ("loss", "accuracy"):
        assert at(along, 0, 0, metric) == pytest.approx(value[metric, 0, 0], rel=1e-6)
        assert at(along, 1, 0, metric) == pytest.approx(value[metric, 0.2, 0], rel=1e-5)
        assert at(along, 0, 1, metric) == pytest.approx(value[metric, 0.2, 1], rel=1e-5)
    noisy = landscape(model, data(), dimensions=1, points=3, noise=noise, draws=2, seed=4)
    assert at(noisy, 0) == pytest.approx(value["loss", 0.2].mean(), rel=1e-6)
    assert set(noisy["n_draws"]) == {2}
    assert set(along["n_draws"]) == {1}
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_a_line_between_two_networks() -> None:
    first, second = network(0), network(1)
    x, y = data()
    found = landscape(first, data(), along=second, dimensions=1, points=5)  # -0.5 to 1.5
    for place in (0.0, 0.5, 1.0):
        mixed = copy.deepcopy(first)
        pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
        mixed.load_state_dict({n: a + place * (b - a) if a.is_floating_point() else a for (n, a), b in pairs})
        assert at(found, place) == pytest.approx(cross_entropy(mixed(x), y).item(), rel=1e-5)
    assert np.isfinite(found["value"]).all()
    plane = landscape(first, data(), along=second, points=3, extent=0)
    assert at(plane, 0.5, 0) == pytest.approx(at(found, 0.5), rel=1e-6)
    assert at(plane, 0.5, 1) != at(plane, 0.5, 0)
    assert set(plane["weights"]) == {"model0"}


def test_two_models_do_not_share_directions_that_were_scaled_for_one() -> None:
    both = landscape([network(0), network(1)], data(), points=3)
    for seed in (0, 1):
        own = landscape(network(seed), data(), points=3, train_seeds=[seed])
        pair = both[both["train_seed"] == seed]["value"].to_numpy()
        assert pair == pytest.approx(own["value"].to_numpy(), rel=1e-6)


def test_a_worker_gets_no_directions_but_makes_them_once() -> None:
    plane = Plane([RandomDirection(0, 0)], [[-1.0, 0.0, 1.0]])
    weight = torch.ones(2, 3)
    points = [plane.at(p) for p in (1, 2, 3)]
    points[0].perturb(weight, CHIP.child("w"))
    copies = pickle.loads(pickle.dumps(points))
    assert all(not p._kept for p in copies)
    copies[0].perturb(weight, CHIP.child("w"))
    assert all(p._kept is copies[0]._kept for p in copies)
    assert torch.equal(copies[2].perturb(weight, CHIP.child("w")), points[2].perturb(weight, CHIP.child("w")))


@pytest.mark.thorough
def test_workers_give_what_one_process_gives() -> None:
    model = network()
    alone, workers = (landscape(model, data(), points=4, executor=executor) for executor in ("serial", "processes"))
    pd.testing.assert_frame_equal(alone, workers)


@pytest.mark.thorough
def test_parts_joined_give_what_one_run_gives(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "model.py").write_text("from test_surface import network\n")
    x, y = data()
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y.numpy())
    files = []
    for seed in (0, 1):
        files.append(str(tmp_path / f"{seed}.safetensors"))
        write_weights(Path(files[-1]), network(seed), {"method": "a", "train_seed": str(seed)})

    def run(out: str, *more: str) -> int:
        asked = ["--model", f"{tmp_path}/model.py:network", "--data", f"npz:{tmp_path}/data.npz", "--points", "4"]
        return main(["diagnose", "landscape", *asked, "--weights", *files, "--out", str(tmp_path / out), *more])

    assert run("whole") == 0
    assert run("one", "--shard", "1/2") == 0
    assert not (tmp_path / "one/landscape.csv").exists()
    assert run("two", "--shard", "2/2") == 0
    assert main(["merge", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "joined")]) == 0
    assert "`noiserobust diagnose landscape`" in capsys.readouterr().out
    assert run("joined") == 0
    for name in ("draws.csv", "landscape.csv", "landscape.svg"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "joined" / name).read_bytes() == whole
    assert kind_of(tmp_path / "whole") == "landscape"
    assert len(read_landscape(tmp_path / "whole")) == 2 * 2 * 16
    assert (tmp_path / "whole/landscape-3d.png").stat().st_size > 1000
    capsys.readouterr()
    assert run("whole", "--direction-seed", "1") == 2
    assert "differing: noise.directions" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "whole"), "--out", str(tmp_path / "report")]) == 2
    configuration = json.loads((tmp_path / "whole/manifest.json").read_text())["configuration"]
    assert configuration["noise"]["directions"][1] == {"kind": "random", "seed": 0, "index": 1}
    # To another network, from one: the other is named by its content.
    line = ["--along", "checkpoint", "--to", files[1], "--dimensions", "1"]
    assert run("line", *line) == 2
    assert "one model at the start" in capsys.readouterr().err
    files.pop()
    line = ["--along", "checkpoint", "--to", str(tmp_path / "1.safetensors"), "--dimensions", "1"]
    assert run("line", *line) == 0
    assert len(read_landscape(tmp_path / "line")) == 2 * 4
    write_weights(tmp_path / "1.safetensors", network(2), {})
    capsys.readouterr()
    assert run("line", *line) == 2
    assert "to.sha256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["--points", "1"], "`points`"),
        (["--dimensions", "3"], "`dimensions`"),
        (["--extent", "0"], "`extent`"),
        (["--along", "randon"], "random"),
        (["--along", "checkpoint"], "`to`"),
        (["--to", "x.pt"], "`to`"),
        (["--noisy"], "its one level"),
        (["--along", "noise", "--noise", "gaussian"], "its one level"),
        (["--noise", "gaussian", "--level", "0.1"], "`noisy`"),
        (["--draws", "3"], "`draws` with `noisy`"),
        (["--noisy", "--noise", "gaussian", "--level", "0.1", "--draws", "0"], "`draws`"),
        (["--points", "10000000"], "1,000,000 points"),
        (["--extent", "1e300"], "`extent`"),
        (["--along", "checkpoint", "--to", "SAME", "--dimensions", "1"], "the same"),
        (["--along", "noise", "--noise", "gaussian", "--level", "0"], "level"),
        (["--shard", "3/2"], "shard"),
        (["--wanted", "90"], "sensitivity only"),
    ],
)
def test_what_is_refused(setting: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    write_weights(tmp_path / "w.safetensors", nr.build_model("digits-cnn"), {})
    given = ["--model", "digits-cnn", "--weights", str(tmp_path / "w.safetensors"), "--data", "digits"]
    setting = [given[3] if word == "SAME" else word for word in setting]
    assert main(["diagnose", "landscape", *given, "--out", str(tmp_path / "out"), *setting]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "landscape.csv").exists()


def test_python_arguments_are_checked() -> None:
    with pytest.raises(InvalidValueError, match="`along`"):
        landscape(network(), data(), along="noise", points=3)
    with pytest.raises(InvalidValueError, match="`noise`"):
        landscape(network(), data(), noise="gaussian", points=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="`split`"):
        landscape(network(), data(), split="tests", points=3)
    with pytest.raises(InvalidValueError, match="architecture"):
        landscape(network(), data(), along=nn.Linear(2, 2), points=3)
    with pytest.raises(InvalidValueError, match="strength"):
        Plane([RandomDirection(0, 0)], [[0.0]]).weakened(0.5)
    with pytest.raises(InvalidValueError, match="`point`"):
        Plane([RandomDirection(0, 0)], [[0.0]]).at(2)
    assert LandscapeConfig(points=51).axis[25] == 0.0
    assert LandscapeConfig(along="checkpoint", points=3).line == [-0.5, 0.5, 1.5]


def test_a_noise_direction_ends_on_its_chip() -> None:
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    noise = nr.GaussianNoise(0.1)
    d = NoiseDirection(noise, 7).of(weight, nr.Stream(2, "deploy", 1, 0, "w"), FILTERS)
    assert torch.allclose(weight + d, noise.perturb(weight, nr.Stream(2, "deploy", 1, 7, "w")), atol=1e-6)
