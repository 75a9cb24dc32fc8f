"""The whole report: what it says, what it loads, and that it is written whole or not at all."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from report_folders import PCM, analyses_of, given_rows, make_folder, make_rows
from report_pages import files_of, page_of

from noiserobust.errors import InvalidValueError, MissingFileError, OutputError
from noiserobust.report import Report, write_report
from noiserobust.report.figures import curve
from noiserobust.report.figures.curve import describe, draw_curve
from noiserobust.report.figures.levels import time_ticks
from noiserobust.report.figures.style import inline_svg, look, spread
from noiserobust.report.gather import gather
from noiserobust.report.sections import file_names
from noiserobust.report.tables import make_tables
from noiserobust.report.verdict import format_p, format_share, format_signed
from noiserobust.results.summary import summarize

SPREADS = ("mean", "noise_std", "seed_std")
PARTS = ("", "-chips", "-yield", "-differences")
NOISES = ("gaussian", "pcm-nandakumar-2019")
ATTRIBUTES_THAT_LOAD = ("src", "href", "xlink:href", "data", "action", "formaction", "srcset", "poster", "background")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A folder of one method, of which a report is made quickly."""
    rows = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2))
    return make_folder(tmp_path_factory.mktemp("small") / "results", rows)


@pytest.fixture(scope="module")
def written(small) -> dict[str, bytes]:
    """What the report of the small folder is made of."""
    return files_of(write_report([small], small.parent / "report").html.parent)


def leave(files: dict[str, bytes], out: Path) -> None:
    """Leave an older report in a folder."""
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)


def runs_of(report: Report) -> Path:
    return report.html.parent.parent / "runs"


def test_the_files_are_those_named(full):
    out = full.html.parent
    named = [full.html, *full.tables, *full.figures]
    drawn = {f"figures/{n}{part}.{kind}" for n in NOISES for part in PARTS for kind in ("pdf", "png", "svg")}
    assert sorted(str(p.relative_to(out)) for p in named) == sorted(files_of(out))
    assert {str(p.relative_to(out)) for p in named} == drawn | {
        "report.html", "summary.csv", "summary.md", "summary.tex", "summary.json",
        "chips.csv", "comparison.csv", "tolerance.csv",
    }  # fmt: skip


def test_the_files_of_a_rich_report_are_those_named(rich):
    out = rich.html.parent
    named = {str(p.relative_to(out)) for p in (rich.html, *rich.tables, *rich.figures)}
    parts = {f"{n}{part}" for n in NOISES for part in (*PARTS, "-training-levels")} | {"sensitivity", "trainings"}
    assert named == set(files_of(out))
    assert {n for n in named if n.startswith("figures")} == {
        f"figures/{part}.{kind}" for part in parts for kind in ("pdf", "png", "svg")
    }


def test_a_single_method_has_no_differences(written):
    assert "comparison.csv" not in written
    assert {n for n in written if n.endswith(".svg")} == {
        "figures/gaussian.svg", "figures/gaussian-chips.svg", "figures/gaussian-yield.svg"
    }  # fmt: skip


def test_summary_csv_is_the_summary_of_all_draws(full):
    draws = gather([runs_of(full)]).draws
    read = pd.read_csv(full.html.parent / "summary.csv")
    pd.testing.assert_frame_equal(read, summarize(draws), check_dtype=False)


@pytest.mark.parametrize("name", ["full", pytest.param("rich", marks=pytest.mark.slow)])
def test_the_page_loads_nothing_and_runs_our_script_alone(name, request):
    report = request.getfixturevalue(name)
    page, text = page_of(report), report.html.read_text(encoding="utf-8")
    names = {tag for tag, _ in page.tags}
    assert not names & {"link", "iframe", "frame", "object", "embed", "img", "base", "form", "image", "audio", "video"}
    for tag, attributes in page.tags:
        assert not [a for a in attributes if a.startswith("on")]
        for attribute in ATTRIBUTES_THAT_LOAD:
            assert (attributes.get(attribute) or "#").startswith("#"), (tag, attributes)
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert re.findall(r"https?:|//[a-z]", text.replace(page.scripts[0], "")) == []
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|import|eval|Function|innerHTML)\b", page.scripts[0])

    # One script of ours, and the policy allows that one and nothing else.
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    assert len(page.scripts) == 1
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert sorted(policy.split("; ")) == [
        "base-uri 'none'",
        "default-src 'none'",
        "form-action 'none'",
        f"script-src 'sha256-{digest}'",
        "style-src 'unsafe-inline'",
    ]
    assert text.index("Content-Security-Policy") < text.index("<style") < text.index("<script")


