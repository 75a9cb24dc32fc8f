"""What is recorded of a sweep is what its evaluations and trainings have found."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml

from noiserobust.cli import main
from noiserobust.errors import InvalidValueError
from noiserobust.report.gather import gather

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
GRID = {
    "base": {"model": "digits-mlp", "data": "digits", "epochs": 1, "batch_size": 256, "select": {"draws": 1}},
    "grid": [{"method.name": "sgd"}, {"method.name": "rwp", "method.noise.level": 0.2}],
    "seeds": [0, 1],
    "evaluate": {
        "gaussian": {"noise": "gaussian", "levels": [0, 0.1], "draws": 2},
        "laplace": {"noise": "laplace", "levels": [0.1], "draws": 2},
    },
}


def load(name: str) -> ModuleType:
    """Return a script as a module; its neighbours are found as when it is run."""
    path = EXPERIMENTS / f"{name}.py"
    neighbours = [str(path.parent), str(EXPERIMENTS)]
    sys.path[:0] = neighbours
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where dataclasses look for their module
        spec.loader.exec_module(module)
    finally:
        del sys.path[: len(neighbours)]
    return module


record, trained = load("record"), load("trained")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, rendering_nothing) -> Path:
    folder = tmp_path_factory.mktemp("record")
    (folder / "grid.yaml").write_text(yaml.safe_dump(GRID))
    with rendering_nothing():
        assert main(["sweep", "--config", str(folder / "grid.yaml"), "--out", str(folder / "out")]) == 0
    return folder


def recorded(swept: Path, results: Path, *more: str) -> Path:
    record.main([str(swept / "out"), str(results), "--config", str(swept / "grid.yaml"), *more])
    return results


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_draws_are_those_of_the_sweep_and_weights_stay_behind(swept, tmp_path):
    results = recorded(swept, tmp_path / "results")
    order = ["method", "train_seed", "noise", "level", "draw"]
    joint = pd.read_csv(swept / "out/grid/draws.csv").sort_values(order).reset_index(drop=True)
    mine = gather([results]).draws.sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(mine[joint.columns], joint, check_dtype=False)
    assert {p.name for p in results.rglob("*") if p.is_file()} == {
        *("draws.csv", "summary.csv", "manifest.json", "metrics.csv"),
    }
    weights = json.loads((results / "evaluate/gaussian/manifest.json").read_text())["configuration"]["weights"]
    assert [(w["method"], w["train_seed"]) for w in weights] == [(m, s) for m in ("sgd", "rwp 0.2") for s in (0, 1)]


def test_trainings_are_known_to_the_report(swept, tmp_path):
    gathered = gather([recorded(swept, tmp_path / "results")])
    assert {(run.method, run.train_seed) for run in gathered.trainings} == {
        (m, s) for m in ("sgd", "rwp 0.2") for s in (0, 1)
    }
    assert gathered.strangers == ()


@pytest.mark.slow
def test_it_does_not_matter_what_is_recorded_first_or_again(swept, tmp_path):
    whole = files(recorded(swept, tmp_path / "whole"))
    parts = tmp_path / "parts"
    recorded(swept, parts, "--seeds", "1")
    recorded(swept, parts, "--seeds", "0", "1")
    recorded(swept, parts)
    again = files(parts)
    assert whole.keys() == again.keys()
    for name in whole:
        if name.endswith(".csv"):  # manifests say when the first of their evaluations was made
            assert whole[name] == again[name], name


def test_some_evaluations_can_be_left_out(swept, tmp_path):
    results = recorded(swept, tmp_path / "results", "--evaluations", "laplace")
    assert [p.name for p in (results / "evaluate").iterdir()] == ["laplace"]


def test_what_an_interrupted_recording_has_left_does_not_count(swept, tmp_path):
    import shutil

    results = recorded(swept, tmp_path / "results")
    before = files(results)
    left = results / "evaluate/.gaussian.new"
    shutil.copytree(results / "evaluate/gaussian", left)
    draws = (left / "draws.csv").read_text().splitlines(keepends=True)
    (left / "draws.csv").write_text("".join(draws[:-3]))
    assert files(recorded(swept, results)) == before


def test_other_weights_of_the_same_job_are_refused(swept, tmp_path):
    results = recorded(swept, tmp_path / "results")
    manifest = results / "evaluate/gaussian/manifest.json"
    content = json.loads(manifest.read_text())
    content["configuration"]["weights"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    with pytest.raises(InvalidValueError, match="to have the weights recorded, but it has others"):
        recorded(swept, results)


def test_what_was_made_otherwise_is_refused(swept, tmp_path):
    results = recorded(swept, tmp_path / "results")
    manifest = results / "evaluate/gaussian/manifest.json"
    content = json.loads(manifest.read_text())
    content["configuration"]["precision"] = "bf16"
    manifest.write_text(json.dumps(content))
    before = files(results)
    with pytest.raises(InvalidValueError, match="differs in \\['precision'\\]"):
        recorded(swept, results)
    assert files(results) == before


def test_each_finished_training_has_its_last_weights_once(swept):
    files = trained.last(swept / "out", [swept / "grid.yaml", swept / "grid.yaml"])
    assert len(files) == len(set(files)) == len(GRID["grid"]) * len(GRID["seeds"])
    assert all(file.is_file() for file in files)
