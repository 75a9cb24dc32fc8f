"""Honest words: what cannot be told is said, and what would mislead too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_folders import analyses_of, given_rows, make_folder, make_rows, make_training, trained_entries
from report_pages import page_of, table_after

from noiserobust.report import Report, write_report
from noiserobust.report.gather import gather
from noiserobust.report.notes import find_notes

DATA = "d" * 64  # of the evaluations that make_folder writes


@pytest.fixture(scope="module")
def poor(tmp_path_factory) -> Report:
    """A and C with two weight files whose means agree better than their chips allow, B with one and a draw missing."""
    base = tmp_path_factory.mktemp("poor")
    values = {
        ("A", 0): {0.0: [90.0], 0.1: [70.0, 80.0, 90.0]},
        ("A", 1): {0.0: [90.5], 0.1: [70.0, 80.0, 90.1]},
        ("B", 0): {0.0: [91.0], 0.1: [75.0, 85.0]},
        ("C", 0): {0.0: [90.0], 0.1: [60.0, 60.1, 60.2]},
        ("C", 1): {0.0: [90.5], 0.1: [66.0, 66.1, 66.2]},
    }
    (make_folder(base / "poor", given_rows(values), finish=False) / "manifest.json").unlink()
    return write_report([base / "poor"], base / "out", spec=80)


def notes_of(*folders: Path, **criteria) -> str:
    gathered = gather(list(folders))
    return "\n".join(find_notes(gathered, analyses_of(gathered, **criteria)))


def test_one_weight_file_is_not_estimable_wherever_it_stands(poor):
    text = page_of(poor).text
    assert "Seed uncertainty: not estimable (one weight file) for B." in text
    assert "80.00† no interval: one weight file" in text
    assert "With one weight file it is not estimable, which is not the same as 0." in text
    (b,) = [row for row in re.findall(r"<tr>.*?</tr>", table_after(poor.html.read_text(), "All numbers of"), re.DOTALL)
            if ">B<" in row and ">0.1<" in row]  # fmt: skip
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", b)]
    assert cells == ["B", "0.1", "80.00†", "—", "7.07", "—", "—", "1", "2", "0.40"]


def test_a_negative_variance_component_is_zero_and_flagged(poor):
    """The means of A differ by 0.03 points, of which its chips explain 5.8; those of C by 6."""
    table = table_after(poor.html.read_text(), "All numbers of")
    said = {}
    for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL):
        cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)]
        if cells[1:2] == ["0.1"]:
            said[cells[0]] = cells[6]
    assert said == {"A": "0‡", "B": "—", "C": f"{(18 - 0.01 / 3) ** 0.5:.2f}"}
    assert "0‡: the estimate under the root was negative" in page_of(poor).text


def test_too_few_draws_are_counted(poor):
    text = page_of(poor).text
    assert text.count("needs 59 draws") == 6  # quantile and mean of the worst of three methods
    assert "Fewer than 59 draws, of all weight files of a method together, cannot bound it" in text


@pytest.mark.parametrize(("draws", "told"), [(58, False), (59, True)])
def test_enough_draws_tell_of_the_worst(tmp_path, draws, told):
    rows = given_rows({("A", 0): {0.1: [80 + i / 10 for i in range(draws)]}})
    (found,) = analyses_of(gather([make_folder(tmp_path / "a", rows)]))
    row = found.chip_row("A", 0.1)
    assert (row["quantile"] == row["quantile"]) is told
    assert row["draws_needed"] == 59


def test_partial_results_say_what_is_missing_and_are_reported(poor):
    text = page_of(poor).text
    assert (
        "Missing under gaussian (accuracy): B, train seed 0 (B-0.safetensors) has 2 of 3 draws at sigma = 0.1." in text
    )
    assert "Numbers marked † rest on fewer draws or weight files than the others." in text
    assert "80.00 †" in text
    assert "No manifest, so settings and versions are unknown, in" in text
    assert "No manifest in this folder: configuration, versions, seeds and hashes are unknown." in text
    assert "The methods were trained with different numbers of seeds: A 2, B 1 and C 2." in text


def test_a_folder_that_has_just_begun_is_named(tmp_path):
    make_folder(tmp_path / "done", list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2)))
    make_folder(tmp_path / "begun", [], finish=False)
    assert f"{tmp_path / 'begun'} holds a manifest and no finished draw." in notes_of(tmp_path)


@pytest.mark.parametrize(
    ("trainings", "said"),
    [
        ({"SGD": {}, "SAM": {"passes": 20}}, "passes against the least: SGD 1 × and SAM 2 ×."),
        ({"SGD": {}, "SAM": {"batch_size": 48}}, "passes against the least: SGD 1 × and SAM 1.5 ×."),
        ({"SGD": {}, "SAM": {"epochs": 6}}, "passes against the least: SGD 1 × and SAM 1.5 ×."),
        ({"SGD": {}, "SAM": {}}, None),
        ({"SGD": {}, "SAM": {"passes": 20, "batch_size": 16}}, None),
        ({"SGD": {}, "SAM": {"passes": None}}, None),  # not counted: unknown
        ({"SGD": {}, "other": {"passes": 20}}, None),  # not in the results
    ],
)
def test_different_compute_is_said(tmp_path, trainings, said):
    make_folder(tmp_path / "results", list(make_rows(["SGD", "SAM"], [0, 1], "gaussian", "sigma", (0.1,), 2)))
    for label, settings in trainings.items():
        make_training(tmp_path / "runs" / label, label, **settings)
    notes = notes_of(tmp_path / "results", tmp_path / "runs")
    if said is None:
        assert "compute" not in notes
    else:
        assert f"The methods were trained with different compute; forward and backward {said}" in notes


def test_evaluation_on_the_training_data_is_said(tmp_path):
    make_folder(tmp_path / "results", list(make_rows(["SGD", "SAM"], [0, 1], "gaussian", "sigma", (0.1,), 2)))
    make_training(tmp_path / "runs" / "sgd", "SGD", data_sha256=DATA)
    make_training(tmp_path / "runs" / "sam", "SAM")
    make_training(tmp_path / "runs" / "other", "other", data_sha256=DATA)
    notes = notes_of(tmp_path)
    assert "SGD was trained, and the epoch chosen, on the very examples that the numbers are measured on" in notes
    make_training(tmp_path / "runs" / "sam2", "SAM", seeds=(2,), data_sha256=DATA)
    assert "SGD and SAM were trained, and the epoch chosen, on the very examples" in notes_of(tmp_path)


@pytest.mark.slow
def test_numbers_on_training_data_are_of_training_examples(tmp_path):
    values = {
        (f"RWP-{v}", seed): {0.0: [90.0], 0.1: [70.0, 71.0], 0.2: [60.0, 61.0]} for v in (0.1, 0.2) for seed in (0, 1)
    }
    rows = given_rows(values, n_examples=500)
    rows += given_rows({("RWP-0.1", 2): {0.1: [80.0, 81.0]}}, n_examples=400)
    trained = {f"RWP-{v}": {"method": "rwp", "noise": "gaussian", "level": v} for v in (0.1, 0.2)}
    said = {"weights": trained_entries(rows, trained), "data": {"name": "digits", "sha256": DATA, "split": "train"}}
    folder = make_folder(tmp_path / "fitted", rows, configuration=said)
    notes = notes_of(folder)
    assert "The numbers are measured on training examples: they say nothing of other images." in notes
    assert "on the same number of training examples: 400 and 500" in notes
    assert "the best is found by comparing on the training set" in notes
    text = page_of(write_report([folder], tmp_path / "out")).text
    assert "accuracy on 400–500 training examples" in text
    assert "the training examples are a finite sample" in text
    assert "Training-set error" in text
    assert not re.search("(?i)test examples|test[- ]set", text)


def test_evaluation_on_other_data_is_not_suspected(tmp_path):
    make_folder(tmp_path / "results", list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2)))
    make_training(tmp_path / "runs", "SGD")
    assert notes_of(tmp_path) == ""


@pytest.mark.parametrize("data", [None, "digits", [], {"sha256": None}, {"sha256": ["x"]}, 7])
def test_manifests_that_say_little_of_the_data_are_tolerated(tmp_path, data):
    rows = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2))
    make_folder(tmp_path / "results", rows, configuration={"data": data})
    make_training(tmp_path / "runs", "SGD", data_sha256=None)
    assert "very examples" not in notes_of(tmp_path)


def test_a_training_level_chosen_on_the_test_set_is_said(tmp_path):
    rows = list(make_rows(["RWP-0.1", "RWP-0.2"], [0, 1], "gaussian", "sigma", (0.1, 0.2), 2))
    trained = {f"RWP-{v}": {"method": "rwp", "noise": "gaussian", "level": v} for v in (0.1, 0.2)}
    make_folder(tmp_path / "two", rows, configuration={"weights": trained_entries(rows, trained)})
    said = "Where methods differ by their training level, the best is found by comparing on the test set"
    assert said in notes_of(tmp_path / "two")
    one = [r for r in rows if r["method"] == "RWP-0.1"]
    make_folder(tmp_path / "one", one, configuration={"weights": trained_entries(one, trained)})
    assert said not in notes_of(tmp_path / "one")


def test_digital_layers_are_named(tmp_path):
    rows = list(make_rows(["SGD"], [0, 1], "pcm", "t", (1.0,), 2))
    make_folder(tmp_path / "a", rows, configuration={"digital": ["conv1.weight", "fc.weight"]})
    assert "Under pcm some layers stayed digital and without noise, as they cannot be simulated as tiles: " in notes_of(
        tmp_path
    )
    assert "conv1.weight and fc.weight." in notes_of(tmp_path)