def test_the_policy_stands_before_whatever_names_say(rich):
    text = rich.html.read_text(encoding="utf-8")
    assert text.index("Content-Security-Policy") < text.index("<title>")


@pytest.mark.parametrize("name", ["full", "rich"])
def test_ids_are_unique_and_references_lead_somewhere(name, request):
    report = request.getfixturevalue(name)
    page = page_of(report)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    text = report.html.read_text(encoding="utf-8")
    wanted = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    wanted |= {v for _, a in page.tags for k, v in a.items() if k in ("aria-labelledby", "aria-describedby", "for")}
    assert wanted
    assert wanted <= set(ids)


def test_sections_regions_and_strips_are_named(rich):
    tags = page_of(rich).tags
    assert all(a.get("aria-labelledby") for tag, a in tags if tag == "section")
    regions = [a for _, a in tags if a.get("role") == "region"]
    assert len(regions) == sum(tag == "table" for tag, _ in tags)
    assert all(a["aria-label"] and a["tabindex"] == "0" for a in regions)
    strips = [a for tag, a in tags if tag == "svg" and a.get("class") == "strip"]
    # Five methods at two levels and at four times.
    assert len(strips) == 30
    assert all(re.fullmatch(r"12 chips from -?\d\S* to -?\d\S*", a["aria-label"]) for a in strips)
    # Whatever else is drawn has its words on the element around it.
    assert all(a.get("aria-hidden") == "true" for tag, a in tags if tag == "svg" and a.get("class") != "strip")


def test_tables_have_scopes_and_figures_have_words(rich):
    page = page_of(rich)
    heads = [a for tag, a in page.tags if tag == "th"]
    assert heads
    assert all(a.get("scope") in ("row", "col", "colgroup") for a in heads)
    plots = [a for tag, a in page.tags if tag == "div" and "plot" in (a.get("class") or "").split()]
    # Curve, yield and differences of two noises, layers and trainings; each for a page and for a telephone.
    assert len(plots) == 2 * (3 * 2 + 2)
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)
    assert [a["class"] for a in plots] == ["plot wide", "plot narrow"] * 8
    results = runs_of(rich).parent / "results"
    (table,) = [t for t in make_tables(gather([results])) if t.noise == "gaussian"]
    mean = f"{table.cells['SAM', 0.2].mean:.2f}"
    assert f"SAM: {table.cells['SAM', 0.0].mean:.2f} without noise, {mean} at 0.2" in plots[0]["aria-label"]
    said = [a["aria-label"] for a in plots]
    assert any("Share of chips that reach what is asked for. At sigma = 0.2 and 75%: SGD" in s for s in said)
    assert any("Share of chips that reach what is asked for. At t = 1 d and 75%: SGD" in s for s in said)
    assert any(s.startswith("Layers by what is gained when they are digital. First SGD: layer0.conv0") for s in said)
    assert any(s.startswith("Training loss and held-out accuracy by epoch of SGD, SAM, RWP-0.1") for s in said)


def test_sortable_heads_count_their_columns(rich):
    """The script takes the cell of a row by the number on the head."""
    for table in re.findall(r"<table class=\"[^\"]*sortable.*?</table>", rich.html.read_text("utf-8"), flags=re.DOTALL):
        places = [int(n) for n in re.findall(r'data-sort="(\d+)"', table.partition("<tbody>")[0])]
        rows = re.findall(r"<tr>.*?</tr>", table.partition("<tbody>")[2], flags=re.DOTALL)
        counts = {len(re.findall(r"<t[dh][ >]", row)) for row in rows}
        assert len(counts) == 1, "rows of unlike length"
        assert len(places) == len(set(places))
        # Strips of chips cannot be sorted, all else can.
        assert sorted(places) == [n for n in range(counts.pop()) if not (n == 1 and "strips" in table)]


