"""Methods against each other, without a page."""

from __future__ import annotations

import csv
import io
import json
import math

import pandas as pd
import pytest
from report_folders import given_rows, make_folder, make_rows

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.report.compare import compare_folders, write_comparison
from noiserobust.report.verdict import format_p, format_signed
from noiserobust.results.schema import COMPARISON_COLUMNS

FORMATS = ("text", "markdown", "latex", "csv", "json")
RUNS = {0: 80.0, 1: 81.0, 2: 82.5}


def rows_of(method, shift=0.0, seeds=RUNS, **changes):
    values = {(method, s): {0.1: [RUNS[s] + shift - 1, RUNS[s] + shift + 1 + s / 10]} for s in seeds}
    return given_rows(values, **changes)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """SGD against two others, under two noises."""
    base = tmp_path_factory.mktemp("compare")
    methods = ["SGD", "SAM", "a_b|c"]
    make_folder(base / "g", list(make_rows(methods, [0, 1, 2], "gaussian", "sigma", (0.0, 0.1), 3)))
    make_folder(base / "p", list(make_rows(methods, [0, 1, 2], "pcm", "t", (3600.0,), 3)))
    return compare_folders([base], "SGD")


@pytest.fixture(scope="module")
def expected(found):
    return pd.concat([a.comparison for a in found.analyses], ignore_index=True)


def test_csv_is_the_comparison(found, expected):
    read = pd.read_csv(io.StringIO(write_comparison(found, "csv")))
    assert list(read) == COMPARISON_COLUMNS
    assert len(read) == 8  # two methods, two levels, a time and the clean number that it borrows
    pd.testing.assert_frame_equal(read, expected, check_dtype=False, rtol=1e-14)


def test_json_is_the_comparison(found, expected):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads(write_comparison(found, "json"), parse_constant=refuse)
    pd.testing.assert_frame_equal(pd.DataFrame(read), expected, check_dtype=False, rtol=1e-14)


def test_text_markdown_and_latex_hold_every_number(found, expected):
    texts = {kind: write_comparison(found, kind) for kind in ("text", "markdown", "latex")}
    assert texts["text"].startswith("accuracy under gaussian\nmethod")
    for row in expected.to_dict("records"):
        difference = format_signed(row["difference"], "accuracy")
        for kind, text in texts.items():
            plain = text.replace("−", "-").replace("\\", "")
            assert difference.replace("−", "-") in plain, kind
            assert format_p(row["p_holm"]).replace("—", "--" if kind == "latex" else "—") in plain, kind
    noisy = expected[expected["level"] > 0]
    low, high = (format_signed(noisy[f"difference_{end}"].iloc[0], "accuracy") for end in ("low", "high"))
    assert f"{low} to {high}" in texts["text"]
    assert f"$[{low}, {high}]$".replace("−", "-") in texts["latex"]
    assert all("Holm over methods" in text for text in texts.values())


def test_text_is_in_columns(found):
    for block in write_comparison(found, "text").split("\n\n"):
        head, *rows = block.splitlines()[1:-1]
        assert len({len(line) for line in (head, *rows)}) == 1


