"""What trainings have left behind is read, and what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import noiserobust as nr
from noiserobust.results.trainings import read_trainings

COLUMNS = "epoch,steps,train_loss,held_out_accuracy,held_out_perturbed_accuracy,best,seconds,passes"
EPOCHS = ["0,10,2.3,50.0,,True,1.5,20", "1,20,1.2,70.0,65.5,False,2.25,40"]


def training(folder: Path, seed: str = "0", lines: list[str] | None = None, columns: str = COLUMNS) -> Path:
    """Write the metrics of one training."""
    path = folder / f"seed{seed}" / "metrics.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([columns, *(EPOCHS if lines is None else lines)]) + "\n", encoding="utf-8")
    return path


def manifest(folder: Path, **configuration: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    path.write_text(json.dumps({"configuration": configuration}), encoding="utf-8")
    return path


def test_a_training_is_its_configuration_and_its_epochs(tmp_path: Path) -> None:
    manifest(tmp_path, method={"name": "rwp", "sigma": 0.02}, epochs=2)
    training(tmp_path)
    (run,) = read_trainings(tmp_path)
    assert (run.method, run.train_seed, run.folder) == ("rwp", 0, tmp_path / "seed0")
    assert run.configuration == {"method": {"name": "rwp", "sigma": 0.02}, "epochs": 2}
    assert run.seconds == 3.75
    assert run.passes == 40
    assert run.metrics["held_out_perturbed_accuracy"].isna().tolist() == [True, False]
    assert run.metrics["best"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("configuration", "name"),
    [
        ({"label": "ours", "method": {"name": "rwp"}}, "ours"),
        ({"label": None, "method": {"name": "rwp"}}, "rwp"),
        ({"method": "sgd"}, "runs"),
        ({}, "runs"),
    ],
    ids=str,
)
def test_its_name_is_its_label_or_its_method_or_its_folder(
    tmp_path: Path, configuration: dict[str, object], name: str
) -> None:
    manifest(tmp_path / "runs", **configuration)
    training(tmp_path / "runs")
    assert [run.method for run in read_trainings(tmp_path / "runs")] == [name]


def test_trainings_come_in_the_order_of_their_seeds(tmp_path: Path) -> None:
    manifest(tmp_path, label="sgd")
    for seed in ("10", "2", "0"):
        training(tmp_path, seed)
    assert [run.train_seed for run in read_trainings(tmp_path)] == [0, 2, 10]


def test_what_is_no_finished_training_is_left_out(tmp_path: Path) -> None:
    manifest(tmp_path, label="sgd")
    training(tmp_path, "0", [])  # no epoch
    training(tmp_path, "-old")
    training(tmp_path, "")
    (tmp_path / "seed3").mkdir()
    training(tmp_path / "other", "4")
    assert read_trainings(tmp_path) == []


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (COLUMNS.removesuffix(",passes"), [e.rpartition(",")[0] for e in EPOCHS]),
        (COLUMNS, [EPOCHS[0] + "", "1,20,1.2,70.0,65.5,False,2.25,"]),
    ],
    ids=["no column", "empty"],
)
def test_trainings_that_did_not_count_passes_have_none(tmp_path: Path, columns: str, lines: list[str]) -> None:
    manifest(tmp_path, label="sgd")
    training(tmp_path, "0", lines, columns)
    assert read_trainings(tmp_path)[0].passes is None


@pytest.mark.parametrize("content", ["[]", "{}", '{"configuration": 3}', '{"configuration": null}'])
def test_a_manifest_without_a_configuration_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(
        nr.NoiseRobustError, match=r"Expected .*manifest\.json to hold a configuration, but it has none"
    ):
        read_trainings(tmp_path)


def test_a_folder_without_a_manifest_and_one_that_is_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected a file .*manifest\.json, but there is none"):
        read_trainings(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(nr.NoiseRobustError, match=r"Expected .*manifest\.json to hold JSON, but got"):
        read_trainings(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00\x01",
        b"epoch,steps\n0,1\n",
        (COLUMNS + "\n0,ten,2.3,50.0,,True,1.5,20\n").encode(),
        (COLUMNS + "\n0,10,2.3,50.0,,True,1.5,many\n").encode(),
        (COLUMNS + "\n0,10,2.3,50.0,,True,1.5,20\n1,2,3,4,5,6,7,8,9,10\n").encode(),
    ],
    ids=["empty", "binary", "columns", "text", "passes", "ragged"],
)
def test_damaged_epochs_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    manifest(tmp_path, label="sgd")
    training(tmp_path).write_bytes(content)
    with pytest.raises(nr.NoiseRobustError, match=r"Expected .*metrics\.csv to hold the epochs of a training, but got"):
        read_trainings(tmp_path)