@pytest.mark.parametrize("name", ["full", "rich"])
def test_the_page_holds_every_number_of_the_tables(name, request):
    report = request.getfixturevalue(name)
    text = page_of(report).text.replace("\xa0", " ")
    out = report.html.parent
    for row in pd.read_csv(out / "summary.csv").to_dict("records"):
        parts = [row["mean"], row["seed_std"]] if row["level"] == 0 else [row[k] for k in SPREADS]
        assert " ± ".join(f"{p:.2f}" for p in parts) in text
        assert f"{row['ci_low']:.2f} to {row['ci_high']:.2f}" in text
    for row in pd.read_csv(out / "chips.csv").to_dict("records"):
        assert (
            f"{format_share(row['yield'])} {format_share(row['yield_low'])} to {format_share(row['yield_high'])}"
            in text
        )
        assert f"{row['worst']:.2f} of {row['n_seeds'] * row['n_draws']}" in text
    for row in pd.read_csv(out / "comparison.csv").to_dict("records"):
        if row["level"] > 0:
            ends = [format_signed(row[f"difference{end}"], "accuracy") for end in ("", "_low", "_high")]
            assert "{} {} to {} {}".format(*ends, format_p(row["p_holm"])) in text
            ends = [format_share(row[f"improvement{end}"]) for end in ("", "_low", "_high")]
            assert "{} {} to {}".format(*ends) in text


def test_the_page_says_what_was_run_and_what_the_numbers_mean(full):
    text = page_of(full).text
    for said in (
        "SAM: 3 weight files, train seeds 0, 1 and 2",
        "gaussian: sigma = 0.1 and 0.2; 3 draws for each level and weight file",
        "accuracy on 10,000 test examples",
        "The same chips are followed",
        "Student-t",
        "with 10,000 examples 0.50 points at 50%",
        "resnet20",
        "sha-of-SAM-1.safetensors",
        "2.10.0",
        "Fewer than 59 draws, of all weight files of a method together, cannot bound it",
        "The level at which the mean has fallen by 5 points against no noise",
        "With 3 train seeds it cannot go below 0.25",
    ):
        assert said in text
    assert "not estimable" not in text


def test_times_are_written_as_people_write_them(full):
    svg = (full.html.parent / "figures" / "pcm-nandakumar-2019.svg").read_text()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"1 s", "1 h", "1 d", "1 y"} <= set(texts)
    assert any("the same chips followed" in t for t in texts)
    assert any("clean" in t for t in texts)
    assert "0" not in texts


def test_the_figure_shows_both_uncertainties_apart(full):
    svg = (full.html.parent / "figures" / "gaussian.svg").read_text()
    assert "bar: ± noise std over chips" in svg
    assert "band: ± seed std over trainings" in svg
    assert svg.count('id="FillBetweenPolyCollection') + svg.count('id="PolyCollection') == 2  # one band a method


@pytest.mark.slow
def test_one_weight_file_has_no_band_and_says_so(tmp_path):
    folder = make_folder(tmp_path / "one", list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.0, 0.1), 3)))
    report = write_report([folder], tmp_path / "out")
    svg = (report.html.parent / "figures" / "gaussian.svg").read_text()
    assert "seed std: not estimable (one weight file)" in svg
    assert "PolyCollection" not in svg
    text = page_of(report).text
    assert "Seed uncertainty: not estimable (one weight file) for SGD" in text
    assert "no interval: one weight file" in text
    assert "0.00" not in text.replace("\xa0", " ").split("What the numbers mean")[0]


def test_noises_whose_names_look_alike_get_files_of_their_own(tmp_path):
    for i, noise in enumerate(("a b", "a/b", "A-B", "..", "con")):
        make_folder(tmp_path / str(i), list(make_rows(["SGD"], [0], noise, "sigma", (0.1,), 2)))
    names = file_names(analyses_of(gather([tmp_path])))
    assert names == ["a-b", "a-b-2", "A-B-3", "noise", "con"]


def test_metrics_of_one_noise_get_files_of_their_own(tmp_path):
    rows = list(make_rows(["SGD"], [0], "g", "sigma", (0.1,), 2))
    rows += [{**r, "metric": "loss"} for r in rows]
    names = file_names(analyses_of(gather([make_folder(tmp_path / "two", rows)])))
    assert names == ["g-sigma-accuracy", "g-sigma-loss"]


