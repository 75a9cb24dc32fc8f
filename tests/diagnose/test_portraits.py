"""What figures need of the weights alone: computed where it lacks, once, and anew for other weights."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noiserobust.cli import main
from noiserobust.diagnose import portraits
from noiserobust.diagnose.portraits import KINDS, PortraitConfig
from noiserobust.report.papers.runs import find_runs
from noiserobust.results.filters import read_filters
from noiserobust.results.landscapes import read_landscape

FEW = PortraitConfig(points=3, examples=20)
MODEL = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
"""


def make_portraits(
    folders: list[Path], out: Path, kinds: Sequence[str], config: PortraitConfig, methods: list[str] | None = None
) -> tuple[list[Path], list[str]]:
    runs = {run.name: run.trainings for run in find_runs(folders, methods).runs}
    return portraits.make_portraits(runs, folders, out, kinds, config)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    split = {f"{s}_{k}": v for s in ("train", "test") for k, v in zip("xy", (rng.normal(size=(40, 6)), 0), strict=True)}
    split |= {f"{s}_y": rng.integers(0, 3, 40) for s in ("train", "test")}
    np.savez(tmp_path / "data.npz", **{k: v.astype("float32") if k.endswith("x") else v for k, v in split.items()})
    (tmp_path / "model.py").write_text(MODEL)
    train(tmp_path, "sgd")
    train(tmp_path, "sam", "--method.name", "sam")
    return tmp_path / "runs"


def train(folder: Path, label: str, *more: str, seeds: tuple[str, ...] = ("0", "1")) -> None:
    given = ["--model", f"{folder}/model.py:net", "--data", f"npz:{folder}/data.npz", "--epochs", "1", "--label", label]
    run = ["--batch_size", "8", "--record.every", "2", "--seeds", *seeds, "--out", str(folder / "runs" / label)]
    assert main(["train", *given, *run, *more]) == 0


@pytest.mark.thorough
def test_what_lacks_is_computed_once(runs: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "portraits"
    made, failed = make_portraits([runs], out, KINDS, FEW)
    assert not failed
    assert len(made) == len(set(made)) == 2 * (2 + 2 + 1)
    planes = [read_landscape(folder) for folder in made if "plane" in folder.name]
    assert {(frame["method"][0], frame["split"][0]) for frame in planes} == {
        (method, split) for method in ("sgd", "sam") for split in ("train", "test")
    }
    assert all(set(frame["train_seed"]) == {0} and len(frame) == 2 * 9 for frame in planes)
    assert all(set(frame["weights"]) == {f"{runs}/{frame['method'][0]}/seed0/last.safetensors"} for frame in planes)
    assert [len(read_filters(folder)) for folder in made if "filters" in folder.name] == [11, 11]

    def never(*given: Any, **more: Any) -> None:
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(portraits, "landscape_files", never)
        patched.setattr(portraits, "filter_files", never)
        assert make_portraits([runs], out, KINDS, FEW) == (made, [])
        only, _ = make_portraits([runs], out, ["plane"], FEW, methods=["sam"])
        assert len(only) == 2
        # What somebody has made by hand of these weights counts too.
        shutil.copytree(made[0], runs / "mine")
        rest, _ = make_portraits([runs], out, KINDS, FEW)
        assert rest == made[1:]
    (runs / "mine/landscape.csv").unlink()
    assert make_portraits([runs], out, KINDS, FEW)[0] == made
    finer, _ = make_portraits([runs], out, ["plane"], PortraitConfig(points=5, examples=20))
    assert not set(finer) & set(made)
    shutil.rmtree(runs / "sgd")
    train(tmp_path, "sgd", "--seed", "1", seeds=("0",))  # another training of the same name
    again, _ = make_portraits([runs], out, KINDS, FEW)
    assert len(set(again) - set(made)) == 5


@pytest.mark.thorough
def test_what_cannot_be_computed_is_said_and_the_rest_is_drawn(runs: Path, tmp_path: Path, capsys: Any) -> None:
    assert (
        main(["figures", "--from", str(runs), "--out", str(tmp_path / "f"), "--only", "7", "3", "--points", "3"]) == 0
    )
    told = capsys.readouterr().out
    assert "figure 7: " in told
    assert (tmp_path / "f/figure-7.png").stat().st_size > 1000
    (tmp_path / "data.npz").unlink()
    shutil.rmtree(tmp_path / "f")
    asked = ["figures", "--from", str(runs), "--out", str(tmp_path / "f"), "--only", "7", "3"]
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert "not computed: sgd, plane train: Expected" in told
    assert "data.npz" in told
    assert "figure 7: missing" in told
    assert not (tmp_path / "f/figure-7.png").exists()
    assert (tmp_path / "f/figure-3.png").exists()
    assert main([*asked[:-2], "7"]) == 2  # nothing that was asked for can be drawn
    capsys.readouterr()
    assert main([*asked, "--recorded-only"]) == 0
    assert "not computed" not in capsys.readouterr().out


def test_what_is_refused_is_refused_before_anything_is_computed(runs: Path, tmp_path: Path, capsys: Any) -> None:
    asked = ["figures", "--from", str(runs), "--out", str(tmp_path / "f")]
    for more, message in (
        (["--only", "13"], "`only`"),
        (["--methods", "sdg"], "sgd"),
        (["--points", "1"], "`points`"),
        (["--examples", "0"], "`examples`"),
        (["--precision", "fp64"], "fp64"),
        (["--device", "tpu"], "tpu"),
        (["--executor", "threads"], "threads"),
    ):
        assert main([*asked, *more]) == 2
        assert message in capsys.readouterr().err
    assert main(["figures", "--from", str(tmp_path / "none"), "--out", str(tmp_path / "f")]) == 2
    assert not (tmp_path / "f").exists()
