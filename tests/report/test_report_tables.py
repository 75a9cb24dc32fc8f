"""The numbers, against formulas written out plainly."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from report_folders import N_EXAMPLES, analyses_of, make_folder, make_rows
from scipy import stats

from noiserobust.errors import InvalidValueError
from noiserobust.report.gather import gather
from noiserobust.report.notes import find_notes
from noiserobust.report.tables import make_tables
from noiserobust.report.text import LATEX, MARKDOWN, escape_latex, format_cell, legend, to_latex, to_markdown


def test_cell_follows_the_definitions(gaussian):
    draws = gather([gaussian]).draws
    values = draws[(draws.method == "SAM") & (draws.level == 0.2)].sort_values(["train_seed", "draw"]).value
    a = values.to_numpy().reshape(3, 4)
    means = [sum(row) / 4 for row in a]
    mean = sum(means) / 3
    noise = (sum(sum((x - m) ** 2 for x in row) / 3 for row, m in zip(a, means, strict=True)) / 3) ** 0.5
    seed = (sum((m - mean) ** 2 for m in means) / 2) ** 0.5
    half = stats.t.ppf(0.975, 2) * seed / 3**0.5

    (table,) = make_tables(gather([gaussian]))
    cell = table.cells["SAM", 0.2]

    assert [cell.mean, cell.noise_std, cell.seed_std] == pytest.approx([mean, noise, seed])
    assert [cell.low, cell.high] == pytest.approx([mean - half, mean + half])
    assert (cell.n_seeds, cell.n_draws, cell.n_examples) == (3, 4, N_EXAMPLES)
    assert format_cell(cell, 0.2, "accuracy", MARKDOWN).replace("*", "") == f"{mean:.2f} ± {noise:.2f} ± {seed:.2f}"


def test_clean_cell_has_mean_and_seed_std_only(gaussian):
    draws = gather([gaussian]).draws
    clean = draws[(draws.method == "SGD") & (draws.level == 0)].value.to_numpy()
    (table,) = make_tables(gather([gaussian]))
    text = format_cell(table.cells["SGD", 0.0], 0.0, "accuracy", LATEX)
    assert text == rf"${clean.mean():.2f} \pm {clean.std(ddof=1):.2f}$"


def test_one_weight_file_has_no_seed_std_and_never_zero(tmp_path):
    folder = make_folder(tmp_path / "one", list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.0, 0.1), 5)))
    gathered = gather([folder])
    tables = make_tables(gathered)
    cell = tables[0].cells["SGD", 0.1]
    assert np.isnan([cell.seed_std, cell.low, cell.high]).all()
    assert format_cell(cell, 0.1, "accuracy", MARKDOWN) == f"{cell.mean:.2f} ± {cell.noise_std:.2f} ± —"
    assert "± 0.00" not in to_markdown(analyses_of(gathered))
    assert "not estimable (seed std: one weight file)" in to_markdown(analyses_of(gathered))
    assert any(
        "not estimable (one weight file) for SGD" in note for note in find_notes(gathered, analyses_of(gathered))
    )


def test_one_draw_has_no_noise_std(tmp_path):
    folder = make_folder(tmp_path / "k1", list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 1)))
    (table,) = make_tables(gather([folder]))
    cell = table.cells["SGD", 0.1]
    assert format_cell(cell, 0.1, "accuracy", MARKDOWN) == f"{cell.mean:.2f} ± — ± {cell.seed_std:.2f}"
    assert "noise std: one draw" in legend(table)


def test_missing_draws_are_marked_and_named(tmp_path):
    rows = list(make_rows(["SGD", "SAM"], [0, 1], "gaussian", "sigma", (0.1, 0.2), 4))
    kept = [
        r for r in rows if not (r["method"] == "SAM" and r["train_seed"] == 1 and r["level"] == 0.2 and r["draw"] > 0)
    ]
    gathered = gather([make_folder(tmp_path / "cut", kept, finish=False)])
    tables = make_tables(gathered)
    assert not tables[0].cells["SAM", 0.2].complete
    assert tables[0].cells["SAM", 0.1].complete
    assert [(g.method, g.train_seed, g.level, g.have, g.expected) for g in tables[0].gaps] == [("SAM", 1, 0.2, 1, 4)]
    (note,) = find_notes(gathered, analyses_of(gathered))
    assert "SAM, train seed 1 (SAM-1.safetensors) has 1 of 4 draws at sigma = 0.2" in note
    assert "†" in to_markdown(analyses_of(gathered))


def test_draws_and_levels_the_manifest_announces_are_missing_too(tmp_path):
    rows = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2))
    folder = make_folder(tmp_path / "early", rows, finish=False, configuration={"draws": 3, "levels": [0.1, 0.2]})
    (table,) = make_tables(gather([folder]))
    assert {(g.train_seed, g.level, g.have, g.expected) for g in table.gaps} == {
        (0, 0.1, 2, 3), (0, 0.2, 0, 3), (1, 0.1, 2, 3), (1, 0.2, 0, 3)
    }  # fmt: skip


def test_trainings_the_manifest_announces_are_missing_too(tmp_path):
    rows = list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.1,), 2))
    weights = [{"file": f"SGD-{s}.safetensors", "method": "SGD", "train_seed": s} for s in (0, 1)]
    gathered = gather([make_folder(tmp_path / "early", rows, finish=False, configuration={"weights": weights})])
    assert any("not there yet, of SGD, train seed 1" in n for n in find_notes(gathered, analyses_of(gathered)))


def _constant(method: str, values: dict[int, float], level: float = 0.1):
    base = next(make_rows([method], [0], "gaussian", "sigma", (level,), 1))
    return [
        {**base, "train_seed": s, "weights": f"{method}{s}", "value": v + d, "draw": i}
        for s, v in values.items()
        for i, d in enumerate((-0.5, 0.5))
    ]


@pytest.mark.parametrize(
    ("other", "marked"),
    [
        ({0: 80.0, 1: 80.1, 2: 80.2}, True),  # far below
        ({0: 89.0, 1: 91.0, 2: 90.0}, False),  # below, and the intervals meet
        ({0: 80.0}, False),  # far below, without an interval
    ],
)
def test_the_highest_is_marked_only_where_intervals_are_apart(tmp_path, other, marked):
    rows = _constant("A", {0: 91.0, 1: 91.1, 2: 91.2}) + _constant("B", other)
    (table,) = make_tables(gather([make_folder(tmp_path / "ab", rows)]))
    assert table.cells["A", 0.1].highest is marked
    assert not table.cells["B", 0.1].highest


def test_clean_is_lent_by_another_noise_for_the_same_weights_only(tmp_path):
    make_folder(tmp_path / "g", list(make_rows(["SGD", "SAM"], [0, 1], "gaussian", "sigma", (0.0, 0.1), 2)))
    make_folder(tmp_path / "p", list(make_rows(["SGD"], [0], "pcm", "t", (1.0, 3600.0), 2)))
    tables = {t.noise: t for t in make_tables(gather([tmp_path]))}
    assert tables["pcm"].borrowed == ("SGD",)
    assert tables["pcm"].cells["SGD", 0.0].n_seeds == 1
    assert ("SAM", 0.0) not in tables["pcm"].cells
    assert tables["gaussian"].borrowed == ()
    assert "measured with another noise" in legend(tables["pcm"])


def test_unlike_numbers_of_seeds_and_settings_are_said(tmp_path):
    make_folder(tmp_path / "a", list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2)))
    rows = list(make_rows(["SAM"], [0, 1, 2], "gaussian", "sigma", (0.1,), 2))
    make_folder(tmp_path / "b", rows, configuration={"noise": {"kind": "gaussian", "granularity": "tensor"}})
    gathered = gather([tmp_path])
    notes = " ".join(find_notes(gathered, analyses_of(gathered)))
    assert "different numbers of seeds: SGD 2 and SAM 3" in notes
    assert "different settings, so methods may differ for that reason: noise.granularity" in notes


def test_the_same_weights_under_two_names_are_said(tmp_path):
    rows = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2))
    weights = [
        {"file": f, "sha256": "a" * 64, "method": "SGD", "train_seed": s} for s, f in enumerate(["x.pt", "y.pt"])
    ]
    gathered = gather([make_folder(tmp_path / "a", rows, configuration={"weights": weights})])
    (note,) = find_notes(gathered, analyses_of(gathered))
    assert note.startswith("x.pt and y.pt hold the same weights")


def test_a_sound_comparison_has_no_notes(gaussian):
    gathered = gather([gaussian])
    assert find_notes(gathered, analyses_of(gathered)) == []


def test_methods_come_in_the_order_asked_for(gaussian):
    assert gather([gaussian]).methods == ("SGD", "SAM")


def test_latex_escapes_names_and_balances(tmp_path):
    rows = list(make_rows(["a_b 50% & c#1 ~^{x}\\y$"], [0, 1], "my_noise", "sigma", (0.0, 0.1), 2))
    text = to_latex(analyses_of(gather([make_folder(tmp_path / "odd", rows)])))
    (row,) = [line for line in text.splitlines() if line.startswith(r"a\_b")]
    assert row.startswith(r"a\_b 50\% \& c\#1 \textasciitilde{}\textasciicircum{}\{x\}\textbackslash{}y\$ & $")
    assert row.replace(r"\&", "").count("&") == 2  # clean and one level
    assert r"\pm" in row
    assert r"under my\_noise" in text
    for command in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(command) == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    for line in text.splitlines()[1:]:
        assert line.replace(r"\$", "").count("$") % 2 == 0
        bare = line.replace(r"\{", "").replace(r"\}", "")
        assert bare.count("{") == bare.count("}")


def test_markdown_escapes_names(tmp_path):
    odd, plain = "a|b <i>_x_</i>", "plain"
    rows = list(make_rows([odd, plain], [0, 1], "g_|_", "sigma", (0.1,), 2))
    text = to_markdown(analyses_of(gather([make_folder(tmp_path / "odd", rows)])))
    cells = {line.count("|") for line in text.splitlines() if line.startswith("| plain |")}
    ours = [line for line in text.splitlines() if line.startswith("| a\\|b \\<i\\>\\_x\\_\\</i\\> |")]
    assert len(ours) == 2  # the levels, the summary; it is the baseline of the differences
    assert {line.replace("\\|", "").count("|") for line in ours} <= cells
    assert "<" not in text.replace("\\<", "")
    assert "## g\\_\\|\\_: accuracy against sigma" in text


def test_markdown_escapes_what_stands_around_the_tables(tmp_path):
    evil = "<b>|x"
    make_folder(tmp_path / "g", list(make_rows([evil], [0, 1], "gaussian", "sigma", (0.0, 0.1), 2)))
    make_folder(tmp_path / "p", list(make_rows([evil], [0, 1], "pcm", "<u>", (0.2,), 2)))
    text = to_markdown(analyses_of(gather([tmp_path])))
    assert "The clean numbers of \\<b\\>\\|x were measured with another noise" in text
    assert "<" not in text.replace("\\<", "")


@pytest.mark.parametrize("sign", list("&%$#_{}~^\\<>|"))
def test_every_special_sign_is_escaped_for_latex(sign):
    assert escape_latex(f"a{sign}b").startswith("a\\")


@pytest.mark.parametrize("sign", "[]*")
def test_no_name_is_an_option_of_the_row_before(tmp_path, sign):
    """Behind the end of a row a bracket opens the space below it, and a star belongs to the command."""
    rows = list(make_rows([f"{sign}1ex]"], [0, 1], "gaussian", "sigma", (0.1,), 2))
    text = to_latex(analyses_of(gather([make_folder(tmp_path / "odd", rows)])))
    assert not re.search(r"(rule|\\\\)\s*[\[*]", text)
    assert f"\n{{{sign}}}1ex{{]}} & " in text


def test_other_metrics_get_a_table_of_their_own(tmp_path):
    rows = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2))
    rows += [{**r, "metric": "loss", "value": 0.001234567 * (1 + r["draw"])} for r in rows]
    tables = make_tables(gather([make_folder(tmp_path / "two", rows)]))
    assert {t.metric for t in tables} == {"accuracy", "loss"}
    (loss,) = [t for t in tables if t.metric == "loss"]
    assert format_cell(loss.cells["SGD", 0.1], 0.1, "loss", MARKDOWN).startswith("0.001852 ±")


def test_paths_are_only_read(gaussian: Path):
    before = {p: p.read_bytes() for p in gaussian.iterdir()}
    make_tables(gather([gaussian]))
    assert {p: p.read_bytes() for p in gaussian.iterdir()} == before


def _notes(tmp_path: Path, *folders: list) -> str:
    for i, rows in enumerate(folders):
        make_folder(tmp_path / str(i), rows, configuration={"weights": []})
    gathered = gather([tmp_path])
    return " ".join(find_notes(gathered, analyses_of(gathered)))


def test_different_seeds_of_equal_number_are_said(tmp_path):
    rows = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2))
    rows += make_rows(["SAM"], [0, 7], "gaussian", "sigma", (0.1,), 2)
    assert "different seeds: SAM 0/7 and SGD 0/1." in _notes(tmp_path, rows)


def test_two_trainings_of_one_method_and_seed_are_not_pooled(tmp_path):
    rows = list(make_rows(["SGD"], [0], "gaussian", "sigma", (0.1,), 2))
    with pytest.raises(InvalidValueError, match=r"method 'SGD' to be one training for each train seed.*--method"):
        _notes(tmp_path, rows + [{**r, "weights": "other.pt"} for r in rows])


def test_a_note_that_holds_for_one_noise_names_it(tmp_path):
    many = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2))
    one = list(make_rows(["SGD"], [0], "laplace", "b", (0.1,), 2))
    assert "Under laplace: Seed uncertainty: not estimable" in _notes(tmp_path, many, one)


def test_unequal_test_sets_are_said(tmp_path):
    rows = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.1,), 2))
    rows[0]["n_examples"] = 500
    assert "same number of test examples: 500 and 10000" in _notes(tmp_path, rows)


def test_clean_numbers_that_disagree_are_said(tmp_path):
    a = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.0, 0.1), 2))
    b = list(make_rows(["SGD"], [0, 1], "laplace", "b", (0.0, 0.1), 2))
    assert "differs between evaluations" not in _notes(tmp_path / "same", a, b)
    b[0]["value"] = 50.0
    notes = _notes(tmp_path / "unlike", a, b)
    assert "The clean accuracy of SGD, train seed 0 (SGD-0.safetensors), differs between evaluations" in notes
    assert "50.00 (laplace)" in notes


def test_a_missing_clean_number_and_a_missing_cell_are_said(tmp_path):
    rows = list(make_rows(["SGD"], [0, 1], "gaussian", "sigma", (0.0, 0.1), 2))
    rows += make_rows(["SAM"], [0, 1], "gaussian", "sigma", (0.1,), 2)
    folder = make_folder(tmp_path / "a", rows, configuration={"levels": []})
    gathered = gather([folder])
    assert "SAM, train seed 0 (SAM-0.safetensors) has no clean number" in " ".join(
        find_notes(gathered, analyses_of(gathered))
    )
    assert "| SAM | missing |" in to_markdown(analyses_of(gathered))


def test_the_wide_interval_of_the_highest_itself_forbids_the_mark(tmp_path):
    rows = _constant("A", {0: 90.0, 1: 91.0, 2: 92.0}) + _constant("B", {0: 88.6, 1: 88.7, 2: 88.8})
    (table,) = make_tables(gather([make_folder(tmp_path / "ab", rows)]))
    a, b = table.cells["A", 0.1], table.cells["B", 0.1]
    assert a.low < b.high < a.mean
    assert not a.highest