def test_markdown_and_latex_are_tables(found):
    markdown, latex = write_comparison(found, "markdown"), write_comparison(found, "latex")
    lines = [line.replace("\\|", "") for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {7}
    assert "| a\\_b\\|c |" in markdown
    assert latex.count("\\toprule") == latex.count("\\bottomrule") == latex.count("\\end{table}") == 2
    rows = [line for line in latex.splitlines() if line.startswith(("SAM &", r"a\_b\textbar{}c &"))]
    assert len(rows) == 8
    assert {row.count("&") for row in rows} == {5}
    assert latex.isascii()


def test_folders_apart_are_methods_of_their_own(tmp_path):
    one, two = make_folder(tmp_path / "one", rows_of("SGD")), make_folder(tmp_path / "two", rows_of("SGD", 2.0))
    with pytest.raises(InvalidValueError, match=r"train seed 0 has other weights|agree where they hold the same draw"):
        compare_folders([one, two])
    (found,) = compare_folders([one, two], apart=True).analyses
    (row,) = found.comparison.to_dict("records")
    assert (row["method"], row["baseline"], row["n_seeds"]) == ("two", "one", 3)
    assert row["difference"] == pytest.approx(2.0)
    (turned,) = compare_folders([one, two], "two", apart=True).analyses
    assert turned.comparison["difference"].tolist() == pytest.approx([-2.0])


def test_folders_apart_of_one_name_and_of_several_methods(tmp_path):
    one = make_folder(tmp_path / "a" / "x", rows_of("SGD"))
    two = make_folder(tmp_path / "b" / "x", rows_of("SGD", 1.0) + rows_of("SAM", 3.0))
    (found,) = compare_folders([one, two], apart=True).analyses
    assert dict(zip(found.comparison["method"], found.comparison["difference"].round(6), strict=True)) == {
        f"{two}: SGD": 1.0,
        f"{two}: SAM": 3.0,
    }


def test_a_folder_named_twice_is_no_second_method(tmp_path):
    one, two = make_folder(tmp_path / "one", rows_of("SGD")), make_folder(tmp_path / "two", rows_of("SGD", 2.0))
    with pytest.raises(InvalidValueError, match="two methods or more"):
        compare_folders([one, tmp_path / "two" / ".." / "one"], apart=True)
    (found,) = compare_folders([one, two, one], apart=True).analyses
    (row,) = found.comparison.to_dict("records")
    assert (row["method"], row["n_draws"], row["n_seeds"]) == ("two", 2, 3)


def test_chips_on_some_of_the_examples_beside_chips_on_all(tmp_path):
    one = make_folder(tmp_path / "one", rows_of("SGD"))
    sampled = [{**r, "n_examples": 500, "of_examples": 10_000, "sampling_std": 0.5} for r in rows_of("SGD", 2.0)]
    two = make_folder(tmp_path / "two", sampled, configuration={"until": 1.0})
    (found,) = compare_folders([one, two], apart=True).analyses
    (row,) = found.comparison.to_dict("records")
    assert row["difference"] == pytest.approx(2.0, abs=0.2)
    assert row["over"] == "train seeds"
    assert math.isnan(row["improvement"])  # single draws say nothing


def test_one_training_each_is_said_to_be_these_weights(tmp_path):
    folder = make_folder(tmp_path / "a", rows_of("SGD", seeds=[0]) + rows_of("SAM", 2.0, seeds=[0]))
    text = write_comparison(compare_folders([folder]), "text")
    assert "Where methods share one train seed only, over its chips: of these weights alone." in text


def test_no_train_seed_in_common_is_said(tmp_path):
    folder = make_folder(tmp_path / "a", rows_of("SGD", seeds=[0]) + rows_of("SAM", 2.0, seeds=[1]))
    found = compare_folders([folder])
    for kind in ("text", "markdown", "latex"):
        assert "no common train seed" in write_comparison(found, kind)
    (row,) = csv.DictReader(io.StringIO(write_comparison(found, "csv")))
    assert (row["difference"], row["n_seeds"]) == ("", "0")
    assert json.loads(write_comparison(found, "json"))[0]["difference"] is None


def test_what_cannot_be_compared_is_refused(tmp_path):
    one = make_folder(tmp_path / "one", rows_of("SGD"))
    with pytest.raises(
        InvalidValueError, match=r"^Expected two methods or more to compare, but got SGD alone; .*--apart"
    ):
        compare_folders([one])
    make_folder(tmp_path / "other", rows_of("SAM", noise="laplace", level_name="b"))
    with pytest.raises(InvalidValueError, match=r"^Expected methods that were evaluated under the same noise as SGD"):
        compare_folders([one, tmp_path / "other"])
    with pytest.raises(InvalidValueError, match=r"^Expected `baseline` to be one of 'SAM', 'SGD', but got 'sgdd'"):
        compare_folders([one, tmp_path / "other"], "sgdd")
    for apart in (False, True):
        with pytest.raises(MissingFileError, match=r"^Expected .*none"):
            compare_folders([one, tmp_path / "none"], apart=apart)


def test_what_is_not_compared_and_what_to_know_is_noted(tmp_path):
    make_folder(tmp_path / "g", rows_of("SGD") + rows_of("SAM", 2.0))
    make_folder(tmp_path / "l", rows_of("SAM", noise="laplace", level_name="b"))
    found = compare_folders([tmp_path])
    assert [a.table.noise for a in found.analyses] == ["gaussian"]
    assert any(note.startswith("Nothing is compared under laplace") for note in found.notes)
    cut = make_folder(tmp_path / "cut" / "g", (rows_of("SGD") + rows_of("SAM", 2.0))[:-1], finish=False)
    assert any("has 1 of 2 draws at sigma = 0.1" in note for note in compare_folders([cut]).notes)
