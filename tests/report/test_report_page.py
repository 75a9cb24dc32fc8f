"""The whole report: what it says, what it loads, and that it is written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from report_folders import PCM, make_folder, make_rows

from noiserobust.errors import InvalidValueError, MissingFileError, OutputError
from noiserobust.report import Report, write_report
from noiserobust.report.figures.curve import describe, draw_curve
from noiserobust.report.figures.levels import time_ticks
from noiserobust.report.figures.style import inline_svg, spread
from noiserobust.report.gather import gather
from noiserobust.report.tables import make_tables
from noiserobust.results.summary import summarize

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Tags, attributes and the text of a page; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(report: Report) -> Page:
    return Page(report.html.read_text(encoding="utf-8"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Report:
    """A report of two noises, one of them drift."""
    base = tmp_path_factory.mktemp("full")
    make_folder(
        base / "runs" / "g", list(make_rows(["SGD", "SAM"], [0, 1, 2], "gaussian", "sigma", (0.0, 0.1, 0.2), 3))
    )
    make_folder(base / "runs" / "p", list(make_rows(["SGD", "SAM"], [0, 1, 2], *PCM, 3)))
    return write_report([base / "runs"], base / "out")


def test_the_files_are_those_named(full):
    out = full.html.parent
    named = [full.html, *full.tables, *full.figures]
    assert sorted(str(p.relative_to(out)) for p in named) == sorted(files_of(out)) == [
        "figures/gaussian.png", "figures/gaussian.svg",
        "figures/pcm-nandakumar-2019.png", "figures/pcm-nandakumar-2019.svg",
        "report.html", "summary.csv", "summary.md", "summary.tex",
    ]  # fmt: skip


def test_summary_csv_is_the_summary_of_all_draws(full):
    draws = gather([full.html.parent.parent / "runs"]).draws
    read = pd.read_csv(full.html.parent / "summary.csv")
    pd.testing.assert_frame_equal(read, summarize(draws), check_dtype=False)


def test_the_page_loads_nothing_and_runs_nothing(full):
    page = page_of(full)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "img", "base", "form", "image"}
    for tag, attributes in page.tags:
        assert not [a for a in attributes if a.startswith("on")]
        for attribute in ("src", "href", "xlink:href", "data", "action", "srcset"):
            assert (attributes.get(attribute) or "#").startswith("#"), (tag, attributes)
    text = full.html.read_text()
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "http" not in text


def test_ids_are_unique_and_references_lead_somewhere(full):
    page = page_of(full)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    text = full.html.read_text()
    wanted = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    wanted |= {v for _, a in page.tags for k, v in a.items() if k in ("aria-labelledby", "aria-describedby")}
    assert wanted
    assert wanted <= set(ids)


def test_tables_have_scopes_and_figures_have_words(full):
    page = page_of(full)
    heads = [a for tag, a in page.tags if tag == "th"]
    assert heads
    assert all(a.get("scope") in ("row", "col", "colgroup") for a in heads)
    plots = [a for tag, a in page.tags if tag == "div" and "plot" in (a.get("class") or "")]
    assert len(plots) == 4  # two noises, wide and narrow
    (table,) = [t for t in make_tables(gather([full.html.parent.parent / "runs"])) if t.noise == "gaussian"]
    mean = f"{table.cells['SAM', 0.2].mean:.2f}"
    assert plots[0]["role"] == "img"
    assert f"SAM: {table.cells['SAM', 0.0].mean:.2f} without noise, {mean} at 0.2" in plots[0]["aria-label"]


def test_the_page_holds_every_number_of_the_tables(full):
    text = page_of(full).text.replace("\xa0", " ")
    for table in make_tables(gather([full.html.parent.parent / "runs"])):
        for (_, level), cell in table.cells.items():
            parts = [cell.mean, cell.seed_std] if level == 0 else [cell.mean, cell.noise_std, cell.seed_std]
            assert " ± ".join(f"{p:.2f}" for p in parts) in text
            assert f"{cell.low:.2f} to {cell.high:.2f}" in text


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


def test_missing_draws_and_manifests_are_said_on_the_page(tmp_path):
    rows = list(make_rows(["SGD", "SAM"], [0, 1], "gaussian", "sigma", (0.1, 0.2), 3))
    folder = make_folder(tmp_path / "cut", rows[:-1], finish=False)
    (folder / "manifest.json").unlink()
    text = page_of(write_report([folder], tmp_path / "out")).text
    assert "has 2 of 3 draws at sigma = 0.2" in text
    assert "No manifest, so settings and versions are unknown" in text
    assert "†" in text


def test_untrusted_names_stay_text(tmp_path):
    evil = "<script>alert(1)</script>\"'&$x_{"
    rows = list(make_rows([evil, "日本語"], [0, 1], "../../<b>noise", "sigma", (0.0, 0.1), 2))
    configuration = {"note": "<img src=x onerror=alert(2)>"}
    report = write_report([make_folder(tmp_path / "evil", rows, configuration=configuration)], tmp_path / "out")
    page = page_of(report)
    assert not {"script", "img", "b"} & {tag for tag, _ in page.tags}
    assert evil in page.text
    assert "<img src=x onerror=alert(2)>" in page.text
    assert "<script" not in (report.html.parent / "figures" / "gaussian.svg").read_text()
    assert all(p.parent == tmp_path / "out" / "figures" for p in report.figures)
    assert {p.name for p in report.figures} == {"b-noise.png", "b-noise.svg"}


def test_noises_whose_names_look_alike_get_files_of_their_own(tmp_path):
    for i, noise in enumerate(("a b", "a/b", "A-B")):
        make_folder(tmp_path / "runs" / str(i), list(make_rows(["SGD"], [0], noise, "sigma", (0.1,), 2)))
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    assert {p.stem.casefold() for p in report.figures} == {"a-b", "a-b-2", "a-b-3"}
    assert len({p.name.casefold() for p in report.figures}) == 6


def test_a_rerun_gives_the_same_bytes(gaussian, tmp_path):
    write_report([gaussian], tmp_path / "a")
    write_report([gaussian], tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_the_users_matplotlib_settings_neither_count_nor_change(gaussian, tmp_path):
    import matplotlib

    write_report([gaussian], tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        write_report([gaussian], tmp_path / "b")
        assert dict(matplotlib.rcParams) == before
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.parametrize("fails_at", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_report_untouched(gaussian, tmp_path, monkeypatch, fails_at):
    out = tmp_path / "out"
    write_report([gaussian], out)
    before = files_of(out)
    other = make_folder(tmp_path / "new", list(make_rows(["RWP"], [0, 1], "gaussian", "sigma", (0.1,), 2)))

    calls = []

    def full(*args):
        calls.append(args)
        if fails_at == "replace" or len(calls) == 4:  # in the middle of writing, or at the first rename
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if fails_at == "fsync" else (Path, "replace")), full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_report([other], out)
    assert calls
    assert files_of(out) == before


def test_a_figure_that_fails_leaves_the_old_report_untouched(gaussian, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_report([gaussian], out)
    before = files_of(out)

    def fail(*args, **kwargs):
        raise RuntimeError("no figure")

    monkeypatch.setattr("noiserobust.report.sections.draw_curve", fail)
    with pytest.raises(RuntimeError, match="no figure"):
        write_report([gaussian], out)
    assert files_of(out) == before


def test_an_out_that_cannot_be_a_folder_is_refused(gaussian, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"^Expected to be able to write"):
        write_report([gaussian], tmp_path / "file")


def test_bad_input_writes_nothing(tmp_path):
    with pytest.raises(MissingFileError):
        write_report([tmp_path / "none"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_out_may_be_the_result_folder_itself_but_not_another_one(gaussian, tmp_path):
    other = make_folder(tmp_path / "other", list(make_rows(["RWP"], [0, 1], "gaussian", "sigma", (0.1,), 2)))
    with pytest.raises(InvalidValueError, match="for the report alone"):
        write_report([gaussian, other], other)
    summary = (other / "summary.csv").read_bytes()
    write_report([other], other)
    assert (other / "summary.csv").read_bytes() == summary


def test_svg_files_are_sound_and_name_no_date(full):
    for path in full.figures:
        if path.suffix == ".svg":
            ElementTree.fromstring(path.read_bytes())
            assert b"<metadata" not in path.read_bytes()
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


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


def test_many_methods_and_odd_shapes_are_drawn(tmp_path):
    rows = list(make_rows([f"method {i:02}" for i in range(14)], [0], "gaussian", "sigma", (0.1,), 1))
    rows += list(make_rows(["only clean"], [0], "pcm", "t", (0.0,), 1))
    report = write_report([make_folder(tmp_path / "odd", rows)], tmp_path / "out")
    assert "method 13" in (report.html.parent / "figures" / "gaussian.svg").read_text()
    assert "only clean" in report.figures[3].read_text()


def test_the_report_needs_no_torch(gaussian, tmp_path):
    code = (
        "import sys\n"
        "from noiserobust.report import write_report\n"
        "assert not {'matplotlib', 'pandas'} & set(sys.modules)\n"
        f"print(write_report([{str(gaussian)!r}], {str(tmp_path / 'out')!r}).html)\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path / "out" / "report.html"), done.stderr
