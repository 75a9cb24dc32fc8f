"""Ctrl-C, SIGTERM and SIGHUP at any moment: a line, nothing half written, and the same command goes on to the same end.

Signals strike real processes at random moments of seeded generators, over the time that an undisturbed run takes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import EVALUATE, SWEEP, TRAIN, Ended, Forks, Running, content, wait_until_handled

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
KEPT = "; what is finished is kept, the same command goes on from there"


def check(end: Ended, number: int, kept: str = KEPT) -> bool:
    """Check how a command ended to which a signal was sent; return whether it was not done already."""
    assert "Traceback" not in end.err
    if end.status == 0:
        return False
    assert end.status == 128 + number, end.err
    said = f"noiserobust: {'interrupted' if number == signal.SIGINT else 'terminated'}"
    assert end.complaint in (f"{said}{kept}", said)  # while it is still being imported nothing is there to be kept
    return True


class Disturbed:
    """A command that is asked to end again and again, and at last is left alone.

    Args:
        forks: start it.
        folder: where it runs.
    """

    def __init__(self, forks: Forks, folder: Path) -> None:
        self.forks, self.folder, self.temporary = forks, folder, folder / "temporary"
        self.temporary.mkdir()

    def compare(self, words: list[str], out: str, times: int, kept: str = KEPT) -> None:
        """Run a command undisturbed, and then disturbed, and compare what they have written."""
        how = {"folder": self.folder, "TMPDIR": str(self.temporary)}
        whole = self.forks.run(*words, "--out", "whole", **how)
        assert whole.status == 0, whole.err
        moments, ended = random.Random(out), 0
        for number in (SIGNALS * times)[:times]:
            running = self.forks.start(*words, "--out", out, **how)
            running.wait_until_it_heeds_signals()
            time.sleep(moments.uniform(0, 0.7) * whole.seconds)
            running.send(number)
            ended += check(running.ended(), number, kept)
            assert not [p for p in self.temporary.iterdir() if not p.name.startswith("torchinductor_")]
            assert not list((self.folder / out).rglob("*.tmp"))
        assert ended, "the command was always done before it was asked to end"
        last = self.forks.run(*words, "--out", out, **how)
        assert last.status == 0, last.err
        assert content(self.folder / out) == content(self.folder / "whole")


@pytest.fixture
def disturbed(forks: Forks, tmp_path: Path) -> Disturbed:
    return Disturbed(forks, tmp_path)


@pytest.fixture
def trained(disturbed: Disturbed) -> Disturbed:
    end = disturbed.forks.run(*TRAIN[:-2], "--out", "w", folder=disturbed.folder)
    assert end.status == 0, end.err
    return disturbed


class TestAnyMoment:
    @pytest.mark.thorough
    def test_of_a_training_that_writes_a_checkpoint_each_step(self, disturbed: Disturbed) -> None:
        method = ["--method.name", "rwp", "--method.schedule.name", "linear"]
        disturbed.compare([*TRAIN, *method], "out", times=2)

    @pytest.mark.thorough
    def test_of_an_evaluation(self, trained: Disturbed) -> None:
        trained.compare([*EVALUATE, "--draws", "20"], "out", times=3)

    @pytest.mark.thorough
    def test_of_a_training_many_times(self, disturbed: Disturbed) -> None:
        disturbed.compare([*TRAIN, "--seeds", "0", "1", "--method.name", "sam"], "many", times=20)

    @pytest.mark.thorough
    def test_of_an_evaluation_in_processes(self, trained: Disturbed) -> None:
        processes = ["--executor", "processes", "--workers", "2", "--draws", "300"]
        trained.compare([*EVALUATE, *processes], "processes", times=3)

    @pytest.mark.slow
    @pytest.mark.parametrize("executor", ["serial", pytest.param("processes", marks=pytest.mark.thorough)])
    def test_of_a_sweep(self, disturbed: Disturbed, executor: str) -> None:
        (disturbed.folder / "grid.yaml").write_text(SWEEP)
        workers = ["--workers", "2"] if executor == "processes" else []
        disturbed.compare(
            ["sweep", "--config", "grid.yaml", "--executor", executor, *workers], f"sweep-{executor}", times=4
        )

    @pytest.mark.thorough
    def test_of_a_report(self, trained: Disturbed) -> None:
        end = trained.forks.run(*EVALUATE, "--draws", "3", "--out", "results", folder=trained.folder)
        assert end.status == 0, end.err
        trained.compare(["report", "results"], "report", times=6, kept="")

    @pytest.mark.thorough
    @pytest.mark.parametrize("number", SIGNALS)
    def test_of_imports_and_of_arguments(self, number: int, tmp_path: Path) -> None:
        """A command of its own, which has to import everything: from the first moment that it heeds signals on."""
        words = [sys.executable, "-m", "noiserobust", *TRAIN, "--out", "out"]
        moments = random.Random(int(number))
        for _ in range(6):
            process = subprocess.Popen(
                words,
                cwd=tmp_path,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            wait_until_handled(process.pid, signal.SIGTERM)
            time.sleep(moments.uniform(0, 3))
            process.send_signal(number)
            _, err = process.communicate(timeout=120)
            check_imports(Ended(process.returncode, "", err, 0.0), number)


def check_imports(end: Ended, number: int) -> None:
    """Check how a command ended that was perhaps not ours yet: what was kept is not said before we have arguments."""
    if not end.complaint.endswith(KEPT):
        check(end, number, "")
    else:
        check(end, number)


SLOW = """
import time
from pathlib import Path
from torch import nn

class Last:
    def __del__(self):
        Path("reached").touch()
        time.sleep(60)

def sleeping():
    try:
        Path("reached").touch()
        time.sleep(60)
    finally:
        time.sleep(60)

def dropping():
    if not Path("reached").exists():
        Last()
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


class TestOneSignalAndAnother:
    def reached(self, forks: Forks, folder: Path, model: str) -> Running:
        (folder / "slow.py").write_text(SLOW)
        words = ["train", "--model", f"slow.py:{model}", "--data", "digits", "--epochs", "1", "--out", "out"]
        running = forks.start(*words, folder=folder)
        deadline = time.monotonic() + 60
        while not (folder / "reached").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return running

    @pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
    def test_the_second_ends_at_once(self, forks: Forks, tmp_path: Path, second: int) -> None:
        """Whatever is being put in order after the first."""
        running = self.reached(forks, tmp_path, "sleeping")
        running.send(signal.SIGINT)
        time.sleep(0.3)  # it sleeps again
        assert os.path.exists(f"/proc/{running.pid}")
        running.send(second)
        end = running.ended()
        assert end.status == -second
        assert end.seconds < 50

    @pytest.mark.slow
    def test_it_is_heeded_where_python_drops_what_is_raised(self, forks: Forks, tmp_path: Path) -> None:
        """As in destructors, and in callbacks of libraries."""
        running = self.reached(forks, tmp_path, "dropping")
        running.send(signal.SIGTERM)
        end = running.ended()
        assert check(end, signal.SIGTERM)
        assert end.seconds < 50
        assert not list((tmp_path / "out").rglob("*.safetensors"))
