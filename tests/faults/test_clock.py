"""A clock on the wall that is set while something runs: durations are right, and results are what they were."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from commands import EVALUATE, SWEEP, TRAIN, Forks, content


@pytest.mark.slow
def test_a_training_and_an_evaluation(forks: Forks, tmp_path: Path) -> None:
    words = [*TRAIN, "--seeds", "0"]
    assert forks.run(*words, "--out", "w", folder=tmp_path).status == 0
    end = forks.run(*words, "--out", "set", folder=tmp_path, clock=True)
    assert end.status == 0, end.err
    assert content(tmp_path / "set") == content(tmp_path / "w")
    seconds = pd.read_csv(tmp_path / "set" / "seed0" / "metrics.csv")["seconds"]
    assert seconds.min() > 0
    assert seconds.sum() < end.seconds
    evaluation = [*EVALUATE, "--draws", "3"]
    assert forks.run(*evaluation, "--out", "one", folder=tmp_path).status == 0
    end = forks.run(*evaluation, "--verbose", "--out", "other", folder=tmp_path, clock=True)
    assert end.status == 0, end.err
    assert content(tmp_path / "other") == content(tmp_path / "one")
    passed = [float(s) for s in re.findall(r"^\d\d:\d\d:\d\d +(-?[\d.]+) s ", end.err, re.MULTILINE)]
    assert passed
    assert passed == sorted(passed)
    assert 0 <= passed[0] <= passed[-1] < end.seconds


@pytest.mark.slow
def test_a_sweep(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(SWEEP)
    end = forks.run("sweep", "--config", "grid.yaml", "--out", "out", folder=tmp_path, clock=True)
    assert end.status == 0, end.err
    seconds = [json.loads(path.read_text())["seconds"] for path in (tmp_path / "out" / "jobs").glob("*/job.json")]
    assert len(seconds) == 2
    assert min(seconds) > 0
    assert sum(seconds) < end.seconds
