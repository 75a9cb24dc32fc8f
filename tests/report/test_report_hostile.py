"""Names that want more than to be read: on the page, in files for programs, and as names of files."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from browser import OpenPage
from report_folders import make_folder, make_rows, make_sensitivity, make_training, trained_entries
from report_pages import page_of
from test_report_text import check_latex

from noiserobust.report import Report, write_report
from noiserobust.report.compare import Compared, compare_folders, write_comparison

pytestmark = pytest.mark.slow  # a page with all these names takes twenty seconds

LONG = "long " * 40 + "end"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</title><svg onload=alert(1)>",
    "_",
    "%",
    "&",
    "$x$",
    r"\input{/etc/passwd}",
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "+1",
    "-1",
    "[x](javascript:alert(1))",
    "{{7*7}}",
    "{% raw %}",
    'url(#a) id="b',
    LONG.strip(),
    "日本語",
]
FORMULA = ("=", "+", "-", "@", "\t", "\r")
NOISE = "<b onclick=alert(1)>../../=1+1|$y$"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report in which methods, weights, noises, metrics, levels, layers, folders and settings have such names."""
    base = tmp_path_factory.mktemp("hostile")
    results = base / "<img src=x onerror=alert(1)>{{7*7}}"
    rows = list(make_rows(HOSTILE, [0, 1], NOISE, "=<i>$s$", (0.1,), 1))
    trained = {m: {"method": "<u>", "noise": "<u>", "level": 0.1 * (1 + i % 2)} for i, m in enumerate(HOSTILE[:3])}
    settings = {"note": HOSTILE, **{name: name for name in HOSTILE}, "weights": trained_entries(rows, trained)}
    make_folder(results, rows, configuration=settings)
    other = list(make_rows(HOSTILE[:2], [0, 1], "=1+1", "b", (0.1,), 1))
    make_folder(base / "other", [{**r, "metric": "<s>loss"} for r in other])
    make_training(base / "runs", HOSTILE[0], method={"name": HOSTILE[1], "noise": HOSTILE[2]})
    make_sensitivity(base / "=layers", dict.fromkeys(HOSTILE, 1.0), HOSTILE[:2], noise=NOISE, wanted=1.0)
    return write_report([base], base / "out", baseline=HOSTILE[1])


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_page_shows_names_as_text(hostile):
    page = page_of(hostile)
    assert not {"img", "b", "i", "u", "s", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert [a for tag, a in page.tags if tag == "script"] == [{}]
    assert len([tag for tag, _ in page.tags if tag in ("style", "title")]) == 2
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not str(attributes.get("href", "#")).lower().startswith("javascript"), (tag, attributes)
        if "style" in attributes and tag in ("span", "td"):
            assert re.fullmatch(r"(min-width:\d+ch|--shade:[\d.]+)", attributes["style"])
    for name in (*HOSTILE, NOISE, "<s>loss", "=<i>$s$", "<img src=x onerror=alert(1)>{{7*7}}"):
        assert one_line(name) in page.text
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_no_name_reaches_the_script(hostile, rich):
    """The script is the same on each page, so no text of the results is in it."""
    assert page_of(hostile).scripts == page_of(rich).scripts


def test_no_cell_of_a_table_is_a_formula(hostile):
    written = [p for p in hostile.tables if p.suffix == ".csv"]
    assert {p.stem for p in written} == {"summary", "chips", "comparison", "tolerance"}
    for path in written:
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        named = {
            head.index(column) for column in ("method", "baseline", "noise", "level_name", "metric") if column in head
        }
        assert {len(row) for row in rows} == {len(head)}
        for row in rows:
            for place, cell in enumerate(row):
                if place in named or not re.fullmatch(r"|inf|-?[\d.]+(e[+-]?\d+)?", cell):
                    assert not cell.startswith(FORMULA), (path, cell)
        methods = {row[head.index("method")] for row in rows}
        names = set(HOSTILE) - ({HOSTILE[1]} if path.stem == "comparison" else set())
        assert {m.removeprefix("'") if m[1:].startswith(FORMULA) else m for m in methods} == names


def test_json_has_the_names_as_they_are(hostile):
    numbers = json.loads((hostile.html.parent / "summary.json").read_text(encoding="utf-8"))
    assert {row["method"] for row in numbers["noises"][0]["summary"]} | {
        row["method"] for row in numbers["noises"][1]["summary"]
    } == set(HOSTILE)
    assert {n["noise"] for n in numbers["noises"]} == {NOISE, "=1+1"}


def test_latex_sees_letters_alone(hostile):
    text = (hostile.html.parent / "summary.tex").read_text(encoding="utf-8")
    check_latex(text)
    assert "\\input" not in text
    assert r"\textbackslash{}input\{/etc/passwd\} &" in text
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    assert commands <= {
        "usepackage", "begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "sigma",
        "multicolumn", "pm", "mathbf", "textless", "textgreater", "textbar", "textbackslash", "dagger", "mbox",
    }  # fmt: skip
    assert not re.search(r"(rule|\\\\)\s*[\[*]", text)


def test_markdown_sees_letters_alone(hostile):
    text = (hostile.html.parent / "summary.md").read_text(encoding="utf-8")
    bare = re.sub(r"\\[\\`*_{}\[\]<>#|!~&$]", "", text)
    assert not set(bare) & set("<>[]`&$!~{}")
    for block in bare.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
    # What is left of headings and marks is ours.
    assert {line.partition(" ")[0] for line in bare.splitlines() if line.startswith("#")} == {"##", "###"}
    assert not re.findall(r"(?<![*\d.])\*+(?![*\d.])", bare)


def test_figures_are_sound_and_show_names_as_text(hostile):
    allowed = {"svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect", "style", "image"}
    for path in hostile.figures:
        if path.suffix != ".svg":
            continue
        root = ElementTree.fromstring(path.read_bytes())
        elements = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert elements <= allowed, path
        for element in root.iter():
            assert not [a for a in element.attrib if a.rpartition("}")[2].lower().startswith("on")]
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith(("#", "data:image/png;base64,")), path
    svg = (hostile.html.parent / "figures" / "sensitivity.svg").read_text(encoding="utf-8")
    for name in ("$x$", "{{7*7}}", "日本語", r"\input{/etc/passwd}"):
        assert f">{name}<" in svg


def test_names_of_files_are_harmless(hostile):
    out = hostile.html.parent
    for path in (*hostile.tables, *hostile.figures):
        assert path.parent in (out, out / "figures")
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(csv|md|tex|json|svg|png|pdf)", path.name)
    assert {p.name for p in hostile.figures if p.suffix == ".svg"} >= {
        "b-onclick-alert-1-..-..-1-1-y.svg",
        "1-1.svg",
    }


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Methods of such names against one of them."""
    folder = tmp_path_factory.mktemp("compared") / "a"
    return compare_folders(
        [make_folder(folder, list(make_rows(HOSTILE, [0, 1], NOISE, "sigma", (0.1,), 2)))], HOSTILE[1]
    )


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv", "json", "text"])
def test_a_comparison_is_as_harmless(compared, kind):
    text = write_comparison(compared, kind)
    if kind == "csv":
        assert not [cell for row in csv.reader(text.splitlines()) for cell in row[:3] if cell.startswith(FORMULA)]
    elif kind == "json":
        assert {row["method"] for row in json.loads(text)} == set(HOSTILE) - {HOSTILE[1]}
    elif kind == "latex":
        assert "\\input" not in text
        check_latex("% head\n" + text)
    elif kind == "markdown":
        assert not set(re.sub(r"\\[\\`*_{}\[\]<>#|!~&$]", "", text)) & set("<>[]`&$!~{}")
    else:
        assert all(one_line(name) in text for name in HOSTILE if name != HOSTILE[1])


@pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])
def test_nothing_runs_in_a_browser(open_page: OpenPage, hostile: Report, tmp_path: Path, javascript: bool) -> None:
    with open_page(hostile.html, javascript=javascript) as opened:
        page, dialogs = opened.page, []

        def seen(dialog):
            dialogs.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", seen)
        page.reload(wait_until="networkidle")
        assert page.locator("script").count() == 1
        assert page.locator("img, iframe, object, embed, link, b, i, u, s").count() == 0
        assert page.get_by_role("rowheader", name=HOSTILE[0], exact=True).count() > 0
        for details in page.locator("details > summary").all():
            details.click()
        for button in page.locator("thead button").all():
            if button.is_visible():
                button.click()
        page.locator("body").hover()
        page.wait_for_timeout(200)
        assert dialogs == []
        assert opened.errors == []
        assert opened.requests == []


def test_what_the_test_above_looks_for_is_found(open_page: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(f"<!doctype html><title>bad</title>{HOSTILE[0]}", encoding="utf-8")
    with open_page(path) as opened:
        dialogs = []

        def seen(dialog):
            dialogs.append(dialog.message)
            dialog.dismiss()

        opened.page.on("dialog", seen)
        opened.page.reload(wait_until="networkidle")
        assert dialogs == ["1"]


def test_a_script_that_got_in_would_not_run(open_page: OpenPage, rich: Report, tmp_path: Path) -> None:
    """The policy is the second wall: a script other than ours is refused even where escaping had failed."""
    path = tmp_path / "broken.html"
    bad = "<script>document.title = 'run'</script><p onclick=\"document.title = 'run'\" id=bad>x</p>"
    text = rich.html.read_text(encoding="utf-8")
    path.write_text(text.replace("<main>", f"<main>{bad}<img src='https://example.org/x'>", 1), encoding="utf-8")
    with open_page(path) as opened:
        opened.page.locator("#bad").click()
        assert opened.page.title() != "run"
        assert opened.requests == []
        assert any("Content Security Policy" in error for error in opened.errors)
