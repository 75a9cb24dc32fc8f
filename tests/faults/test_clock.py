"""The clock of the system jumps, back and far forwards, while a command runs: only the dates in manifests see it.

Durations and intervals between checkpoints are of a clock that nobody sets.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from commands import EVALUATE, TRAIN, Forks, content

JUMPING = """
import os, random, time
import tqdm.std
from torch import nn

if os.environ.get("CLOCK") == "jumps":
    jumps, real, real_ns = random.Random(0), time.time, time.time_ns
    far = lambda: jumps.choice([-1e9, -60.0, 0.0, 3600.0, 1e9])
    time.time, time.time_ns = lambda: real() + far(), lambda: real_ns() + int(far() * 1e9)
    tqdm.std.time = time.time

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def seconds(out: Path) -> list[float]:
    return list(pd.read_csv(out / "seed0" / "metrics.csv")["seconds"])


@pytest.mark.thorough
def test_what_asks_for_the_time_gets_another_one_each_time(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(JUMPING)
    model = ["--model", "net.py:net"]
    for out, how in (("whole", {}), ("jumps", {"CLOCK": "jumps"})):
        train = forks.run(*TRAIN[:-2], *model, "--out", out, folder=tmp_path, **how)
        assert train.status == 0, train.err
        weights = ["--weights", "whole/seed0/best.safetensors", "--draws", "4"]
        evaluate = forks.run(*EVALUATE, *weights, *model, "--out", f"{out}-results", folder=tmp_path, **how)
        assert evaluate.status == 0, evaluate.err
    assert content(tmp_path / "jumps") == content(tmp_path / "whole")
    assert content(tmp_path / "jumps-results") == content(tmp_path / "whole-results")
    assert all(0 < s < 60 for s in seconds(tmp_path / "jumps"))


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


@pytest.mark.thorough
@pytest.mark.skipif(FAKETIME is None, reason="needs faketime")
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_the_system_clock_is_set_while_it_runs(executor: str, forks: Forks, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(FAKETIME), "DONT_FAKE_MONOTONIC": "1"}
    environment |= {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    train = [*TRAIN, "--method.name", "rwp", "--epochs", "20"]
    workers = ["--executor", executor, *(["--workers", "2"] if executor == "processes" else [])]
    evaluate = [*EVALUATE, "--draws", "100"]
    for words, more, out in ((train, [], "w"), (evaluate, workers, "results")):
        assert forks.run(*words, "--out", f"whole-{out}", folder=tmp_path).status == 0
        if out == "w":
            (tmp_path / "w").symlink_to("whole-w")
        else:
            (tmp_path / "w").unlink()
            (tmp_path / "w").symlink_to("whole-w")
        jumps = random.Random(out)
        clock.write_text("+0")
        command = [sys.executable, "-m", "noiserobust", *words, *more, "--out", f"jumps-{out}"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        while process.poll() is None:
            jump = jumps.choice(["-30y", "-1h", "+0", "+1d", "+50y"])
            new = tmp_path / "clock.new"
            new.write_text(jump)
            new.replace(clock)
            time.sleep(0.1)
        assert process.stderr is not None
        assert process.wait() == 0, process.stderr.read()
        process.stderr.close()
        assert content(tmp_path / f"jumps-{out}") == content(tmp_path / f"whole-{out}")
    assert all(0 < s < 600 for s in seconds(tmp_path / "jumps-w"))
