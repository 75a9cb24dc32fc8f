"""Jobs whose folders are removed while a sweep goes on, or after it, and logs for which there is no room."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from sweeps import read, tables, written

from noiserobust.cli import main
from noiserobust.errors import OutputError
from noiserobust.sweep import run as runs
from noiserobust.sweep.state import FINISHED, WAITING, state_of
from noiserobust.sweep.work import Work, logged_job

LITTLE: dict[str, Any] = {"grid": {"method.name": "sgd"}, "seeds": [0, 1]}


def sweep(path: Path, out: Path) -> int:
    return main(["sweep", "--config", str(path), "--out", str(out)])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, rendering_nothing: Any) -> Path:
    """A sweep that nobody disturbed, with its file beside it."""
    folder = tmp_path_factory.mktemp("lost")
    with rendering_nothing():
        assert sweep(written(folder / "grid.yaml", **LITTLE), folder / "out") == 0
    return folder


@pytest.mark.parametrize("gone", [".", "train", "train/seed0", "evaluate"])
@pytest.mark.slow
def test_a_job_is_not_finished_without_its_training_or_an_evaluation(done, tmp_path, unrendered, gone):
    shutil.copytree(done / "out", tmp_path / "out")
    plan = read(done / "grid.yaml")
    job = next(iter(plan.jobs.values()))
    shutil.rmtree(tmp_path / "out" / "jobs" / job.name / gone)
    assert state_of(tmp_path / "out", job, plan).word != FINISHED
    assert sweep(done / "grid.yaml", tmp_path / "out") == 0
    assert tables(tmp_path / "out") == tables(done / "out")


def test_weights_may_be_removed(done, tmp_path):
    shutil.copytree(done / "out", tmp_path / "out")
    plan = read(done / "grid.yaml")
    for path in (tmp_path / "out").rglob("*.safetensors"):
        path.unlink()
    assert {state_of(tmp_path / "out", job, plan).word for job in plan.jobs.values()} == {FINISHED}


@pytest.mark.slow
def test_a_job_that_is_lost_while_others_are_done_is_no_success(done, tmp_path, capsys, unrendered, monkeypatch):
    out, names = tmp_path / "out", list(read(done / "grid.yaml").jobs)

    class Removes(Work):
        def __call__(self, name: str) -> str:
            if name == names[1]:
                shutil.rmtree(self.out / "jobs" / names[0])
            return super().__call__(name)

    monkeypatch.setattr(runs, "Work", Removes)
    assert sweep(done / "grid.yaml", out) == 2
    said = capsys.readouterr().err
    assert f"{Path('jobs') / names[0]} to hold the results of sgd, seed 0" in said
    assert "Traceback" not in said
    assert not (out / "grid").exists()
    monkeypatch.undo()
    assert sweep(done / "grid.yaml", out) == 0
    assert tables(out) == tables(done / "out")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_log_for_which_there_is_no_room_is_an_error_of_ours(done, tmp_path):
    plan = read(done / "grid.yaml")
    job = next(iter(plan.jobs.values()))
    folder = tmp_path / "jobs" / job.name
    folder.mkdir(parents=True)
    (folder / "log.txt").symlink_to("/dev/full")
    said = r"to be able to write .*log\.txt, but got: No space left on device"
    with pytest.raises(OutputError, match=said), logged_job(tmp_path, job, 1):
        pass
    assert state_of(tmp_path, job, plan).word == WAITING
