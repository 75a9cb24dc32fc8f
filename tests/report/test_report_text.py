"""The numbers in files: JSON, CSV, LaTeX and Markdown say the same."""

from __future__ import annotations

import html
import io
import json
import re

import pandas as pd
import pytest
from report_folders import analyses_of, given_rows, make_folder, make_rows

from noiserobust.report.gather import gather
from noiserobust.report.text import to_json, to_latex
from noiserobust.report.verdict import make_verdict

TABLES = ("summary", "chips", "comparison", "tolerance")


def strict(text: str):
    """Read JSON that has no NaN and no Infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", TABLES)
def test_json_is_equal_to_the_tables(rich, name):
    out = rich.html.parent
    numbers = strict((out / "summary.json").read_text(encoding="utf-8"))
    assert [(n["noise"], n["target"], n["spec"], n["baseline"]) for n in numbers["noises"]] == [
        ("gaussian", 0.2, 75.0, "SGD"),
        ("pcm-nandakumar-2019", 86400.0, 75.0, "SGD"),
    ]
    table = pd.read_csv(out / f"{name}.csv")
    assert len(table)
    said = pd.DataFrame([row for noise in numbers["noises"] for row in noise[name]])
    assert list(said) == list(table)
    said = said.astype(table.dtypes.to_dict())
    key = ["method", "noise"] + (["level"] if "level" in table else [])
    said, table = (frame.sort_values(key, ignore_index=True) for frame in (said, table))
    pd.testing.assert_frame_equal(said, table, check_dtype=False, rtol=1e-14)


def test_json_has_the_headlines_and_notes_of_the_page(rich):
    numbers = strict((rich.html.parent / "summary.json").read_text(encoding="utf-8"))
    text = rich.html.read_text(encoding="utf-8")
    for noise in numbers["noises"]:
        assert f'<p class="headline">{html.escape(noise["headline"])}</p>' in text
    assert numbers["notes"]
    assert all(f"<li>{html.escape(note)}</li>" in text for note in numbers["notes"])
    assert any("different compute" in note for note in numbers["notes"])


def test_json_says_null_for_what_is_not_known_and_inf_for_what_is_beyond(tmp_path):
    rows = given_rows({("A", 0): {0.0: [90.0], 0.1: [89.0, 89.5]}, ("B", 1): {0.0: [90.0], 0.1: [60.0, 61.0]}})
    found = analyses_of(gather([make_folder(tmp_path / "a", rows)]))
    (noise,) = strict(json.dumps(to_json(found, []), allow_nan=False))["noises"]
    a, b = noise["tolerance"]
    assert a["tolerable"] == "inf"
    assert b["tolerable"] == pytest.approx(0.1 * 5 / 29.5)
    assert noise["comparison"][0]["difference"] is None
    assert noise["chips"][0]["quantile"] is None
    assert noise["summary"][0]["seed_std"] is None


def test_csv_and_json_without_a_verdict(tmp_path):
    rows = list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.0,), 1))
    (noise,) = to_json(analyses_of(gather([make_folder(tmp_path / "a", rows)])), [])["noises"]
    assert noise["headline"] is None
    assert noise["target"] is None
    assert len(noise["summary"]) == 1


def check_latex(text: str) -> None:
    """Check that braces, environments, dollars and columns of LaTeX tables are those of sound ones."""
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    for line in text.splitlines()[1:]:
        bare = re.sub(r"\\[{}$&%#_]", "", line)
        assert bare.count("$") % 2 == 0
        assert bare.count("{") == bare.count("}")
        assert "%" not in bare
        assert "#" not in bare
    for table in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.DOTALL):
        columns = len(re.match(r"\\begin\{tabular\}\{([lr]+)\}", table)[1])
        rules = [table.index(f"\\{rule}") for rule in ("toprule", "midrule", "bottomrule")]
        assert rules == sorted(rules)
        for line in table.splitlines():
            if line.endswith(r"\\"):
                spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
                assert re.sub(r"\\&", "", line).count("&") + 1 + spanned == columns


def test_latex_is_sound(rich):
    text = (rich.html.parent / "summary.tex").read_text(encoding="utf-8")
    assert text.startswith("% Needs \\usepackage{booktabs}.\n")
    check_latex(text)
    assert text.isascii()
    assert len(set(re.findall(r"\\label\{(.*?)\}", text))) == text.count("\\label") == 4
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    assert commands <= {
        "usepackage", "begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule",
        "multicolumn", "pm", "mathbf", "sigma", "textless", "textgreater", "dagger", "mbox",
    }  # fmt: skip


def test_latex_of_what_is_missing_is_sound(tmp_path):
    values = {("A", 0): {0.0: [90.0], 0.1: [70.0, 80.0, 90.0]}, ("B", 1): {0.1: [75.0, 85.0]}, ("C", 0): {0.2: [7.0]}}
    folder = make_folder(tmp_path / "a", given_rows(values), finish=False)
    text = to_latex(analyses_of(gather([folder])))
    check_latex(text)
    assert text.isascii()
    assert "missing" in text
    assert r"^{\dagger}" in text
    assert "no common train seed" in text


def test_markdown_is_a_table_a_block(rich):
    text = (rich.html.parent / "summary.md").read_text(encoding="utf-8")
    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    assert len(blocks) == 6  # levels, summary and differences of two noises
    for head, rule, *rows in blocks:
        assert set(rule) == set("|-: ")
        assert rows
        assert {line.replace("\\|", "").count("|") for line in (head, rule, *rows)} == {head.count("|")}


def test_markdown_has_the_verdict(rich):
    text = (rich.html.parent / "summary.md").read_text(encoding="utf-8").replace("\\", "")
    results = rich.html.parent.parent
    found = analyses_of(gather([results / "results", results / "runs"]), spec=75, target=["0.2", "1d"], baseline="SGD")
    for analysis in found:
        verdict = make_verdict(analysis)
        assert verdict is not None
        assert verdict.headline in text
        for line in verdict.lines:
            assert all(part[0] in text for part in line.parts.values())


def test_csv_is_read_back_as_it_was(rich):
    text = (rich.html.parent / "tolerance.csv").read_text(encoding="utf-8")
    read = pd.read_csv(io.StringIO(text))
    assert read["drop"].tolist() == [5.0] * 10
