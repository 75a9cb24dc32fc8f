"""Trainings, layers and the chips in table rows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report_folders import given_rows, make_folder, make_rows, make_sensitivity, make_training
from report_pages import page_of, table_after

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.report import Report, write_report
from noiserobust.report.figures.sensitivity import draw_sensitivity
from noiserobust.report.figures.style import INK
from noiserobust.report.gather import gather
from noiserobust.report.sections import Figures, training_section
from noiserobust.report.strips import Scale, draw_strip, scale_of
from noiserobust.results.cells import curves
from noiserobust.results.sensitivity import read_sensitivity
from noiserobust.results.store import as_frame


def cells_of(table: str) -> list[list[str]]:
    rows = re.findall(r"<tr>.*?</tr>", table.partition("<tbody>")[2], re.DOTALL)
    return [[re.sub(r"<.*?>", "", c) for c in re.findall(r"<t[dh].*?</t[dh]>", row)] for row in rows]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Report:
    """A report of one method, a training that says little, and a diagnosis of one weight file that fell short."""
    base = tmp_path_factory.mktemp("plain")
    make_folder(base / "results", list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 1)))
    make_training(base / "runs" / "sgd", "SGD", passes=None, held_out=0)
    make_sensitivity(base / "layers", {"a": 1.0, "b": 2.0}, ["SGD"], n_seeds=1, wanted=90.0, reached=False)
    return write_report([base], base / "out")


def test_the_trainings_of_a_rich_report(rich):
    rows = cells_of(table_after(rich.html.read_text(), 'id="trainings"'))
    kept = "best on 10% held out"
    assert rows == [
        [m, "0, 1", "4", "32", "80" if m == "SAM" else "40", "2", kept]
        for m in ("SGD", "SAM", "RWP-0.1", "RWP-0.2", "RWP-0.3")
    ]


def test_a_training_that_counted_nothing_and_held_nothing_out(plain):
    assert cells_of(table_after(plain.html.read_text(), 'id="trainings"')) == [
        ["SGD", "0, 1", "4", "32", "—", "2", "last epoch"]
    ]


def test_trainings_of_methods_without_results_are_left_out(tmp_path):
    make_folder(tmp_path / "results", list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.1,), 1)))
    make_training(tmp_path / "other", "other")
    gathered = gather([tmp_path])
    assert [run.method for run in gathered.trainings] == ["other", "other"]
    assert training_section(gathered, Figures()) is None


def test_passes_that_differ_are_a_range(tmp_path):
    make_folder(tmp_path / "results", list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 1)))
    make_training(tmp_path / "a", "SGD", seeds=(0,), passes=1000)
    make_training(tmp_path / "b", "SGD", seeds=(1,), passes=2000)
    found = training_section(gather([tmp_path]), Figures())
    assert found is not None
    (line,) = found["lines"]
    assert (line["passes"], line["seeds"]) == ("4,000–8,000", [0, 1])


@pytest.mark.parametrize("damage", ["no,table\n1", "epoch\n1\n", "\x00", ""])
def test_damaged_metrics_are_refused_in_one_line(tmp_path, damage):
    make_folder(tmp_path / "results", list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.1,), 1)))
    path = make_training(tmp_path / "runs", "SGD") / "seed0" / "metrics.csv"
    path.write_text(damage)
    with pytest.raises(
        InvalidValueError, match=r"^Expected .*metrics\.csv to hold the epochs of a training, but got: "
    ):
        gather([tmp_path])


def test_a_training_that_has_just_begun_is_left_out(tmp_path):
    make_folder(tmp_path / "results", list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.1,), 1)))
    path = make_training(tmp_path / "runs", "SGD") / "seed0" / "metrics.csv"
    path.write_text(path.read_text().partition("\n")[0] + "\n")
    assert [run.train_seed for run in gather([tmp_path]).trainings] == [1]


@pytest.mark.slow
def test_trainings_that_were_cut_short_say_so(tmp_path):
    make_folder(tmp_path / "e", list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2)))
    metrics = make_training(tmp_path / "t", "SGD", epochs=4) / "seed1" / "metrics.csv"
    for kept, said in ((4, "4"), (3, "3 of 4")):
        metrics.write_text("\n".join(metrics.read_text().splitlines()[: kept + 1]) + "\n")
        section = training_section(gather([tmp_path]), Figures())
        assert [line["epochs"] for line in section["lines"]] == [said]


@pytest.mark.slow
def test_without_a_noisy_level_there_is_no_summary_to_give(tmp_path):
    folder = make_folder(tmp_path / "clean", list(make_rows(["SGD", "SAM"], [0, 1], "gaussian", "sigma", (0.0,), 1)))
    page = page_of(write_report([folder], tmp_path / "out"))
    assert not [a for _, a in page.tags if a.get("id") == "summary"]
    assert "Mean ± noise std" in page.text


def test_trainings_alone_are_no_results(tmp_path):
    make_training(tmp_path / "runs", "SGD")
    with pytest.raises(MissingFileError, match=r"^Expected .* to hold an evaluation beside trainings"):
        gather([tmp_path / "runs"])


def test_the_layers_of_a_rich_report(rich):
    text = rich.html.read_text()
    rows = cells_of(table_after(text[text.index('id="sensitivity"') :], "All layers"))
    gains = {f"layer{i}.conv{j}.weight": 9.0 - 3 * i - j for i in range(3) for j in range(2)}
    order = sorted(gains, key=gains.get, reverse=True)
    assert [(row[0], row[1]) for row in rows] == [(layer, m) for layer in order for m in ("SGD", "RWP-0.2")]
    assert rows[0][2:] == ["19,000", "84.00", "−9.00", "72.00", "+9.00"]
    said = page_of(rich).text
    assert "SGD: to reach 70, keep digital: layer0.conv0.weight (25.0% of the weights). On 4 chips" in said
    assert "the mean is 72.00 (95% interval over trainings 60.00 to 75.00)." in said
    assert "gaussian, sigma = 0.2" in said
    assert "not reached" not in said
    svg = (rich.html.parent / "figures" / "sensitivity.svg").read_text()
    assert "95% interval over trainings" in svg


def test_a_search_that_fell_short_and_one_weight_file(plain):
    said = page_of(plain).text
    assert "SGD: to come near 90, keep digital: a (25.0% of the weights)." in said
    assert "the mean is 64.00: not reached." in said
    svg = (plain.html.parent / "figures" / "sensitivity.svg").read_text()
    assert "one weight file: no interval over trainings" in svg
    assert "95% interval" not in svg


def test_a_diagnosis_named_twice_is_shown_once(tmp_path):
    make_folder(tmp_path / "results", list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.1,), 1)))
    layers = make_sensitivity(tmp_path / "layers", {"a": 1.0})
    gathered = gather([tmp_path, layers, tmp_path / "results" / ".." / "layers"])
    assert len(gathered.sensitivities) == 1


def test_a_diagnosis_that_was_interrupted_is_left_out_and_a_damaged_one_refused(tmp_path):
    make_folder(tmp_path / "results", list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.1,), 1)))
    layers = make_sensitivity(tmp_path / "layers", {"a": 1.0}) / "sensitivity.csv"
    text = layers.read_text()
    layers.write_text(text.replace("30.0", "many"))
    with pytest.raises(InvalidValueError, match=r"^Expected `\w+` in line \d+ of .*sensitivity\.csv to be a finite"):
        gather([tmp_path])
    layers.unlink()
    assert gather([tmp_path]).sensitivities == {}


@pytest.mark.parametrize("name", ["$x$", r"$\frac$", "a_b^c", "<b>&"])
def test_names_of_layers_and_metrics_are_not_formulas(tmp_path, name):
    frame = read_sensitivity(make_sensitivity(tmp_path / "s", {name: 1.0, "b": 2.0}, [name], metric=name)).layers
    svg = draw_sensitivity(frame, [name])["svg"].decode()
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f">lost, {shown}<" in svg
    assert f">{shown}<" in svg


def curve_of(values, level=0.1):
    (curve,) = curves(as_frame(given_rows({("A", seed): {level: row} for seed, row in enumerate(values)})))
    return curve


def test_a_strip_has_a_lane_a_training_and_a_mark_a_chip():
    curve = curve_of([[80.0, 85.0, 90.0], [82.0, 82.0, 84.0]])
    scale = scale_of([curve], 0.1, None)
    assert scale == Scale(80.0, 90.0, None)
    svg = draw_strip(curve, 0.1, scale, "#123456")
    lanes = re.findall(r'<path d="([^"]*)" stroke="#123456"', svg)
    # 236 of 240 units for ten points, from 2 on; chips that are equal are one mark.
    assert [re.findall(r"M([\d.]+) ", lane) for lane in lanes] == [["2", "120", "238"], ["49.2", "96.4"]]
    bars = re.findall(r'<path d="M([\d.]+) (\d+)v8"', svg)
    assert [float(x) for x, _ in bars] == pytest.approx([120.0, 2 + 23.6 * 8 / 3], abs=0.06)
    assert [y for _, y in bars] == ["2", "12"]
    assert 'aria-label="6 chips from 80.00 to 90.00"' in svg
    assert "stroke-dasharray" not in svg


@pytest.mark.parametrize(
    ("spec", "scale"),
    [
        (85.0, Scale(80.0, 90.0, 85.0)),
        (95.0, Scale(80.0, 95.0, 95.0)),  # near enough to be shown
        (72.0, Scale(72.0, 90.0, 72.0)),
        (50.0, Scale(80.0, 90.0, None)),  # out of sight
    ],
)
def test_the_specification_is_a_line_where_it_is_near(spec, scale):
    curve = curve_of([[80.0, 90.0]])
    found = scale_of([curve], 0.1, spec)
    assert found == scale
    assert draw_strip(curve, 0.1, found, "#123456").count("stroke-dasharray") == (scale.spec is not None)


def test_chips_that_are_all_equal_have_a_place():
    curve = curve_of([[80.0, 80.0]])
    scale = scale_of([curve], 0.1, None)
    assert (scale.low, scale.high) == (79.5, 80.5)
    assert "nan" not in draw_strip(curve, 0.1, scale, "#123456")


@pytest.mark.parametrize(("trainings", "lanes"), [(8, 8), (9, 1)])
def test_many_trainings_share_a_lane(trainings, lanes):
    curve = curve_of([[80.0 + seed, 90.0 + seed] for seed in range(trainings)])
    svg = draw_strip(curve, 0.1, scale_of([curve], 0.1, None), INK)
    assert len(re.findall("stroke-opacity", svg)) == lanes
    assert f"{2 * trainings} chips" in svg
    assert INK not in svg  # what is black on white has to be white in the dark


def test_methods_share_the_axis():
    low, high = curve_of([[70.0, 75.0]]), curve_of([[80.0, 90.0]])
    scale = scale_of([low, high], 0.1, None)
    assert (scale.low, scale.high) == (70.0, 90.0)
    np.testing.assert_array_equal(scale.place(np.array([70.0, 80.0, 90.0])), [2.0, 120.0, 238.0])
