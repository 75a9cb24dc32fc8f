"""Trained at one level, used at another."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from report_folders import analyses_of, given_rows, make_folder, make_training, trained_entries
from report_pages import table_after

from noiserobust.report.figures.matrix import draw_matrix
from noiserobust.report.gather import gather
from noiserobust.report.text import to_json

MEANS = {  # by training level, at the test levels 0, 0.1 and 0.2
    "sgd": (95.0, 70.0, 40.0),
    "low": (94.0, 88.0, 60.0),
    "high": (90.0, 86.0, 80.0),
}
LEVELS = (0.0, 0.1, 0.2)
TRAINED = {
    "sgd": {"method": "sgd"},
    "high": {"method": "rwp", "noise": "gaussian", "level": 0.2},
    "low": {"method": "rwp", "noise": "gaussian", "level": 0.1},
}


def rows_of(means=MEANS, **changes):
    values = {
        (method, seed): {v: [mean] if v == 0 else [mean - 1, mean + 1] for v, mean in zip(LEVELS, row, strict=True)}
        for method, row in means.items()
        for seed in (0, 1)
    }
    return given_rows(values, **changes)


def mismatches_of(folder, rows, trained, **configuration):
    make_folder(folder, rows, configuration={"weights": trained_entries(rows, trained), **configuration})
    return analyses_of(gather([folder]))[0].mismatches


def test_the_matrix_is_that_of_the_manifests(tmp_path):
    (found,) = mismatches_of(tmp_path / "a", rows_of(), TRAINED)
    assert found.trained == "rwp, gaussian noise"
    assert found.rows == (("sgd", 0.0), ("low", 0.1), ("high", 0.2))
    assert found.columns == LEVELS
    np.testing.assert_allclose(found.means, [MEANS["sgd"], MEANS["low"], MEANS["high"]])
    assert found.best == (0, 1, 2)


def test_the_matrix_is_that_of_the_training_folders(tmp_path):
    rows = rows_of()
    make_folder(tmp_path / "results", rows)
    for label, how in TRAINED.items():
        noise = {"name": how.get("noise"), "level": how.get("level")}
        make_training(tmp_path / "runs" / label, label, method={"name": how["method"], "noise": noise})
    (found,) = analyses_of(gather([tmp_path]))[0].mismatches
    (same,) = mismatches_of(tmp_path / "other", rows, TRAINED)
    assert (found.trained, found.rows, found.columns, found.best) == (same.trained, same.rows, same.columns, same.best)
    np.testing.assert_array_equal(found.means, same.means)


def test_what_the_weights_say_counts_more_than_a_training_folder(tmp_path):
    rows = rows_of()
    make_folder(tmp_path / "results", rows, configuration={"weights": trained_entries(rows, TRAINED)})
    for label in ("low", "high"):
        make_training(
            tmp_path / "runs" / label, label, method={"name": "rwp", "noise": {"name": "gaussian", "level": 0.7}}
        )
    (found,) = analyses_of(gather([tmp_path]))[0].mismatches
    assert found.rows == (("sgd", 0.0), ("low", 0.1), ("high", 0.2))


def test_methods_that_differ_in_more_than_the_level_are_not_one_matrix(tmp_path):
    make_folder(tmp_path / "results", rows_of())
    for label, level, share in (("low", 0.1, 1.0), ("high", 0.2, 0.5)):
        method = {"name": "rwp", "noise": {"name": "gaussian", "level": level}, "perturbed_weight": share}
        make_training(tmp_path / "runs" / label, label, method=method)
    assert analyses_of(gather([tmp_path]))[0].mismatches == ()


@pytest.mark.parametrize("method", [None, "rwp", {}, {"name": "rwp", "noise": "gaussian"}])
def test_trainings_that_say_little_of_their_method_are_tolerated(tmp_path, method):
    rows = [r for r in rows_of() if r["method"] != "sgd"]
    rows += [{**r, "method": "odd"} for r in rows if r["method"] == "low"]
    make_folder(tmp_path / "results", rows, configuration={"weights": trained_entries(rows, TRAINED)})
    make_training(tmp_path / "runs", "odd", method=method)
    (found,) = analyses_of(gather([tmp_path]))[0].mismatches
    assert ("low", 0.1) in found.rows


def test_a_noise_without_a_name_is_gaussian(tmp_path):
    make_folder(tmp_path / "results", rows_of())
    for label, level in (("low", 0.1), ("high", 0.2)):
        method = {"name": "rwp", "noise": {"name": None, "level": level}, "level_range": None}
        make_training(tmp_path / "runs" / label, label, method=method)
    (found,) = analyses_of(gather([tmp_path]))[0].mismatches
    assert found.trained == "rwp, gaussian noise"
    assert found.rows == (("low", 0.1), ("high", 0.2))  # of sgd nothing is known


@pytest.mark.parametrize("source", ["manifest", "training"])
def test_training_at_levels_of_a_range_is_not_training_without_noise(tmp_path, source):
    means = {**MEANS, "range": (93.0, 89.0, 70.0)}
    rows = rows_of(means)
    known = {**TRAINED, "range": {"method": "rwp"}} if source == "manifest" else TRAINED
    make_folder(tmp_path / "results", rows, configuration={"weights": trained_entries(rows, known)})
    if source == "training":
        method = {"name": "rwp", "noise": {"name": "gaussian", "level": 0.1}, "level_range": [0.0, 0.2]}
        make_training(tmp_path / "runs", "range", method=method)
    (found,) = analyses_of(gather([tmp_path]))[0].mismatches
    assert [name for name, _ in found.rows] == ["sgd", "low", "high"]


@pytest.mark.parametrize(
    "trained",
    [
        {},
        {"sgd": {"method": "sgd"}, "low": TRAINED["low"]},
        {**TRAINED, "high": {**TRAINED["high"], "level": 0.1}},
        {**TRAINED, "high": {**TRAINED["high"], "noise": "laplace"}},
        {**TRAINED, "high": {**TRAINED["high"], "method": "arwp"}},
        {**TRAINED, "high": {**TRAINED["high"], "level": True}},
        {**TRAINED, "high": {**TRAINED["high"], "level": "0.2"}},
        {**TRAINED, "high": "rwp"},
        {**TRAINED, "high": {"method": 7, "noise": "gaussian", "level": 0.2}},
    ],
)
def test_without_two_levels_of_one_noise_there_is_no_matrix(tmp_path, trained):
    assert mismatches_of(tmp_path / "a", rows_of(), trained) == ()


@pytest.mark.parametrize("name", ["sam", "rwp", "arwp"])
def test_what_differs_in_more_than_the_level_stands_for_no_level(tmp_path, name):
    (found,) = mismatches_of(tmp_path / "a", rows_of(), {**TRAINED, "sgd": {"method": name}})
    assert found.rows == (("low", 0.1), ("high", 0.2))


def test_a_loss_has_no_matrix(tmp_path):
    assert mismatches_of(tmp_path / "a", rows_of(metric="loss"), TRAINED) == ()


def test_the_best_of_a_column_is_among_those_that_are_there(tmp_path):
    rows = [r for r in rows_of() if (r["method"], r["level"]) != ("high", 0.2)]
    rows += [{**r, "level": 0.5} for r in rows if r["method"] == "sgd" and r["level"] == 0.1]
    rows = [r for r in rows if (r["method"], r["level"]) != ("sgd", 0.1)]
    (found,) = mismatches_of(tmp_path / "a", rows, {k: v for k, v in TRAINED.items() if k != "sgd"}, levels=[])
    assert found.columns == (0.0, 0.1, 0.2, 0.5)
    assert np.isnan(found.means[1, 2])
    assert np.isnan(found.means[:, 3]).all()
    assert found.best == (0, 0, 0, None)  # nobody is the best where nobody was
    (noise,) = to_json(analyses_of(gather([tmp_path])), [])["noises"]
    (matrix,) = noise["training_levels"]
    assert matrix["best"] == ["low", "low", "low", None]
    assert matrix["means"][1][2:] == [None, None]
    assert [row["level"] for row in matrix["rows"]] == [0.1, 0.2]
    drawn = draw_matrix(found.means, found.best, ["low", "high"], list("abcd"), ("x", "y"), (4, 3))["svg"].decode()
    assert drawn.count("stroke: #d55e00") == 3


def test_the_page_frames_the_best_of_each_column(rich):
    numbers = json.loads((rich.html.parent / "summary.json").read_text())
    text = rich.html.read_text()
    assert text.count('<table class="matrix">') == len(numbers["noises"]) == 2
    for noise in numbers["noises"]:
        (matrix,) = noise["training_levels"]
        means = np.array(matrix["means"])
        assert [row["level"] for row in matrix["rows"]] == [0, 0.1, 0.2, 0.3]
        assert matrix["best"] == [matrix["rows"][i]["method"] for i in means.argmax(axis=0)]
        table = table_after(text[text.index(f"{noise['noise']}, training level by test level") :], "<table")
        lines = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table)
        assert [name for name, _ in lines] == [f"{r['level']:g} ({r['method']})" for r in matrix["rows"]]
        cells = [re.findall(r'<td class="(best|)" style="--shade:[\d.]+">([\d.]+)', line) for _, line in lines]
        assert [[value for _, value in row] for row in cells] == [[f"{v:.2f}" for v in row] for row in means.tolist()]
        framed = [[mark == "best" for mark, _ in row] for row in cells]
        np.testing.assert_array_equal(framed, np.arange(4)[:, None] == means.argmax(axis=0))