@pytest.mark.slow
def test_a_rerun_gives_the_same_bytes(small, written, tmp_path):
    write_report([small], tmp_path / "again")
    assert files_of(tmp_path / "again") == written


@pytest.mark.slow
def test_the_users_matplotlib_settings_neither_count_nor_change(small, written, tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        write_report([small], tmp_path / "b")
        assert dict(matplotlib.rcParams) == before
    assert files_of(tmp_path / "b") == written


def fail_at(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> list[object]:
    """Have the disk be full at one call, the first or a later one; return the calls."""
    calls: list[object] = []
    owner, real = (os, os.fsync) if call == "fsync" else (Path, Path.replace)

    def full_disk(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(owner, call, full_disk)
    return calls


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(("call", "number"), [("fsync", 9), ("replace", 1)])
def test_a_full_disk_leaves_the_old_report_untouched(small, written, tmp_path, monkeypatch, call, number):
    out = tmp_path / "out"
    leave({**written, "report.html": b"old", "summary.csv": b"old"}, out)
    before = files_of(out)
    calls = fail_at(monkeypatch, call, number)
    with pytest.raises(OutputError, match="No space left on device"):
        write_report([small], out)
    assert len(calls) == number
    assert files_of(out) == before


def test_a_figure_that_fails_leaves_the_old_report_untouched(small, written, tmp_path, monkeypatch):
    out = tmp_path / "out"
    leave({**written, "report.html": b"old"}, out)
    before = files_of(out)

    def fail(*args, **kwargs):
        raise RuntimeError("no figure")

    monkeypatch.setattr("noiserobust.report.sections.draw_yield", fail)
    with pytest.raises(RuntimeError, match="no figure"):
        write_report([small], out)
    assert files_of(out) == before


@pytest.mark.thorough
def test_what_an_older_report_alone_had_is_removed_and_nothing_else(small, written, tmp_path):
    """Left behind it would pass for a part of the new one."""
    out = tmp_path / "out"
    named = ["comparison.csv", "figures/old-noise.svg", "../beside.csv", "/tmp/absent.csv", "figures/../mine.csv", 7]
    old = {**written, "comparison.csv": b"old", "figures/old-noise.svg": b"old", "mine.csv": b"mine", "a.txt": b"mine"}
    leave({**old, "summary.json": json.dumps({"files": named}).encode(), "../beside.csv": b"mine"}, out)
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, "replace", 1)
        with pytest.raises(OutputError):
            write_report([small], out)
    assert (out / "comparison.csv").read_bytes() == b"old"
    named.remove(7)
    (out / "summary.json").write_text(json.dumps({"files": named}))
    write_report([small], out)
    assert files_of(out) == {**written, "mine.csv": b"mine", "a.txt": b"mine"}
    assert (tmp_path / "beside.csv").read_bytes() == b"mine"


def test_an_out_that_cannot_be_a_folder_is_refused(small, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"^Expected to be able to write"):
        write_report([small], tmp_path / "file")


def test_bad_input_writes_nothing(small, tmp_path):
    with pytest.raises(MissingFileError):
        write_report([tmp_path / "none"], tmp_path / "out")
    for wrong in ({"spec": 101}, {"target": ["7"]}, {"baseline": "none"}, {"drop": 0}):
        with pytest.raises(InvalidValueError, match=r"^Expected `"):
            write_report([small], tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unrendered")
def test_out_may_be_the_result_folder_itself_but_not_another_one(small, tmp_path):
    other = make_folder(tmp_path / "other", list(make_rows(["RWP"], [0, 1], "gaussian", "sigma", (0.1,), 2)))
    with pytest.raises(InvalidValueError, match="for the report alone"):
        write_report([small, other], other)
    summary = (other / "summary.csv").read_bytes()
    write_report([other], other)
    assert (other / "summary.csv").read_bytes() == summary


def test_figures_are_sound_and_name_no_date(full):
    for path in full.figures:
        content = path.read_bytes()
        if path.suffix == ".svg":
            ElementTree.fromstring(content)
            assert b"<metadata" not in content
        elif path.suffix == ".png":
            assert content.startswith(b"\x89PNG")
            assert b"tEXtSoftware" not in content
        else:
            assert content.startswith(b"%PDF-")
            assert not re.search(rb"/(CreationDate|Creator|Producer)", content)


def test_inline_svg_takes_the_colours_of_the_page(gaussian):
    (table,) = make_tables(gather([gaussian]))
    text = inline_svg(draw_curve(table, ["SGD", "SAM"], (4, 3))["svg"], "p")
    assert "var(--ink)" in text
    assert "#24292f" not in text
    assert "<style" not in text
    assert text.startswith("<svg viewBox=")


def test_describe_names_times(tmp_path):
    folder = make_folder(tmp_path / "p", list(make_rows(["SGD"], [0, 1], *PCM, 2)))
    (table,) = make_tables(gather([folder]))
    assert re.search(r"SGD: \d+\.\d\d at 1 s, \d+\.\d\d at 1 y\.$", describe(table))


def test_ticks_fall_on_landmarks_or_else_on_the_levels():
    assert time_ticks([1.0, 3600.0]) == [1.0, 60.0, 3600.0]
    assert time_ticks([20.0, 25.0]) == [20.0, 25.0]
    assert time_ticks([]) == []


@pytest.mark.parametrize("at", [[0.5] * 5, [0.0, 0.01, 1.0, 0.99], [0.3], [], [0.5] * 40, [2.0, -1.0]])
def test_labels_are_spread_inside_the_axes(at):
    placed = spread(at, 0.1)
    gap = min(0.1, 1 / max(1, len(at) - 1))
    assert all(-1e-9 <= p <= 1 + 1e-9 for p in placed)
    ordered = sorted(placed)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(ordered))
    assert [at[i] for i in sorted(range(len(at)), key=lambda i: placed[i])] == sorted(at)


def test_many_methods_are_drawn_and_told_apart(tmp_path):
    rows = list(make_rows([f"method {i:02}" for i in range(14)], [0], "gaussian", "sigma", (0.1,), 1))
    (table,) = make_tables(gather([make_folder(tmp_path / "many", rows)]))
    svg = draw_curve(table, table.methods, (8.6, 4.3))["svg"].decode()
    assert all(f"method {i:02}" in svg for i in range(14))
    looks = [look(table.methods, m) for m in table.methods]
    assert len(set(looks)) == 14


def test_a_leader_ends_before_its_name(tmp_path):
    """However far the names of many curves that end together are pushed apart."""
    levels = (0.0, 0.1)
    ends = [20.0, *(80.0 + 0.01 * i for i in range(13))]
    rows = given_rows({(f"method {i:02}", 0): {x: [end] for x in levels} for i, end in enumerate(ends)})
    (table,) = make_tables(gather([make_folder(tmp_path / "many", rows)]))
    figure = Figure((8.6, 4.3), layout="constrained")
    curve._plot(figure, table, table.methods, narrow=False)
    FigureCanvasAgg(figure).draw()
    labels = [text for text in figure.axes[0].texts if text.get_text().startswith("method")]
    assert len(labels) == 14
    for label in labels:
        leader = label.arrow_patch.get_path().transformed(label.arrow_patch.get_transform()).vertices
        assert leader[:, 0].max() <= Text.get_window_extent(label).x0 + 1


def test_a_noise_without_a_noisy_level_has_a_table_and_no_verdict(tmp_path):
    rows = list(make_rows(["only clean"], [0], "pcm", "t", (0.0,), 1))
    report = write_report([make_folder(tmp_path / "odd", rows)], tmp_path / "out")
    page = page_of(report)
    assert "only clean" in (report.html.parent / "figures" / "pcm.svg").read_text()
    assert not [a for _, a in page.tags if a.get("class") in ("headline", "panels", "chips sortable")]
    assert f"{rows[0]['value']:.2f}" in page.text


@pytest.mark.thorough
def test_the_report_needs_no_torch(small, tmp_path):
    code = (
        "import sys\n"
        "from noiserobust.report import write_report\n"
        "assert not {'matplotlib', 'pandas'} & set(sys.modules)\n"
        f"print(write_report([{str(small)!r}], {str(tmp_path / 'out')!r}).html)\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path / "out" / "report.html"), done.stderr
