"""Evaluations that stop when the mean over chips is known well enough."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain import NOISE, data, network, plain_accuracy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate import api, precision
from noiserobust.evaluate.precision import block
from noiserobust.executors import make_executor
from noiserobust.executors.serial import Serial
from noiserobust.models.weights import write_weights
from noiserobust.rng import Stream

LEVELS = [0, 0.1, 0.4]


def _networks() -> list[nn.Module]:
    other = network()
    with torch.no_grad():
        other[0].weight *= 1.2
    return [network(), other]


def _many() -> tuple[Tensor, Tensor]:
    """Return images of which the networks classify 9 of 10 rightly."""
    x, y = data(1000)
    with torch.no_grad():
        right = network().eval()(x).argmax(1)
    return x, torch.where(torch.arange(1000) % 10 == 0, y, right)


MANY = _many()


@pytest.fixture(autouse=True)
def same_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let chips cost the same in every run; what is measured is tested apart."""
    monkeypatch.setattr(precision, "chip_cost", lambda draws: 16.0)


def evaluated(**settings: Any) -> nr.EvaluationResult:
    return nr.evaluate(_networks(), MANY, **{"noise": NOISE, "levels": LEVELS, "until": 1.0, **settings})


@given(st.integers(1, 300), st.data())
def test_blocks_that_follow_each_other_use_every_example_once(population: int, drawn: st.DataObject) -> None:
    number = drawn.draw(st.integers(1, population))
    turn = population // number
    first = drawn.draw(st.integers(0, 3)) * turn
    blocks = [block(Stream(0, "b"), population, number, first + place) for place in range(turn)]
    used = np.concatenate(blocks)
    assert len(np.unique(used)) == len(used) == turn * number
    assert population - len(used) < number
    for one in blocks:  # one of each stratum, in order
        edges = np.arange(number + 1) * population // number
        assert ((edges[:-1] <= one) & (one < edges[1:])).all()


def test_blocks_of_a_second_turn_are_others() -> None:
    blocks = [tuple(block(Stream(0), 100, 10, place)) for place in range(20)]
    assert len(set(blocks)) == 20


def test_few_examples_are_all_used_for_each_chip() -> None:
    x, y = data(57)
    found = nr.evaluate(network(), (x, y), noise=NOISE, levels=LEVELS, until=3.0, seed=5)
    draws = found.draws[found.draws["draw"] < 4]
    assert (found.draws["n_examples"] == 57).all()
    assert (found.draws["sampling_std"] == 0).all()
    for row in draws.itertuples():
        noise = NOISE.at(row.level) if row.level else None
        right = plain_accuracy(network(), x, y, noise, seed=5, train_seed=0, draw=row.draw)
        assert row.value == pytest.approx(right, abs=1e-9)


@pytest.fixture(scope="module")
def many_chips() -> pd.DataFrame:
    """The draws of many chips on all examples."""
    settings = {"noise": NOISE, "levels": LEVELS, "draws": 400, "seed": 1, "metrics": ["accuracy", "loss"]}
    return nr.evaluate(_networks(), MANY, **settings).draws


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
@pytest.mark.slow
def test_the_mean_is_that_of_many_chips_on_all_examples(metric: str, many_chips: pd.DataFrame) -> None:
    half_width = {"accuracy": 0.7, "loss": 0.004}[metric]
    plain = many_chips[many_chips["metric"] == metric]
    found = evaluated(until=half_width, metrics=metric)
    table = found.precision()
    assert (table["half_width"] <= half_width).all()
    assert (table["n_draws"] >= 20).all()
    for row in table.itertuples():
        chips = plain.query(f"level == {row.level} and train_seed == {row.train_seed}")["value"]
        error = np.hypot(row.half_width / 2, chips.std() / 20)
        assert row.mean == pytest.approx(chips.mean(), abs=4 * error)
        assert row.noise_std == pytest.approx(chips.std(), rel=0.35, abs=half_width)
        assert (
            row.passes == found.draws.query(f"level == {row.level} and weights == '{row.weights}'")["n_examples"].sum()
        )
    clean = found.draws.query("level == 0")
    assert clean["value"].tolist() == pytest.approx(plain.query("level == 0")["value"].tolist(), abs=1e-9)
    summary = found.summary().query("level > 0")
    assert summary["mean"].tolist() == pytest.approx(table.groupby("level")["mean"].mean().tolist(), rel=1e-12)
    squares = (table["noise_std"] ** 2).groupby(table["level"]).mean()
    assert summary["noise_std"].tolist() == pytest.approx(np.sqrt(squares).tolist(), rel=1e-12)


