"""The smallest search there is, and what cannot be searched."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from noiserobust.cli import main

pytest.importorskip("optuna", reason="needs the extra `tune`")

BASE = {"model": "digits-mlp", "data": "digits", "epochs": 2, "batch_size": 256, "select": {"draws": 1}}
PCM = ["--profile", "pcm-nandakumar-2019", "--seeds", "0", "--times", "1s", "--draws", "1"]


@pytest.fixture
def base(tmp_path: Path) -> str:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    return str(tmp_path / "base.yaml")


@pytest.mark.slow
def test_the_first_trial_is_noise_of_the_size_of_the_devices_errors(base, tmp_path, unrendered):
    out = tmp_path / "out"
    assert main(["tune", *PCM, "--trials", "1", "--config", base, "--out", str(out)]) == 0
    table = pd.read_csv(out / "trials.csv")
    assert table["state"].tolist() == ["complete", "complete"]
    assert (table["noise"][1], table["strength"][1], table["passes"][1]) == ("gaussian", 1, table["passes"][0])
    assert 0.03 < table["level"][1] < 0.1  # a day after programming weights are off by some percent of the largest
    summary = pd.read_csv(out / "final/summary.csv")
    assert set(summary["method"]) == {"sgd", "tuned", "rwp equivalent", "robust"}
    assert set(summary["level"]) == {0, 1, 86400}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--profile", "gaussian"], "`profile` to be a device"),
        (["--profile", "pcm"], "pcm"),
        (["--t", "soon"], "soon"),
        (["--trials", "0"], "`trials` to be an integer >= 1"),
        (["--seeds", "1", "1"], "`seeds` to be distinct"),
        (["--resume"], "to hold a search to resume"),
    ],
)
def test_what_cannot_be_searched_is_refused(base, tmp_path, capsys, more, said):
    assert main(["tune", *PCM, "--config", base, "--out", str(tmp_path / "new"), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
