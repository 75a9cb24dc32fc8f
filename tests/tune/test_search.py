"""Searches: the same whatever happens to them, and what comes out of them."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

import noiserobust as nr
from noiserobust.cli import main

pytest.importorskip("optuna", reason="needs the extra `tune`")
pytestmark = pytest.mark.slow

BASE = {"model": "digits-mlp", "data": "digits", "epochs": 2, "batch_size": 64, "select": {"draws": 2}}
SEARCH = ["--profile", "pcm-nandakumar-2019", "--t", "1d", "--trials", "5", "--together", "2", "--draws", "2"]
SEARCH += ["--seeds", "0", "1", "--times", "1s", "1d"]


def words(folder: Path, out: Path) -> list[str]:
    return ["tune", *SEARCH, "--config", str(folder / "base.yaml"), "--out", str(out)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nobody disturbed."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    assert main(words(folder, folder / "out")) == 0
    return folder


def files(out: Path) -> dict[str, bytes]:
    kept = [*out.glob("*.csv"), *out.glob("*.yaml"), *out.glob("trials/*.json"), *out.glob("final/*.csv")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(kept)}


def test_the_winner_is_the_best_trial(found):
    table = pd.read_csv(found / "out/trials.csv")
    assert table["trial"].tolist() == list(range(6))
    assert table["noise"].isna().tolist() == [True] + [False] * 5  # the first is the plain training
    best = table.iloc[1:].sort_values(["held_out_accuracy", "trial"], ascending=[False, True]).iloc[0]
    winner = yaml.safe_load((found / "out/winner.yaml").read_text())
    assert winner["label"] == "tuned"
    assert winner["method"]["noise"]["level"] == (
        pytest.approx(float(best.level)) if best.noise != "device" else best.t
    )
    held = [
        pd.read_csv(p)["held_out_perturbed_accuracy"].max()
        for p in (found / "out/jobs").glob("*/train/seed0/metrics.csv")
    ]
    assert best.held_out_accuracy == pytest.approx(max(v for v in held if v <= best.held_out_accuracy + 1e-6))


def test_no_training_is_tried_twice(found):
    table = pd.read_csv(found / "out/trials.csv", dtype=str).iloc[1:]
    assert not table[["noise", "level", "schedule", "fraction", "share", "clip", "average"]].duplicated().any()


def test_the_last_comparison_is_on_test_data_and_other_chips(found):
    draws = pd.read_csv(found / "out/final/draws.csv")
    assert sorted(draws.method.unique()) == ["robust", "rwp equivalent", "sgd", "tuned"]
    assert sorted(draws.train_seed.unique()) == [0, 1]
    assert sorted(draws.level.unique()) == [0, 1, 86400]
    assert set(draws.n_examples) == {len(nr.load_data("digits", "test"))}
    assert "tuned" in (found / "out/final/report/report.html").read_text()


def test_the_file_of_the_winner_trains_the_same_weights(found, tmp_path):
    config = str(found / "out/winner.yaml")
    assert main(["train", "--config", config, "--seeds", "1", "--out", str(tmp_path)]) == 0
    weights = (tmp_path / "seed1/best.safetensors").read_bytes()
    draws = pd.read_csv(found / "out/final/draws.csv")
    (own,) = draws[(draws.method == "tuned") & (draws.train_seed == 1)].weights.unique()
    assert (found / "out" / own).read_bytes() == weights


def test_a_search_that_is_over_is_not_done_again(found, unrendered, capsys):
    before = files(found / "out")
    stamps = {p: p.stat().st_mtime_ns for p in (found / "out").rglob("*.safetensors")}
    assert main(words(found, found / "out")) == 0
    assert files(found / "out") == before
    assert {p: p.stat().st_mtime_ns for p in (found / "out").rglob("*.safetensors")} == stamps
    assert main([*words(found, found / "out"), "--trials", "6"]) == 2  # another search
    assert "differing: trials" in capsys.readouterr().err


def test_a_search_goes_on_from_any_trial(found, tmp_path, unrendered):
    """What a kill after trial 2 leaves, without and with the trainings that were under way."""
    import shutil

    out = tmp_path / "out"
    shutil.copytree(found / "out", out)
    shutil.rmtree(out / "final")
    for number in (3, 4, 5):
        (out / f"trials/{number:04d}.json").unlink()
    for metrics in list(out.glob("jobs/*/train/seed0/metrics.csv"))[:2]:
        shutil.rmtree(metrics.parents[2])
    (out / "winner.yaml").unlink()
    assert main(words(found, out)) == 0
    assert files(out) == files(found / "out")


@pytest.mark.thorough
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_killed_search_comes_to_the_same_end(found, tmp_path, executor):
    rng = random.Random(executor)
    command = [sys.executable, "-m", "noiserobust", *words(found, tmp_path / "out"), "--executor", executor]
    for _ in range(4):
        with (tmp_path / "log").open("ab") as log:
            run = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            run.wait(rng.uniform(4, 9))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert files(tmp_path / "out") == files(found / "out")
