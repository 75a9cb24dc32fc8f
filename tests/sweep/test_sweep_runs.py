"""Sweeps done, interrupted, shared and failed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from sweeps import GRID, read, tables, written

from noiserobust.cli import main
from noiserobust.report.gather import kind_of
from noiserobust.results.lock import FolderLock
from noiserobust.sweep.state import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    WAITING,
    last_lines,
    state_of,
    tried,
    write_state,
)


def sweep(path: Path, out: Path, *more: str) -> int:
    return main(["sweep", "--config", str(path), "--out", str(out), *more])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, rendering_nothing: Any) -> Path:
    """A sweep that nobody disturbed, with its file beside it."""
    folder = tmp_path_factory.mktemp("sweep")
    with rendering_nothing():
        assert sweep(written(folder / "grid.yaml"), folder / "out") == 0
    return folder


def test_a_sweep_finds_what_train_and_evaluate_find(done, tmp_path):
    base = GRID["base"] | {"method": {"name": "rwp", "noise": {"level": 0.2}}, "label": "rwp 0.2"}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(base))
    runs, found = tmp_path / "runs", tmp_path / "found"
    assert main(["train", "--config", str(tmp_path / "train.yaml"), "--seeds", "1", "--out", str(runs)]) == 0
    weights = str(runs / "seed1/best.safetensors")
    words = f"evaluate --model digits-mlp --weights {weights} --data digits --noise gaussian --levels 0 0.1 --draws 2"
    assert main([*words.split(), "--out", str(found)]) == 0
    mine = pd.read_csv(found / "draws.csv").drop(columns="weights")
    joint = pd.read_csv(done / "out/grid/draws.csv").drop(columns="weights")
    same = joint[(joint.method == "rwp 0.2") & (joint.train_seed == 1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, same)


def test_all_jobs_are_in_one_table_and_one_report(done):
    out = done / "out"
    table = pd.read_csv(out / "grid/jobs.csv")
    assert table["state"].tolist() == ["finished"] * 6
    assert table["method.noise.level"].isna().tolist() == [True, True, False, False, False, False]
    draws = pd.read_csv(out / "grid/draws.csv")
    for row in table.itertuples():
        own = draws[(draws.method == row.method) & (draws.train_seed == row.train_seed) & (draws.level == 0.1)]
        assert table.loc[row.Index, "gaussian sigma=0.1 accuracy"] == pytest.approx(own.value.mean())
    assert all((out / weights).is_file() for weights in draws.weights.unique())
    assert set(draws.weights.str.split("/").str[1]) == set(table.job)
    page = (out / "grid/report/report.html").read_text()
    assert all(method in page for method in table.method)
    assert (out / "grid/report/figures/gaussian-training-levels.svg").exists()  # trained for against used at
    assert kind_of(out / "grid") == "sweep"  # what was joined is not found as an evaluation of its own


@pytest.mark.slow
def test_evaluations_that_no_table_can_hold_together_have_tables_of_their_own(done, tmp_path, unrendered):
    import shutil

    shutil.copytree(done / "out", tmp_path / "out")
    plain = GRID["evaluate"]["gaussian"]
    evaluations = {
        "gaussian": plain,
        "of-50": {**plain, "examples": 50, "seed": 1},
        "laplace": {"noise": "laplace", "levels": [0.1], "draws": 2},
        "training": {"noise": "gaussian", "levels": [0], "split": "train"},
    }
    assert sweep(written(tmp_path / "grid.yaml", evaluate=evaluations), tmp_path / "out") == 0
    joint = tmp_path / "out/grid"
    draws = pd.read_csv(joint / "draws.csv")
    both = draws[draws.noise == "gaussian"].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, pd.read_csv(done / "out/grid/draws.csv"))
    assert set(draws.noise) == {"gaussian", "laplace"}
    few, training = (pd.read_csv(joint / "apart" / name / "draws.csv") for name in ("of-50", "training"))
    assert set(few.n_examples) == {50}
    assert training.value.mean() > draws[draws.level == 0].value.mean()  # fitted
    assert (joint / "apart/of-50/report/report.html").is_file()
    columns = pd.read_csv(joint / "jobs.csv").columns
    assert {"gaussian sigma=0.1 accuracy", "of-50 sigma=0.1 accuracy", "training sigma=0 accuracy"} <= set(columns)


def test_a_finished_sweep_does_nothing_again(done, unrendered):
    files = sorted((done / "out/jobs").rglob("*"))
    times = [path.stat().st_mtime_ns for path in files]
    before = tables(done / "out")
    assert sweep(done / "grid.yaml", done / "out") == 0
    again = [path for path in files if path.name != ".lock"]
    assert [p.stat().st_mtime_ns for p in again] == [t for p, t in zip(files, times, strict=True) if p in again]
    assert tables(done / "out") == before


@pytest.mark.slow
def test_processes_find_the_same(done, tmp_path, unrendered):
    assert sweep(done / "grid.yaml", tmp_path, "--executor", "processes", "--workers", "2") == 0
    assert tables(tmp_path) == tables(done / "out")


@pytest.mark.slow
def test_a_larger_grid_takes_over_what_is_done(done, tmp_path, unrendered):
    (tmp_path / "jobs").symlink_to(done / "out/jobs")
    grid = [*GRID["grid"], {"method": {"name": "sam", "rho": 0.1}}]
    finished = {p: p.stat().st_mtime_ns for p in (done / "out/jobs").rglob("best.safetensors")}
    assert sweep(written(tmp_path / "larger.yaml", grid=grid, seeds=[0]), tmp_path) == 0
    assert all(p.stat().st_mtime_ns == t for p, t in finished.items())
    table = pd.read_csv(tmp_path / "larger/jobs.csv")
    assert table.method.tolist() == ["sgd", "rwp 0.1", "rwp 0.2", "sam 0.1"]


BROKEN = """
from pathlib import Path
from noiserobust import build_model

