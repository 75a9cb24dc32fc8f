"""The sentence that somebody in a hurry reads, in each situation that there can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_folders import analyses_of, given_rows, make_folder
from scipy import stats

from noiserobust.report.analysis import Analysis
from noiserobust.report.gather import gather
from noiserobust.report.verdict import Verdict, format_share, format_tolerable, make_verdict

SEEDS = {0: 80.0, 1: 81.0, 2: 82.5}


def analysis_of(
    tmp_path: Path, methods: dict[str, dict[int, float]], clean: float | None = 90.0, **changes: Any
) -> Analysis:
    """Return the analysis of methods with the means given by train seed, two draws each a point around them."""
    criteria = {k: changes.pop(k) for k in ("spec", "target", "drop", "baseline") if k in changes}
    level = changes.pop("level", 0.1)
    values = {
        (method, seed): ({} if clean is None else {0.0: [clean]}) | {level: [mean - 1, mean + 1]}
        for method, seeds in methods.items()
        for seed, mean in seeds.items()
    }
    rows = given_rows(values, **changes)
    (found,) = analyses_of(gather([make_folder(tmp_path / "results", rows)]), **criteria)
    return found


def verdict_of(*arguments: Any, **changes: Any) -> Verdict:
    found = make_verdict(analysis_of(*arguments, **changes))
    assert found is not None
    return found


def moved(by: dict[int, float]) -> dict[int, float]:
    return {seed: SEEDS[seed] + change for seed, change in by.items()}


def test_one_method(tmp_path):
    found = verdict_of(tmp_path, {"A": SEEDS})
    assert found.headline == "Under gaussian noise of sigma = 0.1 A keeps 81.17% of 90.00% without noise."
    assert list(found.columns) == ["Clean", "At sigma = 0.1", "Tolerable", "Yield"]


def test_one_method_without_a_clean_number(tmp_path):
    found = verdict_of(tmp_path, {"A": SEEDS}, clean=None)
    assert found.headline == "Under gaussian noise of sigma = 0.1 A keeps 81.17%."
    assert list(found.columns) == ["At sigma = 0.1", "Yield"]  # nothing to lose points against


SHOWN = {0: 5.0, 1: 5.1, 2: 4.9}
CHANCE = {0: 5.0, 1: -4.0, 2: 6.0}
TESTED = "(paired over train seeds, Holm over these methods, 5%)"
UNTOLD = "cannot be told: there are no two train seeds in common."


def p_of(changes: dict[int, float]) -> float:
    return float(stats.ttest_1samp(list(changes.values()), 0).pvalue)


def test_a_difference_that_is_shown(tmp_path):
    found = verdict_of(tmp_path, {"A": SEEDS, "B": moved(SHOWN)})
    half = stats.t.ppf(0.975, 2) * 0.1 / 3**0.5
    assert p_of(SHOWN) < 0.001
    assert found.headline == (
        "Under gaussian noise of sigma = 0.1 B has the highest mean, 86.17%: +5.00 points against A "
        f"(95% interval +{5 - half:.2f} to +{5 + half:.2f}). It is shown to be above A {TESTED}."
    )
    a, b = found.lines
    assert a.parts["Difference"][0] == "baseline"
    assert b.parts["Difference"][:2] == ("+5.00", f"+{5 - half:.2f} to +{5 + half:.2f}")


def test_a_difference_that_may_be_chance(tmp_path):
    found = verdict_of(tmp_path, {"A": SEEDS, "B": moved(CHANCE)})
    assert p_of(CHANCE) > 0.05
    assert "B has the highest mean, 83.50%: +2.33 points against A (95% interval −" in found.headline
    assert found.headline.endswith(f" It is not shown to be above A {TESTED}.")


def test_several_methods_make_it_harder(tmp_path):
    """p = 0.03 alone; Holm takes it twice if there are two."""
    changes, other = {0: 5.0, 1: 4.0, 2: 7.5}, {0: 0.1, 1: -0.2, 2: 0.3}
    assert 0.025 < p_of(changes) < 0.05
    assert p_of({s: changes[s] - other[s] for s in SEEDS}) > 0.025
    one = verdict_of(tmp_path / "1", {"A": SEEDS, "B": moved(changes)})
    two = verdict_of(tmp_path / "2", {"A": SEEDS, "B": moved(changes), "C": moved(other)})
    assert one.headline.endswith(f" It is shown to be above A {TESTED}.")
    assert two.headline.endswith(f" It is not shown to be above A and C {TESTED}.")


@pytest.mark.parametrize(("changes", "said"), [(SHOWN, "is shown"), (CHANCE, "is not shown")])
def test_the_best_is_the_baseline(tmp_path, changes, said):
    lower = {seed: -change for seed, change in changes.items()}
    found = verdict_of(tmp_path, {"A": SEEDS, "B": moved(lower)})
    assert found.headline == (
        f"Under gaussian noise of sigma = 0.1 A has the highest mean, 81.17%. It {said} to be above B {TESTED}."
    )


def test_the_best_is_shown_to_be_above_some(tmp_path):
    methods = {"A": SEEDS, "B": moved(SHOWN), "C": moved({s: SHOWN[s] - CHANCE[s] for s in SEEDS}), "D": {9: 70.0}}
    found = verdict_of(tmp_path, methods)
    assert f" It is shown to be above A, and not above C {TESTED}. Whether it is above D {UNTOLD}" in found.headline


def test_the_baseline_need_not_be_the_second(tmp_path):
    """The best is compared with all others, whoever the baseline is."""
    methods = {"A": SEEDS, "B": moved(SHOWN), "C": moved({s: SHOWN[s] - CHANCE[s] for s in SEEDS})}
    found = verdict_of(tmp_path, methods, baseline="C")
    assert "points against C (95% interval" in found.headline
    assert f" It is shown to be above A, and not above C {TESTED}." in found.headline


@pytest.mark.parametrize(("a", "b", "best"), [(80.0, 85.0, "B"), (85.0, 80.0, "A")])
def test_single_weight_files_are_not_the_methods(tmp_path, a, b, best):
    found = verdict_of(tmp_path, {"A": {0: a}, "B": {0: b}})
    other = {"A": "B", "B": "A"}[best]
    assert found.headline == (
        f"Under gaussian noise of sigma = 0.1 {best} has the highest mean, 85.00%. Whether it is above {other} {UNTOLD}"
    )
    assert found.lines[1].parts["Difference"][1].endswith(", these weights")
    assert found.lines[1].parts["Yield"][1].endswith(", these weights")
    assert {line.parts["At sigma = 0.1"][1] for line in found.lines} == {"no interval: one weight file"}


def test_no_train_seed_in_common(tmp_path):
    found = verdict_of(tmp_path, {"A": {0: 80.0, 1: 81.0}, "B": {2: 85.0, 3: 86.0}})
    assert found.headline == (
        f"Under gaussian noise of sigma = 0.1 B has the highest mean, 85.50%. Whether it is above A {UNTOLD}"
    )
    assert found.lines[1].parts["Difference"][:2] == ("—", "no common train seed")


def test_a_loss_has_no_best(tmp_path):
    found = verdict_of(tmp_path, {"A": SEEDS, "B": moved({0: 5.0, 1: 5.1, 2: 4.9})}, metric="loss")
    assert found.headline == "Under gaussian noise of sigma = 0.1 the loss is: A 81.17; B 86.17."
    assert list(found.columns) == ["Clean", "At sigma = 0.1", "Difference"]
    assert found.columns["Difference"] == "to A"


def test_drift(tmp_path):
    found = verdict_of(
        tmp_path, {"A": SEEDS, "B": moved({0: 5.0, 1: 5.1, 2: 4.9})}, noise="pcm", level_name="t", level=86400.0
    )
    assert found.headline.startswith("On pcm at t = 1 d B has the highest mean, 86.17%: +5.00 points against A (")
    assert "At t = 1 d" in found.columns


def test_the_yield_is_told_where_it_was_asked_for(tmp_path):
    methods = {"A": SEEDS, "B": moved({0: 5.0, 1: 5.1, 2: 4.9})}
    assert "chips reach" not in verdict_of(tmp_path / "not", methods).headline
    found = analysis_of(tmp_path / "asked", methods, spec=85)
    row, verdict = found.chip_row("B", 0.1), make_verdict(found)
    assert row is not None
    assert verdict is not None
    assert row["yield"] == 5 / 6  # 84 and 86, 85.1 and 87.1, 86.4 and 88.4
    ends = f"{format_share(row['yield_low'])} to {format_share(row['yield_high'])}"
    assert verdict.headline.endswith(f". 83.3% of its chips reach 85% (interval {ends}, chips of any training).")


def test_the_yield_of_one_weight_file_is_that_of_its_chips(tmp_path):
    found = verdict_of(tmp_path, {"A": {0: 80.0}}, spec=80)
    assert "50.0% of its chips reach 80% (interval" in found.headline
    assert "chips of these weights)." in found.headline


def test_levels_beyond_those_evaluated(tmp_path):
    table = analysis_of(tmp_path, {"A": SEEDS}).table
    assert format_tolerable(float("inf"), table, 0.1) == "> 0.1"
    assert format_tolerable(float("inf"), table, 0.05) == "> 0.05"
    assert format_tolerable(0.0, table, 0.1) == "< 0.1"
    assert format_tolerable(float("nan"), table, 0.1) == "—"
    assert format_tolerable(0.05, table, 0.1) == "0.0500"


def test_a_level_is_asked_for_that_only_others_have(tmp_path):
    values = {("A", 0): {0.1: [80.0, 81.0]}, ("B", 0): {0.1: [82.0, 83.0], 0.2: [60.0, 62.0]}}
    (found,) = analyses_of(gather([make_folder(tmp_path / "a", given_rows(values))]))
    verdict = make_verdict(found)
    assert verdict is not None
    assert verdict.headline.startswith("Under gaussian noise of sigma = 0.2 B keeps 61.00%")
    assert verdict.lines[0].parts["At sigma = 0.2"][0] == "missing"


def test_nobody_tolerates_a_level_that_it_was_not_evaluated_at(tmp_path):
    values = {("A", 0): {0.0: [90.0], 0.1: [89.0, 88.0]}, ("B", 0): {0.0: [90.0], 0.1: [89.0, 88.0], 0.2: [88.0, 87.0]}}
    (found,) = analyses_of(gather([make_folder(tmp_path / "a", given_rows(values))]))
    verdict = make_verdict(found)
    assert verdict is not None
    assert {line.method: line.parts["Tolerable"][0] for line in verdict.lines} == {"A": "> 0.1", "B": "> 0.2"}
