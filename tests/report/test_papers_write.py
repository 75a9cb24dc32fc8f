"""``noiserobust figures``: what is written, what is said, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from paper_folders import configuration, make_everything, make_landscape, make_run

from noiserobust.cli import main
from noiserobust.errors import InvalidValueError, MissingFileError, NoiseRobustError, OutputError
from noiserobust.report.papers import draw_figures
from noiserobust.report.papers.catalogue import CATALOGUE
from noiserobust.report.papers.runs import find_runs
from noiserobust.report.papers.selection import Asked
from noiserobust.report.papers.write import read_list

SGD = configuration("SGD")
SVG = ("svg",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings without diagnostics."""
    base = tmp_path_factory.mktemp("runs")
    for one in (SGD, configuration("SAM", "sam", rho=0.2)):
        make_run(base / one["label"], one, recorded=False)
    return base


def listed(out: Path) -> dict:
    return json.loads((out / "figures.json").read_text())


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the figures can need."""
    base = tmp_path_factory.mktemp("everything")
    make_everything(base, many=False)
    return base


@pytest.mark.thorough
def test_from_everything_no_figure_lacks_anything(everything):
    found = find_runs([everything])
    selections = {name: entry.select(found, Asked()) for name, entry in CATALOGUE.items()}
    assert [name for name, selection in selections.items() if not selection.anything] == []
    assert {name: selection.missing for name, selection in selections.items() if selection.missing} == {}
    assert all(selection.folders for selection in selections.values())


@pytest.mark.thorough
def test_figures_and_their_list_are_written(everything, tmp_path):
    asked = ["2", "4", "7", "7-surface", "12", "rwp-3", "rwp-4"]  # one of each kind of panel
    figures = draw_figures([everything], tmp_path, [*asked[::-1], "2"], kinds=SVG)
    assert [f.name for f in figures] == asked[::-1]
    assert all(f.drawn and not f.missing for f in figures)
    assert {p.name for p in tmp_path.iterdir()} == {f"figure-{n}.svg" for n in asked} | {"figures.json"}
    assert list(listed(tmp_path)["figures"]) == asked
    assert listed(tmp_path)["folders"] == [everything.as_posix()]
    four = listed(tmp_path)["figures"]["4"]
    assert four["files"] == ["figure-4.svg"]
    assert set(four["sources"]) == {path.as_posix() for path in (everything / "runs").iterdir()}
    assert listed(tmp_path)["figures"]["7"]["sources"] == [(everything / "plane").as_posix()]
    svg = (tmp_path / "figure-4.svg").read_text()
    for said in ("SAM 0.8 ramped", "held-out loss L(w)", "(c) held-out against training, σ = 0.02"):
        assert said in svg


@pytest.mark.slow
def test_the_same_data_give_the_same_bytes_in_all_kinds(runs, tmp_path):
    for name in ("a", "b"):
        (figure,) = draw_figures([runs], tmp_path / name, ["rwp-5"], narrow=True)
        assert [f.suffix for f in figure.files] == [".svg", ".png", ".pdf"]
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_contours_and_surfaces_stay_small(tmp_path):
    made = [configuration(f"S{rho}", "sam", rho=rho) for rho in (0.2, 0.5)]
    make_landscape(tmp_path / "plane", made, points=51)
    draw_figures([tmp_path], tmp_path / "out", ["7"], kinds=SVG)
    assert (tmp_path / "out" / "figure-7.svg").stat().st_size < 200_000


def test_labels_are_no_formulas(tmp_path):
    make_run(tmp_path / "run", configuration("a_{$x$ & <b>"), (0,), recorded=False)
    draw_figures([tmp_path], tmp_path / "out", ["rwp-5"], kinds=SVG)
    assert "a_{$x$ &amp; &lt;b&gt;" in (tmp_path / "out" / "figure-rwp-5.svg").read_text()


@pytest.mark.slow
def test_the_command_says_a_line_a_figure(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["figures", "--from", str(runs), "--out", str(out), "--only", "1", "7", "rwp-5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    with_rwp = "a training with RWP (noiserobust train --method.name rwp or arwp or robust)"
    assert lines == [
        f"figure 1: {out}/figure-1.png; missing: (c) {with_rwp}",
        "figure 7: missing: a landscape over a plane (noiserobust diagnose landscape --dimensions 2)",
        f"figure rwp-5: {out}/figure-rwp-5.png",
    ]
    assert not (out / "figure-7.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "7", "4"], "to hold data of a figure, but figure 7 lacks a landscape .*; figure 4 lacks"),
        (["--only", "rwp-33"], "`only` to be one of .* but got 'rwp-33'; did you mean 'rwp-3'"),
        (["--methods", "SGT"], "`methods` to be one of 'SAM', 'SGD', but got 'SGT'; did you mean 'SGD'"),
        (["--levels", "-1"], "`levels` to be a finite number > 0, but got -1"),
    ],
)
def test_bad_arguments_are_one_line_and_nothing_is_written(runs, tmp_path, capsys, arguments, said):
    out = tmp_path / "out"
    assert main(["figures", "--from", str(runs), "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(f"noiserobust: error: Expected .*{said}.*\n", error)
    assert not out.exists()


def test_a_folder_that_is_missing_empty_or_damaged(runs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for bad in ("none", "empty"):
        assert main(["figures", "--from", str(runs), str(tmp_path / bad), "--out", str(tmp_path / "out")]) == 2
        assert f"{tmp_path / bad}" in capsys.readouterr().err
    make_run(tmp_path / "torn", SGD, (0,))
    (tmp_path / "torn" / "seed0" / "diagnostics.csv").write_bytes(b"\x00\xff")
    with pytest.raises(NoiseRobustError, match="diagnostics"):
        draw_figures([tmp_path / "torn"], tmp_path / "out")
    with pytest.raises(MissingFileError):
        draw_figures([tmp_path / "none"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_out_has_to_be_a_folder_of_its_own(runs, tmp_path):
    run = make_run(tmp_path / "run", SGD, (0,), recorded=False)
    with pytest.raises(InvalidValueError, match="results of its own"):
        draw_figures([runs], run)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="it is a file"):
        draw_figures([runs], tmp_path / "file")
    for bad, said in (({"only": []}, "`only`"), ({"kinds": ()}, "`kinds`"), ({"kinds": ("gif",)}, "`kinds`")):
        with pytest.raises(InvalidValueError, match=said):
            draw_figures([runs], tmp_path / "out", **bad)


@pytest.mark.slow
def test_figures_of_an_earlier_call_go_if_they_are_stale_and_listed(runs, tmp_path):
    out = tmp_path / "out"
    draw_figures([runs], out, ["1", "rwp-5"], kinds=("svg", "png"))
    (out / "figure-3.svg").write_text("mine")
    (out / "notes.svg").write_text("mine")
    # Of the same folders: what was not asked for stays, another kind goes with its figure.
    draw_figures([runs], out, ["rwp-5"], kinds=SVG)
    names = {p.name for p in out.iterdir()}
    assert names == {"figure-1.svg", "figure-1.png", "figure-rwp-5.svg", "figure-3.svg", "notes.svg", "figures.json"}
    assert list(listed(out)["figures"]) == ["1", "rwp-5"]
    # Of other folders: all that is listed goes, and nothing else.
    other = make_run(tmp_path / "other", SGD, (0,), recorded=False)
    draw_figures([other], out, ["rwp-5"], kinds=SVG)
    assert {p.name for p in out.iterdir()} == {"figure-rwp-5.svg", "figure-3.svg", "notes.svg", "figures.json"}


def test_a_figure_that_cannot_be_drawn_any_more_goes(tmp_path):
    make_run(tmp_path / "runs" / "a", SGD, (0,))
    out = tmp_path / "out"
    draw_figures([tmp_path / "runs"], out, ["8", "rwp-5"], kinds=SVG)
    (tmp_path / "runs" / "a" / "seed0" / "diagnostics.csv").unlink()
    eight, five = draw_figures([tmp_path / "runs"], out, ["8", "rwp-5"], kinds=SVG)
    assert not eight.drawn
    assert five.drawn
    assert {p.name for p in out.iterdir()} == {"figure-rwp-5.svg", "figures.json"}


def test_a_list_that_is_not_ours_removes_nothing(runs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "x.svg").write_text("mine")
    (out / "figures.json").write_text(
        '{"figures": {"1": {"files": ["../x.svg", 3, "a/figure-1.svg"]}, "2": {"files": 3}}}'
    )
    draw_figures([runs], out, ["rwp-5"], kinds=SVG)
    assert (tmp_path / "x.svg").exists()
    assert list(listed(out)["figures"]) == ["rwp-5"]
    for text in ("{", "[]", '{"figures": []}', '{"figures": {"1": 3}}'):
        (out / "figures.json").write_text(text)
        assert read_list(out) == {}