def net():
    return build_model("digits-mlp")

class Breaks:
    pass

def accuracy_or_not(output, target):
    if Path(__file__).with_name("broken").exists():
        print("looking for the culprit")
        raise ZeroDivisionError("one by nought")
    return (output.argmax(1) == target).sum(), target.numel()
"""


def test_a_report_that_could_not_be_written_is_said_before_the_first_job(tmp_path, capsys):
    for report, said in {"baseline": "sgdd", "spec": 120, "drop": 0}.items():
        path = written(tmp_path / "grid.yaml", report={report: said})
        assert sweep(path, tmp_path / "out") == 2
        assert f"`{report}`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failure_counts_for_the_evaluations_that_it_happened_at(done):
    plan = read(done / "grid.yaml")
    other = read(written(done / "other.yaml", evaluate={"noise": "gaussian", "levels": [0.3]}))
    out, job = done / "failed", next(iter(plan.jobs.values()))
    folder = out / "jobs" / job.name
    folder.mkdir(parents=True)
    write_state(out, job, {"error": "one by nought", **tried(plan)})
    assert state_of(out, job, plan).word == FAILED
    assert state_of(out, job, other).word != FAILED


@pytest.mark.slow
def test_failed_jobs_are_listed_with_their_last_lines_and_tried_again_on_request(tmp_path, capsys, unrendered):
    (tmp_path / "mine.py").write_text(BROKEN)
    (tmp_path / "broken").touch()
    metric = f"{tmp_path / 'mine.py'}:accuracy_or_not"
    path = written(
        tmp_path / "grid.yaml",
        grid=[{"method.name": "sgd"}, {"method.name": "sgd", "optimizer.lr": 1e9}],
        seeds=[0],
        evaluate={"noise": "gaussian", "levels": [0], "metrics": [metric]},
    )
    out = tmp_path / "out"
    assert sweep(path, out) == 2
    said = capsys.readouterr()
    assert "one by nought" in said.out
    assert "    " in said.out
    assert "stay finite" in said.out  # the other one
    assert "looking for the culprit" in said.out
    assert "2 failed" in said.err
    assert "Traceback" not in said.err
    assert sweep(path, out) == 2  # not tried again
    assert "2 failed" in capsys.readouterr().err
    (tmp_path / "broken").unlink()
    assert sweep(path, out, "--retry") == 2
    said = capsys.readouterr()
    assert "one by nought" not in said.out
    assert "1 failed" in said.err
    table = pd.read_csv(out / "grid/jobs.csv")
    assert table["state"].tolist() == [FINISHED, FAILED]


@pytest.mark.parametrize(
    ("base", "said"),
    [({"data": "digitz"}, "did you mean 'digits'"), ({"model": "digits-mpl"}, "did you mean 'digits-mlp'")],
)
def test_what_no_job_could_do_is_said_before_the_first(tmp_path, capsys, base, said):
    assert sweep(written(tmp_path / "g.yaml", base=GRID["base"] | base), tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_state_is_what_the_folder_says(done, tmp_path):
    plan = read(done / "grid.yaml")
    job = next(iter(plan.jobs.values()))
    assert state_of(done / "out", job, plan).word == FINISHED
    assert state_of(tmp_path, job, plan).word == WAITING
    folder = tmp_path / "jobs" / job.name
    folder.mkdir(parents=True)
    lock = FolderLock(folder)
    assert state_of(tmp_path, job, plan).word == RUNNING
    FolderLock(tmp_path).release()
    lock.release()
    write_state(tmp_path, job, {"seconds": 3})
    assert state_of(tmp_path, job, plan).word == STOPPED
    write_state(tmp_path, job, {"error": "why"})
    assert (state_of(tmp_path, job, plan).word, state_of(tmp_path, job, plan).error) == (FAILED, "why")
    (folder / "job.json").write_text("{")
    assert state_of(tmp_path, job, plan).word == WAITING  # what cannot be read says nothing
    (folder / "log.txt").write_bytes(b"one\n\ntwo\xff\nthree\n")
    assert last_lines(tmp_path, job, 2) == ["two\ufffd", "three"]


def test_status_is_shown_and_nothing_done(done, tmp_path, capsys):
    assert sweep(done / "grid.yaml", done / "out", "--status") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "6 finished"
    assert sweep(done / "grid.yaml", tmp_path / "new", "--status") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "6 waiting"
    assert not (tmp_path / "new").exists()
    assert sweep(done / "grid.yaml", tmp_path / "new", "--resume") == 2
    assert "to resume" in capsys.readouterr().err


def begun(path: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "noiserobust", "sweep", "--config", str(path), "--out", str(out), *more]
    with (path.parent / f"{path.stem}.log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


@pytest.mark.slow
def test_two_sweeps_share_a_folder(done, tmp_path):
    one = written(tmp_path / "one.yaml")
    other = written(tmp_path / "other.yaml", grid={"method": {"name": "rwp", "noise": {"level": [0.2, 0.1]}}})
    out = tmp_path / "out"
    runs = [begun(path, out) for path in (one, other)]
    for run in runs:
        assert run.wait() == 0
    assert len(list((out / "jobs").iterdir())) == 6
    for log in (out / "jobs").glob("*/log.txt"):
        assert log.read_text().count(" UTC, ") == 1  # each job was done once
    assert tables(out)["one/draws.csv"] == tables(done / "out")["grid/draws.csv"]
    assert pd.read_csv(out / "other/jobs.csv")["state"].tolist() == ["finished"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(8, marks=pytest.mark.thorough)])
def test_a_killed_sweep_goes_on_to_the_same_tables(done, tmp_path, kills):
    rng = random.Random(kills)
    more = ["--executor", "processes", "--workers", "2"] if kills > 3 else []
    for _ in range(kills):
        run = begun(done / "grid.yaml", tmp_path, *more)
        try:
            run.wait(rng.uniform(3, 7))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
        time.sleep(0.5)
    assert sweep(done / "grid.yaml", tmp_path, *more) == 0
    assert tables(tmp_path) == tables(done / "out")
    assert not list(tmp_path.rglob("*.tmp"))