def test_values_are_changes_against_the_network_without_noise() -> None:
    # By hand for one chip: its stratified mean of changes, with images of all strata, on the clean accuracy.
    model, (x, y) = network(), MANY
    found = nr.evaluate(model, MANY, noise=NOISE, levels=[0.4], until=1.0)
    row = found.draws.iloc[3]
    with torch.no_grad():
        clean = model.eval()(x)
        with nr.perturbed(model, NOISE.at(0.4), seed=0, draw=3):
            noisy = model(x)
    right = clean.double().gather(1, y[:, None])[:, 0]
    others = clean.double().scatter(1, y[:, None], -torch.inf).max(1).values
    margin = (right - others).numpy()
    order = sorted(range(1000), key=lambda i: (margin[i] > 0, -margin[i]))
    n = int(row["n_examples"])
    chosen = [order[p] for p in block(Stream(0, "blocks", 0), 1000, n, 3)]
    change = ((noisy.argmax(1) == y).double() - (clean.argmax(1) == y).double())[chosen].numpy()
    sizes = np.diff(np.arange(n + 1) * 1000 // n)
    accuracy = float((clean.argmax(1) == y).double().mean())
    assert row["value"] == pytest.approx(100 * (accuracy + (sizes * change).sum() / 1000), abs=1e-9)


@pytest.mark.thorough
def test_far_fewer_examples_are_run_where_chips_differ() -> None:
    table = evaluated(levels=[0.4], until=0.5).precision()
    assert (table["noise_std"] > 1.5).all()
    assert (table["plain_passes"] >= 5 * table["passes"]).all()


class _Stopped(Exception):
    pass


class _Stops(Serial):
    """Dies after some jobs, and does some others out of order before."""

    def __init__(self, after: int) -> None:
        self.after = after

    def map(self, work: Any, jobs: Any) -> Any:
        done = list(islice(((job, work(job)) for job in jobs), 1))
        for job in islice(jobs, self.after):
            done.append((job, work(job)))
            if len(done) == 7:
                yield from reversed(done)
                done.clear()
        raise _Stopped


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[nr.EvaluationResult, Path]:
    """An evaluation that was not interrupted, and its folder."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "chip_cost", lambda draws: 16.0)  # before the one for each test
        return evaluated(out=out), out


@pytest.mark.parametrize("after", [6, 27, 55])
@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: Any, after: int, whole: tuple[nr.EvaluationResult, Path]
) -> None:
    result, folder = whole
    with pytest.raises(_Stopped):
        evaluated(out=tmp_path / "part", executor=_Stops(after))
    # What a chip costs is known from the first part, and not measured again.
    monkeypatch.setattr(precision, "chip_cost", lambda draws: 4096.0)
    again = evaluated(out=tmp_path / "part")
    pd.testing.assert_frame_equal(again.draws, result.draws)
    for name in ("draws.csv", "summary.csv", "precision.csv"):
        assert (tmp_path / "part" / name).read_bytes() == (folder / name).read_bytes()
    manifest = json.loads((tmp_path / "part" / "manifest.json").read_text())
    assert manifest["chip_cost"] == 16.0
    assert manifest["configuration"]["until"] == 1.0


@pytest.mark.slow
def test_a_finished_evaluation_computes_nothing_again(tmp_path: Path, monkeypatch: Any) -> None:
    evaluated(out=tmp_path)
    before = (tmp_path / "draws.csv").read_bytes()
    monkeypatch.setattr(precision.Samples, "__call__", lambda self, sample: pytest.fail("it was computed"))
    evaluated(out=tmp_path)
    assert (tmp_path / "draws.csv").read_bytes() == before


@pytest.mark.thorough
def test_processes_find_the_same() -> None:
    alone = evaluated(until=2.0)
    shared = evaluated(until=2.0, executor=make_executor("processes", 2))
    pd.testing.assert_frame_equal(alone.draws, shared.draws)


@pytest.mark.thorough
def test_processes_make_their_own_traced_networks() -> None:
    model = nr.build_model("resnet20").eval()
    images = torch.rand(80, 3, 32, 32), torch.randint(10, (80,))
    settings = {"noise": nr.GaussianNoise(0.1), "until": 20.0}
    shared = nr.evaluate(model, images, **settings, executor=make_executor("processes", 2))
    pd.testing.assert_frame_equal(shared.draws, nr.evaluate(model, images, **settings).draws)


def test_values_that_are_not_finite_are_an_error_and_not_kept(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model[5].weight *= 3e38  # scores as far apart as numbers go
    for _ in range(2):
        with pytest.raises(InvalidValueError, match="Expected loss to be a finite number for each example"):
            nr.evaluate(model, MANY, noise=NOISE, until=1.0, metrics="loss", out=tmp_path)


def test_no_more_draws_than_are_allowed() -> None:
    table = evaluated(until=0.01, draws=25).precision()
    assert (table["n_draws"] == 25).all()
    assert (table["half_width"] > 0.01).all()


def test_without_noise_there_is_nothing_to_sample() -> None:
    found = evaluated(levels=[0])
    assert len(found.draws) == 2
    assert found.precision().empty
    assert found.summary()["mean"].iloc[0] == pytest.approx(found.draws["value"].mean())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"until": 0}, "Expected `until` to be a finite number > 0"),
        ({"until": float("nan")}, "Expected `until` to be a finite number > 0"),
        ({"until": "0.3"}, "Expected `until` to be a finite number > 0"),
        ({"draws": 1}, "Expected `draws` to be an integer >= 2"),
        (
            {"metrics": ["accuracy", "loss"]},
            "exactly one of accuracy, top5 and loss with `until`",
        ),
        (
            {"noise": nr.DeviceNoise.from_profile("pcm-nandakumar-2019"), "levels": ["1h"], "reads": "batch"},
            "Expected no `until` with `reads` of a batch",
        ),
    ],
)
def test_what_cannot_be_sampled_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        evaluated(**settings)


def test_a_metric_of_sums_cannot_be_sampled() -> None:
    def total(output: Tensor, y: Tensor) -> tuple[Tensor, int]:
        return output.sum(), len(y)

    with pytest.raises(InvalidValueError, match=r"`until`"):
        evaluated(metrics=total)


def test_a_loader_cannot_be_sampled() -> None:
    with pytest.raises(InvalidValueError, match="Expected data of arrays for `until`, but got a DataLoader"):
        nr.evaluate(network(), DataLoader(TensorDataset(*data()), 10), noise=NOISE, until=1.0)


def test_other_results_have_no_precision() -> None:
    with pytest.raises(InvalidValueError, match="sampled with `until`"):
        nr.evaluate(network(), data(), noise=NOISE).precision()


@pytest.mark.parametrize("noise", [nr.DeviceNoise.from_profile("pcm-nandakumar-2019"), nr.LaplaceNoise(0.1)])
def test_any_noise_can_be_sampled(noise: nr.Noise) -> None:
    found = nr.evaluate(network(), MANY, noise=noise, until=2.0, precision="bf16")
    assert found.precision()["half_width"].item() <= 2.0


@pytest.mark.slow
def test_calibrated_chips_can_be_sampled() -> None:
    noise = nr.DeviceNoise.from_profile("pcm-nandakumar-2019")
    calibration = nr.Calibration("column", MANY[0][:50])
    found = nr.evaluate(network(), MANY, noise=noise, levels=["clean", "1d"], until=2.0, calibration=calibration)
    plain = nr.evaluate(network(), MANY, noise=noise, levels=["1d"], draws=100, calibration=calibration)
    assert found.precision()["mean"].item() == pytest.approx(plain.draws["value"].mean(), abs=4)


def test_the_cost_of_a_chip_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    costs: list[float] = []
    measure = precision.chip_cost
    monkeypatch.setattr(precision, "chip_cost", lambda draws: costs.append(measure(draws)) or costs[-1])
    evaluated(until=3.0)
    assert len(costs) == 1
    assert costs[0] in {4.0**k for k in range(12)}


@pytest.mark.usefixtures("unrendered")
@pytest.mark.thorough
def test_the_command_line_and_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    write_weights(Path("w.safetensors"), nr.build_model("digits-mlp"), {"method": "sgd", "train_seed": "0"})
    words = "evaluate --model digits-mlp --weights w.safetensors --data digits --noise gaussian --levels 0 0.2 0.4"
    assert main([*words.split(), "--until", "3", "--out", "sampled"]) == 0
    out = capsys.readouterr().out
    assert "half_width" in out
    assert "if each chip were run on all of them" in out
    assert main([*words.split(), "--until", "0.1", "--draws", "20", "--out", "few"]) == 0
    assert "2 of 2 intervals are wider than +-0.1" in capsys.readouterr().out
    assert main([*words.split(), "--until", "2", "--out", "sampled"]) == 2
    assert "differing: until" in capsys.readouterr().err
    assert main([*words.split(), "--until", "3", "--shard", "1/2", "--out", "shard"]) == 2
    assert "Expected no `shard` with `until`" in capsys.readouterr().err
    assert main(["merge", "sampled", "--out", "merged"]) == 2
    assert "sampled was sampled with `until`" in capsys.readouterr().err
    assert main([*words.replace("gaussian", "laplace").split(), "--draws", "3", "--out", "plain"]) == 0
    assert main(["report", "sampled", "plain", "--out", "report"]) == 0
    summary = pd.read_csv("report/summary.csv")
    sampled = pd.read_csv("sampled/summary.csv")
    both = summary.query("noise == 'gaussian'")
    assert both["mean"].tolist() == pytest.approx(sampled["mean"].tolist(), rel=1e-12)
    page = Path("report/report.html").read_text()
    assert "Missing" not in page
    assert "know the mean of each weight file to ±3" in " ".join(page.split())
    assert main([*words.replace("gaussian", "laplace").split(), "--draws", "3", "--shard", "1/2", "--out", "half"]) == 0
    assert main(["report", "sampled", "half", "--out", "lacking"]) == 0  # what lacks in others is still said
    assert "Missing under laplace" in Path("lacking/report.html").read_text()
    assert main([*words.split(), "--draws", "3", "--out", "same"]) == 0
    assert main(["report", "sampled", "same", "--out", "joined"]) == 0  # of the same chips those on all examples count
    joined = pd.read_csv("joined/summary.csv").query("noise == 'gaussian'")
    assert joined["mean"].tolist() == pytest.approx(both["mean"].tolist(), abs=3)
    assert both["noise_std"].tolist() == pytest.approx(sampled["noise_std"].tolist(), rel=1e-9, nan_ok=True)


def test_draws_by_default() -> None:
    assert api.draws_of(None, None) == 10
    assert api.draws_of(None, 0.3) == 10_000
    assert api.draws_of(7, 0.3) == 7
