"""Which layers cost the accuracy under noise, and which to keep digital."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.diagnose.digital import fresh_seed
from noiserobust.models.weights import write_weights
from noiserobust.noise.base import chip_stream
from noiserobust.noise.registry import build_noise
from noiserobust.perturb import noisy_weights
from noiserobust.report.figures.sensitivity import draw_sensitivity
from noiserobust.results.sensitivity import DIGITAL_DTYPES, SENSITIVITY_DTYPES, read_sensitivity
from noiserobust.results.store import DrawStore

NOISE = nr.GaussianNoise(0.3)
LAYERS = ["0.weight", "4.weight", "6.weight"]
DRAWS = 3


class Counted(nn.Linear):
    """Counts passes."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.passes += 1
        return super().forward(x)


def network(seed: int = 0, last: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
        return nn.Sequential(*first, nn.Linear(64, 8), nn.ReLU(), last(8, 4)).eval()


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(61, 2, 4, 4, generator=generator), torch.randint(0, 4, (61,), generator=generator)


def diagnose(out: Path | None = None, **changed):
    settings = {"noise": NOISE, "draws": DRAWS, "seed": 5, "batch_size": 100, "out": out, **changed}
    models = settings.pop("models", [network(0), network(1), network(2)])
    return nr.layer_sensitivity(models, settings.pop("data", images()), **settings)


def plain_accuracy(seed: int, draw: int, noisy: list[str]) -> float:
    """Return the accuracy of a network with noise put on some weights by hand."""
    model = network(seed)
    with torch.no_grad():
        for name in noisy:
            weight = model.get_parameter(name)
            weight.copy_(NOISE.perturb(weight, nr.Stream(5, "deploy", seed, draw, name)))
        x, y = images()
        return 100 * sum(int(model(x[i : i + 1]).argmax()) == int(y[i]) for i in range(len(y))) / len(y)


@pytest.mark.slow
def test_each_condition_is_what_a_plain_loop_finds():
    """Each weight with the numbers of its own stream, whatever else is noisy; means and changes by hand."""
    table = diagnose().layers
    expected = {("clean", ""): [], ("all", ""): LAYERS}
    expected |= {("only", layer): [layer] for layer in LAYERS}
    expected |= {("except", layer): [x for x in LAYERS if x != layer] for layer in LAYERS}
    assert list(zip(table["condition"], table["layer"], strict=True)) == list(expected)
    values = {
        key: np.array([[plain_accuracy(s, k, noisy) for k in range(DRAWS)] for s in range(3)])
        for key, noisy in expected.items()
    }
    assert len({float(v.mean()) for v in values.values()}) > 5  # the conditions differ
    for row in table.itertuples():
        own = values[row.condition, row.layer]
        assert row.mean == pytest.approx(own.mean(), abs=1e-9)
        reference = {"all": "clean", "only": "clean", "except": "all"}.get(row.condition)
        if reference is None:
            assert np.isnan([row.change, row.change_low, row.noise_std]).all()
            continue
        assert row.noise_std == pytest.approx(np.sqrt(own.var(axis=1, ddof=1).mean()))
        change = own.mean(axis=1) - values[reference, ""].mean(axis=1)
        half = stats.t.ppf(0.975, 2) * change.std(ddof=1) / np.sqrt(3)
        found = row.change, row.change_low, row.change_high
        assert found == pytest.approx((change.mean(), change.mean() - half, change.mean() + half), abs=1e-9)
        assert (row.n_seeds, row.n_draws, row.level) == (3, DRAWS, 0.3)
    sizes = {"": 4 * 2 * 9 + 64 * 8 + 8 * 4, "0.weight": 72, "4.weight": 512, "6.weight": 32}
    assert [sizes[layer] for layer in table["layer"]] == list(table["n_weights"])


@pytest.mark.slow
def test_each_part_is_an_ordinary_evaluation_that_may_carry_it_on(tmp_path):
    found = diagnose(tmp_path / "out", models=[network(0, Counted), network(1, Counted)]).layers.set_index("condition")
    models = [network(0, Counted), network(1, Counted)]
    settings = {"noise": NOISE, "draws": DRAWS, "seed": 5, "batch_size": 100}
    parts = tmp_path / "out/parts"
    nr.evaluate(models, images(), **settings, out=tmp_path / "all")
    assert (parts / "all/draws.csv").read_bytes() == (tmp_path / "all/draws.csv").read_bytes()
    Counted.passes = 0
    again = nr.evaluate(models, images(), **settings, out=parts / "all").summary()
    nr.evaluate(models, images(), **{**settings, "levels": [0]}, out=parts / "clean")
    nr.evaluate(models, images(), **settings, select="4.weight", out=parts / "only/4.weight")
    nr.evaluate(models, images(), **settings, select=["0.*", "6.*"], out=parts / "except/4.weight")
    assert Counted.passes == 0  # everything was there, and the configurations are the same
    assert found.loc["all", "mean"] == again["mean"][0]
    assert found.loc["all", "seed_std"] == again["seed_std"][0]


@pytest.mark.parametrize(
    "name", ["gaussian", "laplace", "quantization", "stuck-zero", "dead-rows", "pcm-nandakumar-2019", "compose"]
)
def test_what_falls_on_a_layer_does_not_depend_on_the_others(name):
    compose = nr.Compose([build_noise("gaussian"), build_noise("stuck-zero")])
    noise = compose if name == "compose" else build_noise(name)
    sites = nr.find_sites(network())
    stream = chip_stream(3, 1, 2)

    def drawn(chosen):
        weights = {}
        for site, change in noisy_weights(chosen, noise, stream):
            weights[site.name] = site.weight().clone()
            change(weights[site.name])
        return weights

    together = drawn(sites)
    assert any(not torch.equal(together[s.name], s.weight()) for s in sites)
    for site in sites:
        assert torch.equal(drawn([site])[site.name], together[site.name])


@pytest.mark.slow
def test_with_one_weight_file_changes_have_no_interval(tmp_path):
    table = diagnose(tmp_path, models=network()).layers
    assert table[["change_low", "change_high", "seed_std"]].isna().all(axis=None)
    assert table.loc[table["condition"] != "clean", "change"].notna().all()
    pd.testing.assert_frame_equal(table, read_sensitivity(tmp_path).layers)


def test_a_network_of_one_layer():
    x, y = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    table = diagnose(models=nn.Linear(6, 3), data=(x, y)).layers.set_index("condition")
    assert table.loc["only", "mean"] == table.loc["all", "mean"]
    assert table.loc["except", "mean"] == table.loc["clean", "mean"]
    assert table.loc["except", "level"] == 0.3


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A diagnosis that was not interrupted."""
    out = tmp_path_factory.mktemp("whole")
    diagnose(out, models=[network(0), network(1)], wanted=18.0)
    return out


class TestResuming:
    def interrupt_after(self, monkeypatch, rows):
        append, left = DrawStore.append, [rows]

        def limited(store, row):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            append(store, row)

        monkeypatch.setattr(DrawStore, "append", limited)

    @pytest.mark.parametrize("rows", [1, 3, 12, 45])
    @pytest.mark.thorough
    def test_goes_on_to_the_same_bytes(self, whole, tmp_path, monkeypatch, rows):
        settings = {"models": [network(0), network(1)], "wanted": 18.0}
        total = len(list(rows_below(whole)))
        assert total > 45
        with monkeypatch.context() as patch:
            self.interrupt_after(patch, rows)
            with pytest.raises(KeyboardInterrupt):
                diagnose(tmp_path / "out", **settings)
        assert not (tmp_path / "out/sensitivity.csv").exists()
        with pytest.raises(nr.NoiseRobustError, match=r"differing: draws$"):
            diagnose(tmp_path / "out", **settings, draws=4)
        before = list(rows_below(tmp_path / "out"))
        assert len(before) == rows
        diagnose(tmp_path / "out", **settings)
        for name in ("sensitivity.csv", "digital.csv", "layers.csv", "sensitivity.svg", "sensitivity.png"):
            assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()
        assert len(list(rows_below(tmp_path / "out"))) == total

    @pytest.mark.slow
    def test_what_is_finished_is_not_computed_again(self, tmp_path):
        diagnose(tmp_path, models=network(0, Counted))
        before = (tmp_path / "manifest.json").read_bytes(), (tmp_path / "sensitivity.csv").read_bytes()
        Counted.passes = 0
        diagnose(tmp_path, models=network(0, Counted))
        assert Counted.passes == 0
        assert before == ((tmp_path / "manifest.json").read_bytes(), (tmp_path / "sensitivity.csv").read_bytes())

    @pytest.mark.slow
    def test_another_configuration_or_kind_is_refused(self, tmp_path):
        diagnose(tmp_path / "out", models=network())
        assert json.loads((tmp_path / "out/manifest.json").read_text())["kind"] == "sensitivity"
        before = (tmp_path / "out/sensitivity.csv").read_bytes()
        with pytest.raises(nr.NoiseRobustError, match=r"differing: levels, seed$"):
            diagnose(tmp_path / "out", models=network(), seed=6, level=0.2)
        with pytest.raises(nr.NoiseRobustError, match="another kind: 'sensitivity'"):
            nr.evaluate(network(), images(), noise=NOISE, out=tmp_path / "out")
        assert (tmp_path / "out/sensitivity.csv").read_bytes() == before

    @pytest.mark.thorough
    def test_processes_find_the_same(self, tmp_path):
        for executor in ("serial", "processes"):
            diagnose(tmp_path / executor, executor=executor)
        files = [tmp_path / executor / "sensitivity.csv" for executor in ("serial", "processes")]
        assert files[0].read_bytes() == files[1].read_bytes()


def rows_below(folder: Path):
    for path in folder.glob("parts/**/*draws*.csv"):
        with path.open(newline="") as file:
            yield from (row for row in csv.reader(file) if row[0] != "method")


@dataclass(frozen=True)
class Dead(nr.Noise):
    """Weights become zero: what a network loses depends on which layers only."""

    share: float = 1.0
    name: ClassVar[str] = "dead"
    level_name: ClassVar[str] = "share"

    @property
    def level(self) -> float:
        return self.share

    def at(self, level: float) -> Dead:
        return Dead(level)

    def perturb(self, weight: Tensor, stream: nr.Stream, view: object = None) -> Tensor:
        return torch.zeros_like(weight)


class Gates(nn.Module):
    """A network whose accuracy is a table of which of its three layers work."""

    TABLE: ClassVar = {"": 10, "a": 50, "b": 40, "c": 30, "ab": 60, "ac": 70, "bc": 90, "abc": 100}

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(2, 1)
        for layer in (self.a, self.b, self.c):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        works = "".join(name for name in "abc" if getattr(self, name).weight.sum() > 0)
        right = (x[:, :1] < self.TABLE[works]).float()
        return torch.cat([right, 1 - right], dim=1)


def gates(wanted: float, **changed):
    x = torch.arange(100.0)[:, None]
    settings = {"noise": Dead(), "draws": 2, "wanted": wanted, **changed}
    return nr.layer_sensitivity(Gates(), (x, torch.zeros(100, dtype=torch.int64)), **settings)


class TestDigital:
    def test_greedy_then_back(self):
        """a and b gain most alone, and yet c and b are what it takes."""
        found = gates(85)
        changes = found.layers.set_index(["condition", "layer"])["change"]
        assert changes["except"].to_dict() == {"a.weight": 40, "b.weight": 30, "c.weight": 20}
        assert changes["only"].to_dict() == {"a.weight": -10, "b.weight": -30, "c.weight": -40}
        steps = found.digital[["kind", "layer", "digital", "digital_share", "mean", "reached"]]
        assert list(steps.itertuples(index=False, name=None)) == [
            ("add", "a.weight", "a.weight", 0.25, 50, False),
            ("add", "b.weight", "a.weight b.weight", 0.5, 60, False),
            ("add", "c.weight", "a.weight b.weight c.weight", 1, 100, True),
            ("drop", "b.weight", "a.weight c.weight", 0.75, 70, False),
            ("drop", "a.weight", "b.weight c.weight", 0.75, 90, True),
            ("verify", "", "b.weight c.weight", 0.75, 90, True),
        ]
        assert list(found.digital["step"]) == [1, 2, 3, 4, 5, 6]
        assert list(found.digital["seed"]) == [0] * 5 + [fresh_seed(0)]
        assert set(found.digital["wanted"]) == {85}

    def test_nothing_is_digital_if_nothing_has_to_be_and_all_if_all(self):
        few = gates(10).digital
        assert list(few[["kind", "digital", "digital_share", "mean"]].iloc[0]) == ["verify", "", 0, 10]
        assert len(few) == 1
        every = gates(100).digital.iloc[-1]
        assert list(every[["kind", "digital_share", "mean", "reached"]]) == ["verify", 1, 100, True]

    @pytest.mark.thorough
    def test_another_wanted_goes_on_with_the_same_folder(self, tmp_path):
        gates(85, out=tmp_path)
        first = (tmp_path / "sensitivity.csv").read_bytes()
        second = gates(65, out=tmp_path)
        assert (tmp_path / "sensitivity.csv").read_bytes() == first
        pd.testing.assert_frame_equal(read_sensitivity(tmp_path).digital, second.digital)
        assert second.digital.iloc[-1]["digital"] == "a.weight c.weight"  # b is given back
        pd.testing.assert_frame_equal(gates(65).digital, second.digital)

    @pytest.mark.slow
    def test_a_fragile_layer_is_found_and_verified_on_other_chips(self, tmp_path):
        """Its filters hold a huge weight on an input that is always 0: noise in proportion drowns all others."""
        torch.manual_seed(11)
        layers = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
        model = nn.Sequential(*layers)
        x = torch.randn(200, 6)
        x[:, 0] = 0
        with torch.no_grad():
            model[2].weight[:, 0] = 40
            model[0].weight[0], model[0].bias[0] = 0, 0
            y = model(x).argmax(dim=1)
        assert y.bincount(minlength=3).min() > 5
        settings = {"noise": nr.GaussianNoise(0.01), "draws": 8}
        found = nr.layer_sensitivity(model, (x, y), **settings, wanted=97, seed=1, out=tmp_path)
        table = found.layers.set_index(["condition", "layer"])
        assert table.loc[("clean", ""), "mean"] == 100
        assert table.loc[("all", ""), "mean"] < 90
        assert list(found.digital["digital"]) == ["2.weight", "2.weight"]
        assert found.digital["digital_share"].iloc[-1] == 64 / (48 + 64 + 24)
        verified = found.digital.iloc[-1]
        assert verified["reached"]
        others = {"select": ["0.*", "4.*"], **settings}
        fresh = nr.evaluate(model, (x, y), **others, seed=int(verified["seed"]))
        assert verified["mean"] == fresh.summary()["mean"][0]
        (part,) = (tmp_path / "parts/verify").iterdir()
        manifest = json.loads((part / "manifest.json").read_text())
        assert manifest["configuration"]["seed"] == fresh_seed(1) != 1
        assert manifest["configuration"]["noisy_weights"] == ["0.weight", "4.weight"]
        searched = pd.read_csv(tmp_path / "parts/except/2.weight/draws.csv")
        assert not searched["value"].equals(pd.read_csv(part / "draws.csv")["value"])

    def test_a_choice_that_fresh_chips_do_not_confirm_is_no_success(self):
        """The chips of one seed happen to be good: their mean is wanted, and reached on them alone."""
        x, _ = images()
        y = network()(x).argmax(dim=1)
        settings = {"noise": NOISE, "draws": 2}

        def mean(seed):
            return nr.evaluate(network(), (x, y), **settings, seed=seed).summary()["mean"][0]

        seed = next(s for s in range(20) if mean(s) > mean(fresh_seed(s)))
        digital = nr.layer_sensitivity(network(), (x, y), **settings, seed=seed, wanted=mean(seed)).digital
        assert list(digital["kind"]) == ["verify"]
        assert digital["mean"][0] == mean(fresh_seed(seed))
        assert not digital["reached"][0]

    @pytest.mark.slow
    def test_each_method_has_a_search_of_its_own(self, run, tmp_path):
        arguments = cli(tmp_path, weights=files(tmp_path, ["sgd", "rwp"]), wanted=1, draws=1)
        assert run(*arguments)[0] == 0
        digital = read_sensitivity(tmp_path / "out").digital
        assert list(digital.loc[digital["kind"] == "verify", "method"]) == ["sgd", "rwp"]

    def test_more_than_without_noise_cannot_be_had(self, tmp_path):
        Gates.TABLE = {**Gates.TABLE, "abc": 95}
        try:
            with pytest.raises(nr.NoiseRobustError, match=r"at most the accuracy without noise, 95 .* but got 96"):
                gates(96, out=tmp_path / "out")
        finally:
            Gates.TABLE = {**Gates.TABLE, "abc": 100}
        assert not (tmp_path / "out").exists()


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def files(folder: Path, methods: list[str], seeds: int = 1) -> list[Path]:
    paths = []
    for number, method in enumerate(methods):
        for seed in range(seeds):
            torch.manual_seed(10 * number + seed)
            paths.append(folder / f"{method}-{seed}.safetensors")
            write_weights(paths[-1], nr.build_model("digits-mlp"), {"method": method, "train_seed": str(seed)})
    return paths


def cli(folder: Path, **changes) -> list[str]:
    settings = {
        "model": "digits-mlp",
        "weights": None,
        "data": "digits",
        "noise": "gaussian",
        "level": 0.1,
        "draws": 2,
        "examples": 100,
        "out": folder / "out",
        **changes,
    }
    settings["weights"] = settings["weights"] or files(folder, ["sgd"])
    arguments = ["diagnose", settings.pop("action", "sensitivity")]
    for key, value in settings.items():
        if value != "left out":
            arguments += [f"--{key.replace('_', '-')}", *(value if isinstance(value, list) else [value])]
    return [str(a) for a in arguments]


class TestCommandLine:
    @pytest.mark.slow
    def test_writes_tables_pictures_and_a_ranking(self, run, tmp_path):
        status, printed, _ = run(*cli(tmp_path, wanted=1))
        assert status == 0
        assert "one weight file: intervals over train seeds are not estimable" in printed
        assert "no layer digital, 0% of the weights" in printed
        out = tmp_path / "out"
        found = read_sensitivity(out)
        assert list(found.layers) == list(SENSITIVITY_DTYPES)
        assert list(found.digital) == list(DIGITAL_DTYPES)
        gains = found.layers[found.layers["condition"] == "except"].sort_values("change", ascending=False)
        lines = [re.search(rf"^ *{re.escape(layer)} ", printed, re.M).start() for layer in gains["layer"]]
        assert lines == sorted(lines)
        assert (out / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "sensitivity.svg").read_text().rstrip().endswith("</svg>")
        configuration = json.loads((out / "manifest.json").read_text())["configuration"]
        assert configuration["data"]["n_examples"] == 100
        assert configuration["model"] == "digits-mlp"

    def test_several_trainings_have_intervals(self, run, tmp_path):
        printed = run(*cli(tmp_path, weights=files(tmp_path, ["sgd"], seeds=3)))[1]
        assert "gained_low" in printed
        assert "not estimable" not in printed

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"action": "sensitvity"}, "did you mean 'sensitivity'?"),
            ({"noise": "left out", "level": "left out"}, "`--noise`, `--level` to be given"),
            ({"level": "0"}, "one level with noise, but got 0"),
            ({"level": "clean"}, "one level with noise, but got 0"),
            ({"level": "-1"}, "`sigma`"),
            ({"level": "1d"}, "but got '1d'"),
            ({"noise": "gausian"}, "did you mean 'gaussian'?"),
            ({"model": "digits-ml"}, "did you mean 'digits-mlp'?"),
            ({"data": "digit"}, "did you mean 'digits'?"),
            ({"weights": "/nowhere.safetensors"}, "/nowhere.safetensors"),
            ({"draws": 0}, "`draws` to be an integer >= 1"),
            ({"seed": -1}, "`seed` to be an integer >= 0"),
            ({"examples": 0}, "`examples` to be an integer >= 1"),
            ({"batch_size": 0}, "`batch_size` to be an integer >= 1"),
            ({"precision": "fp8"}, "'fp8'"),
            ({"device": "cuda:77"}, "`device`"),
            ({"executor": "threads"}, "`executor`"),
            ({"workers": 2}, "`workers`"),
            ({"wanted": 0}, "`wanted` to be a finite number > 0 and <= 100"),
            ({"wanted": "nan"}, "`wanted`"),
            ({"wanted": 101}, "`wanted`"),
            ({"wanted": "high"}, "`wanted`"),
            ({"wanted": 99.9}, "at most the accuracy without noise"),
            ({"model_args": "nonsense"}, "name=value"),
        ],
    )
    def test_bad_input_is_one_line_and_nothing_is_written(self, run, tmp_path, changes, said):
        status, out, err = run(*cli(tmp_path, **changes))
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert err.startswith("noiserobust: error: Expected ")
        assert said in err
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sensitivity")
    gates(85, out=out)
    return out


class TestReport:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda t: t.replace("change_high", "high"), "to have the columns method, noise"),
            (lambda t: t.replace(",except,", ",without,", 1), "one of clean, all, only, except, but got 'without'"),
            (lambda t: t.replace("b.weight,1,", "b.weight,one,"), "`n_weights` in line 5 .* an integer, but got 'one'"),
            (lambda t: t.replace("b.weight,1,70.0", "b.weight,1,"), "`mean` in line 5 .* a finite number, but got ''"),
            (lambda t: t.replace("b.weight,1,70.0", "b.weight,1,inf"), "`mean` in line 5 .*, but got 'inf'"),
            (lambda t: t.splitlines()[0] + "\n", "at least one row"),
            (lambda t: t + t.splitlines()[-1] + "\n", "but got two of method 'model', condition 'except'"),
            (lambda t: "\n".join(t.splitlines()[:-1]) + "\n", "'model' lacks 'except' with layer 'c.weight'"),
            (lambda t: "\n".join(x for x in t.splitlines() if ",all," not in x) + "\n", "'model' lacks 'all'"),
            (lambda t: t + "a,b\n", "columns|line|n_weights"),
            (lambda t: "", "comma-separated values"),
        ],
    )
    def test_a_damaged_table_is_refused(self, folder, tmp_path, change, said):
        text = (folder / "sensitivity.csv").read_text()
        assert change(text) != text
        (tmp_path / "sensitivity.csv").write_text(change(text))
        with pytest.raises(nr.NoiseRobustError, match=said) as caught:
            read_sensitivity(tmp_path)
        assert str(caught.value).startswith("Expected ")

    def test_a_damaged_search_is_refused_and_a_missing_table_said(self, folder, tmp_path):
        (tmp_path / "sensitivity.csv").write_bytes((folder / "sensitivity.csv").read_bytes())
        text = (folder / "digital.csv").read_text()
        (tmp_path / "digital.csv").write_text(text.replace("True", "yes"))
        with pytest.raises(nr.NoiseRobustError, match=r"`reached` in line 4 .* True or False, but got 'yes'"):
            read_sensitivity(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"Expected .* to hold a sensitivity\.csv"):
            read_sensitivity(tmp_path / "nowhere")

    def test_names_that_pandas_takes_for_missing(self, folder, tmp_path):
        text = (folder / "sensitivity.csv").read_text().replace("model,", "NA,").replace("a.weight", "null")
        (tmp_path / "sensitivity.csv").write_text(text)
        table = read_sensitivity(tmp_path).layers
        assert set(table["method"]) == {"NA"}
        assert set(table["layer"]) == {"", "null", "b.weight", "c.weight"}

    def test_formats(self, folder):
        frame = read_sensitivity(folder).layers
        starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
        made = draw_sensitivity(frame, size=(6.5, 3), kinds=tuple(starts))
        assert all(made[kind].startswith(start) for kind, start in starts.items())
        assert made == draw_sensitivity(frame, size=(6.5, 3), kinds=tuple(starts))

    def test_the_picture_names_the_layers_by_what_they_gain(self, folder):
        frame = read_sensitivity(folder).layers
        svg = draw_sensitivity(frame)["svg"].decode()
        places = [svg.index(f">{name}</text>") for name in "abc"]
        assert places == sorted(places)
        frame.loc[(frame["condition"] == "except") & (frame["layer"] == "c.weight"), "change"] = 99.0
        svg = draw_sensitivity(frame)["svg"].decode()
        assert svg.index(">c</text>") < svg.index(">a</text>") < svg.index(">b</text>")

    @pytest.mark.parametrize(("layers", "methods", "seeds"), [(3, 4, 3), (60, 1, 1), (60, 2, 2), (1, 1, 1)])
    @pytest.mark.slow
    def test_from_few_layers_to_many(self, layers, methods, seeds):
        generator = np.random.default_rng(0)
        rows = []
        for method in [f"method-{i}-$x$-\u4e2d" for i in range(methods)]:
            names = [f"model.encoder.{i}.self_attention.out_proj.weight" for i in range(layers)]
            keys = [("clean", ""), ("all", ""), *((c, n) for c in ("only", "except") for n in names)]
            for condition, layer in keys:
                change, half = generator.normal(), abs(generator.normal()) * (50 if seeds == 2 else 1)
                row = {"method": method, "noise": "gaussian", "level_name": "sigma", "level": 0.1, "metric": "accuracy"}
                row |= {"condition": condition, "layer": layer, "n_weights": 9, "mean": 70 + change, "noise_std": 1.0}
                row |= {"n_seeds": seeds, "n_draws": 5, "ci_level": 0.95, "change": change}
                row |= {"change_low": change - half, "change_high": change + half} if seeds > 1 else {}
                rows.append(row)
        frame = pd.DataFrame(rows, columns=list(SENSITIVITY_DTYPES)).astype(SENSITIVITY_DTYPES)
        svg = draw_sensitivity(frame)["svg"].decode()
        shown = [f"…{i}.self_attention.out_proj" for i in range(layers)]
        assert all(f">{name}<" in svg for name in (shown if layers > 1 else ["model.encoder.…tion.out_proj"]))
        assert f">method-0-$x$-\u4e2d: {frame['mean'][0]:.2f} without noise" in svg
        assert ("cut at the edges" in svg) == (seeds == 2)
        assert draw_sensitivity(frame, size=(3.9, 5), kinds=("png",))["png"].startswith(b"\x89PNG")
