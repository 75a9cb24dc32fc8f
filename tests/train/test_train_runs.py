"""Several train seeds into one folder: what is written, continued, refused; and a real kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_models import same_bits
from torch import nn

import noiserobust as nr
from noiserobust.config import (
    MethodConfig,
    NoiseConfig,
    OptimizerConfig,
    ScheduleConfig,
    SelectConfig,
    TrainConfig,
)
from noiserobust.data.arrays import ArrayData
from noiserobust.train import runs
from noiserobust.train.runs import train_seeds

MODEL = """
import os, time
from torch import nn

class Net(nn.Sequential):
    def __init__(self, hidden=8):
        super().__init__(nn.Linear(6, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 3))

    def forward(self, x):
        if self.training:
            time.sleep(float(os.environ.get("PAUSE", "0")))
        return super().forward(x)
"""

RUN = """
import sys, torch
from pathlib import Path
from test_train_runs import configuration, run
run(configuration(Path(sys.argv[1])), [0, 1], Path(sys.argv[2]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and data of its own."""
    (tmp_path / "net.py").write_text(MODEL)
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 6)).astype(np.float32)
    x[:, 5] = np.arange(60)  # tells the examples apart
    np.savez(tmp_path / "data.npz", x=x, y=random.integers(0, 3, 60))
    return tmp_path


def configuration(folder: Path, **settings: object) -> TrainConfig:
    return replace(
        TrainConfig(
            f"{folder}/net.py:Net",
            f"npz:{folder}/data.npz",
            method=MethodConfig("rwp", noise=NoiseConfig("gaussian", 0.2), perturbed_weight=0.5),
            optimizer=OptimizerConfig(lr=0.01),
            epochs=4,
            batch_size=10,
            held_out=0.2,
            label="mine",
        ),
        **settings,
    )


def fixed_score(data: ArrayData, *_: object):
    """Score the sum of the weights: a function of the model alone."""
    return lambda model: (len(data), float(model[0].weight.detach().sum()))


def run(config: TrainConfig, seeds: list[int], out: Path, make_score=fixed_score) -> list[Path]:
    return train_seeds(config, seeds, out, make_score=make_score, device=torch.device("cpu"))


def content(out: Path) -> dict[str, bytes]:
    """Return all weights files, and metrics without the seconds."""
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*.safetensors"))}
    metrics = {
        p.relative_to(out).as_posix(): pd.read_csv(p).drop(columns="seconds").to_csv().encode()
        for p in sorted(out.rglob("metrics.csv"))
    }
    return {**files, **metrics}


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_a_run_writes_weights_metrics_and_manifest(folder: Path) -> None:
    out = folder / "out"
    paths = run(configuration(folder), [0, 3], out)
    assert paths == [out / "seed0" / "best.safetensors", out / "seed3" / "best.safetensors"]
    assert sorted(content(out)) == sorted(
        f"seed{s}/{name}" for s in (0, 3) for name in ("best.safetensors", "last.safetensors", "metrics.csv")
    )
    metrics = pd.read_csv(out / "seed3" / "metrics.csv")
    assert list(metrics["epoch"]) == [1, 2, 3, 4]
    assert set(metrics["train_seed"]) == {3}
    assert list(metrics["steps"]) == [4, 8, 12, 16]
    assert list(metrics["passes"]) == [8, 16, 24, 32]  # a clean and a perturbed one a step
    assert "passes,lr" in (out / "seed3" / "metrics.csv").read_text()
    assert metrics["passes"].dtype == int
    scores = metrics["held_out_perturbed_accuracy"]
    assert set(metrics["held_out_accuracy"]) == {12}  # 20% of 60
    chosen = int(metrics["epoch"][scores == scores.max()].iloc[-1])
    common = {"method": "mine", "train_seed": "3", "model": f"{folder}/net.py:Net", "normalize": "none"}
    training = metadata(paths[0])["training_sha256"]
    assert len(training) == 64
    common["training_sha256"] = training  # the same for every seed
    common |= {"trained_method": "rwp", "trained_noise": "gaussian", "trained_level": "0.2"}
    assert metadata(paths[1]) == {**common, "epoch": str(chosen)}
    assert metadata(out / "seed3" / "last.safetensors") == {**common, "epoch": "4"}
    assert float(load_file(paths[1])["0.weight"].sum()) == pytest.approx(scores.max(), rel=1e-5)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "training"
    assert manifest["configuration"]["method"]["noise"]["level"] == 0.2
    assert len(manifest["configuration"]["data_sha256"]) == 64
    assert manifest["environment"]["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("method", "said", "passes"),
    [
        (MethodConfig("sgd"), {}, [4, 8]),
        (MethodConfig("sam", schedule=ScheduleConfig("off-to-on", steps=6)), {}, [4, 10]),
        (MethodConfig("rwp"), {"noise": "gaussian", "level": "0.05"}, [4, 8]),
        (MethodConfig("rwp", noise=NoiseConfig(level=0.1), level_range=[0.0, 0.1], draws=2), {}, [8, 16]),
        (
            MethodConfig("arwp", noise=NoiseConfig("gaussian", 1e-5, reference="l2"), perturbed_weight=0.5),
            {"noise": nr.GaussianNoise(0, reference="l2").name, "level": "1e-05"},
            [8, 16],
        ),
        (
            MethodConfig("rwp", noise=NoiseConfig("pcm-nandakumar-2019", "1h")),
            {"noise": "pcm-nandakumar-2019", "level": "3600.0"},
            [4, 8],
        ),
    ],
    ids=["sgd", "sam off-to-on", "rwp", "level range", "m-arwp", "device"],
)
def test_weights_say_how_they_were_trained_and_metrics_what_it_cost(
    folder: Path, method: MethodConfig, said: dict[str, str], passes: list[int]
) -> None:
    (best,) = run(configuration(folder, method=method, epochs=2), [0], folder / "out")
    expected = {"trained_method": method.name, **{f"trained_{name}": text for name, text in said.items()}}
    for file in (best, best.with_name("last.safetensors")):
        assert {k: v for k, v in metadata(file).items() if k.startswith("trained_")} == expected
    assert list(pd.read_csv(best.with_name("metrics.csv"))["passes"]) == passes


def test_a_checkpoint_from_before_passes_were_counted_goes_on_without_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint, out = runs.write_checkpoint, folder / "out"
    run(configuration(folder), [0], folder / "whole")

    def stop(path: Path, state: dict) -> None:
        del state["trainer"]["optimizer"]["noiserobust"]["passes"]
        state["epochs"] = [{k: v for k, v in row.items() if k != "passes"} for row in state["epochs"]]
        write_checkpoint(path, state)
        if len(state["epochs"]) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "write_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        run(configuration(folder), [0], out)
    monkeypatch.undo()
    run(configuration(folder), [0], out)
    whole, found = content(folder / "whole"), content(out)
    assert {k: v for k, v in found.items() if "metrics" not in k} == {
        k: v for k, v in whole.items() if "metrics" not in k
    }
    metrics, known = (pd.read_csv(o / "seed0" / "metrics.csv") for o in (out, folder / "whole"))
    assert list(metrics) == list(known)
    assert list(metrics["epoch"]) == [1, 2, 3, 4]
    assert metrics["passes"].isna().all()  # unknown; no number that would be too small


def test_a_seed_does_not_depend_on_its_company(folder: Path) -> None:
    run(configuration(folder), [0, 1], folder / "both")
    torch.manual_seed(99)
    state = torch.get_rng_state()
    run(configuration(folder), [1], folder / "one")
    assert torch.equal(state, torch.get_rng_state())
    both, one = content(folder / "both"), content(folder / "one")
    assert {name: both[name] for name in one} == one
    seeds = [load_file(folder / "both" / f"seed{s}" / "last.safetensors") for s in (0, 1)]
    assert not same_bits(*seeds)


def test_without_held_out_data_best_is_last(folder: Path) -> None:
    (best,) = run(configuration(folder, held_out=0), [0], folder / "out", make_score=None)
    assert same_bits(load_file(best), load_file(best.with_name("last.safetensors")))


def test_held_out_examples_are_never_trained_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: set[float] = set()
    original = nn.Module.__call__

    def spy(module: nn.Module, *args: object, **keywords: object):
        if type(module).__name__ == "Net" and module.training:
            trained.update(args[0][:, 5].tolist())
        return original(module, *args, **keywords)

    held: list[set[float]] = []

    def make_score(data: ArrayData, *_: object):
        held.append(set(data.x[:, 5].tolist()))
        return lambda model: (0.0, 0.0)

    monkeypatch.setattr(nn.Module, "__call__", spy)
    run(configuration(folder, batch_size=8), [0, 1], folder / "out", make_score=make_score)
    assert held[0] == held[1]  # the same for all train seeds
    assert len(held[0]) == 12
    assert trained == set(range(60)) - held[0]


def test_the_evaluator_selects_by_accuracy_under_the_noise_of_the_settings(folder: Path) -> None:
    from noiserobust.evaluate.heldout import held_out_score

    config = configuration(folder, epochs=2, select=SelectConfig(NoiseConfig("gaussian", 0.3), draws=3))
    run(config, [0], folder / "out", make_score=held_out_score)
    metrics = pd.read_csv(folder / "out" / "seed0" / "metrics.csv")
    with np.load(folder / "data.npz") as arrays:
        data = ArrayData(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]), "data")
    _, held = data.split(0.2, nr.Stream(0, "held-out"))
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)).eval()
    state = load_file(folder / "out" / "seed0" / "last.safetensors")
    accuracies = []
    for draw in range(3):
        stream = nr.Stream(0, "select", 0, draw)
        noisy = {
            k: nr.GaussianNoise(0.3).perturb(v, stream.child(k)) if k in ("0.weight", "4.weight") else v
            for k, v in state.items()
        }
        model.load_state_dict(noisy)
        accuracies.append(100 * float((model(held.x).argmax(1) == held.y).float().mean()))
    model.load_state_dict(state)
    clean = 100 * float((model(held.x).argmax(1) == held.y).float().mean())
    assert metrics["held_out_accuracy"].iloc[-1] == pytest.approx(clean, rel=1e-6)
    assert metrics["held_out_perturbed_accuracy"].iloc[-1] == pytest.approx(np.mean(accuracies), rel=1e-6)


def test_finished_seeds_are_kept_and_new_ones_added(folder: Path) -> None:
    out = folder / "out"
    run(configuration(folder), [0], out)
    files = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (out / "seed0").iterdir()}
    manifest = (out / "manifest.json").read_bytes()
    run(configuration(folder), [0, 1], out)
    assert files == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (out / "seed0").iterdir()}
    assert (out / "manifest.json").read_bytes() == manifest
    assert (out / "seed1" / "last.safetensors").exists()


@pytest.mark.slow
def test_a_killed_run_is_continued_to_the_same_weights(folder: Path) -> None:
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    run(configuration(folder), [0, 1], undisturbed)
    environment = {**os.environ, "PAUSE": "0.05", "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(killed)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (killed / "seed1" / "metrics.csv").exists():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list((killed / "seed1").glob("[!.]*.safetensors"))  # nothing that looks finished
    finished = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (killed / "seed0").iterdir()}
    assert "last.safetensors" in {p.name for p in finished}
    run(configuration(folder), [0, 1], killed)
    assert finished == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (killed / "seed0").iterdir()}
    assert content(killed) == content(undisturbed)


@pytest.mark.parametrize("moment", ["first epoch", "last epoch", "best weights", "last weights"])
def test_the_best_weights_have_their_name_only_when_training_is_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    run(configuration(folder), [0], folder / "undisturbed")
    expected = (folder / "undisturbed" / "seed0" / "best.safetensors").read_bytes()
    seed = folder / "out" / "seed0"
    seed.mkdir(parents=True)
    for leftover in ("best.safetensors", ".best.safetensors.123.tmp"):
        (seed / leftover).write_bytes(b"of a killed run")
    epochs = []
    write_weights, write_checkpoint = runs.write_weights, runs.write_checkpoint

    def weights(path: Path, *arguments: object) -> None:
        if path.name == f"{moment.partition(' ')[0]}.safetensors":
            raise KeyboardInterrupt
        write_weights(path, *arguments)

    def checkpoint(*arguments: object) -> None:
        write_checkpoint(*arguments)
        epochs.append(1)
        assert not (seed / "best.safetensors").exists()
        if len(epochs) == {"first epoch": 1, "last epoch": configuration(folder).epochs}.get(moment):
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "write_weights", weights)
    monkeypatch.setattr(runs, "write_checkpoint", checkpoint)
    with pytest.raises(KeyboardInterrupt):
        run(configuration(folder), [0], folder / "out")
    assert not (seed / "last.safetensors").exists()
    named = seed / "best.safetensors"
    assert named.exists() == (moment == "last weights")
    monkeypatch.undo()
    run(configuration(folder), [0], folder / "out")
    assert named.read_bytes() == expected
    assert sorted(p.name for p in seed.iterdir()) == ["best.safetensors", "last.safetensors", "metrics.csv"]


def test_a_folder_is_held_while_it_is_trained_into_and_free_after_an_error(folder: Path) -> None:
    def make_score(*_: object):
        def score(model: nn.Module) -> tuple[float, float]:
            with pytest.raises(nr.NoiseRobustError, match="one process at a time"):
                run(configuration(folder), [1], folder / "out")
            raise KeyboardInterrupt

        return score

    with pytest.raises(KeyboardInterrupt) as caught:
        run(configuration(folder), [0], folder / "out", make_score=make_score)
    run(configuration(folder), [0], folder / "out")
    assert caught.traceback


def test_another_configuration_is_refused_naming_what_differs(folder: Path) -> None:
    out = folder / "out"
    run(configuration(folder), [0], out)
    before = content(out)
    other = configuration(folder, epochs=5, optimizer=OptimizerConfig(lr=0.02))
    with pytest.raises(nr.NoiseRobustError, match=r"differing: epochs, optimizer\.lr$"):
        run(other, [0], out)
    assert content(out) == before


def test_other_data_under_the_same_name_are_another_configuration(folder: Path) -> None:
    run(configuration(folder), [0], folder / "out")
    with np.load(folder / "data.npz") as arrays:
        np.savez(folder / "data.npz", x=arrays["x"] + 1, y=arrays["y"])
    with pytest.raises(nr.NoiseRobustError, match=r"differing: data_sha256$"):
        run(configuration(folder), [0], folder / "out")


def test_another_noise_under_the_same_file_name_is_another_configuration(folder: Path) -> None:
    noise = folder / "noise.yaml"
    noise.write_text("{noise: gaussian, reference: l2}")
    config = configuration(folder, method=MethodConfig("rwp", noise=NoiseConfig(str(noise), 0.1)))
    run(config, [0], folder / "out")
    run(config, [0], folder / "out")
    noise.write_text("{noise: gaussian, reference: std}")
    with pytest.raises(nr.NoiseRobustError, match=r"differing: files_sha256.*noise\.yaml"):
        run(config, [0], folder / "out")


def test_an_evaluation_is_not_continued_by_a_training(folder: Path) -> None:
    model = nn.Linear(2, 2)
    nr.evaluate(model, (torch.zeros(2, 2), torch.tensor([0, 1])), noise=nr.GaussianNoise(0), out=folder / "out")
    with pytest.raises(nr.NoiseRobustError, match="another kind"):
        run(configuration(folder), [0], folder / "out")


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1], [0.5], [True]], ids=str)
def test_seeds_are_distinct_integers(folder: Path, seeds: list[int]) -> None:
    with pytest.raises(nr.NoiseRobustError, match="seeds"):
        run(configuration(folder), seeds, folder / "out")
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "digits-mlp"}, "to fit the model"),
        ({"model_args": {"hidden": 0.5}}, "hidden|callable"),
        ({"method": MethodConfig("rwp", noise=NoiseConfig("gauss"))}, "gaussian"),
        ({"select": SelectConfig(NoiseConfig("gaussian", -1))}, "sigma"),
        ({"select": SelectConfig(NoiseConfig("missing.yaml"))}, "missing.yaml"),
        ({"normalize": "cifer10"}, "cifar10"),
        ({"normalize": "cifar10"}, "3 channels"),
        ({"data": "npz:missing.npz"}, "missing.npz"),
    ],
    ids=str,
)
def test_bad_settings_are_found_before_anything_is_written(folder: Path, settings: dict, said: str) -> None:
    with pytest.raises(nr.NoiseRobustError, match=said):
        run(configuration(folder, **settings), [0], folder / "out")
    assert not (folder / "out").exists()


def test_labels_beyond_the_outputs_of_the_model_are_refused(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.zeros((60, 6), np.float32), y=np.arange(60) % 4)
    with pytest.raises(nr.NoiseRobustError, match=r"labels .* in 0\.\.2, .* but got 3"):
        run(configuration(folder), [0], folder / "out")


def test_a_regular_file_as_out_is_refused(folder: Path) -> None:
    (folder / "out").write_text("mine")
    with pytest.raises(OSError, match="Expected to be able to write") as caught:
        run(configuration(folder), [0], folder / "out")
    assert isinstance(caught.value, nr.NoiseRobustError)
    assert (folder / "out").read_text() == "mine"
