"""What the reader asks for: good enough, at which level, against whom."""

from __future__ import annotations

import math

import pytest
from report_folders import PCM, analyses_of, given_rows, make_folder, make_rows

from noiserobust.errors import InvalidValueError
from noiserobust.report.gather import Gathered, gather


@pytest.fixture(scope="module")
def gathered(tmp_path_factory) -> Gathered:
    """SGD, and SAM that is evaluated under drift alone."""
    base = tmp_path_factory.mktemp("criteria")
    make_folder(base / "g", list(make_rows(["SGD", "SAM"], [0, 1], "gaussian", "sigma", (0.0, 0.1, 0.2), 2)))
    make_folder(base / "l", list(make_rows(["SGD"], [0, 1], "laplace", "b", (0.0, 0.1), 2)))
    make_folder(base / "p", list(make_rows(["SGD"], [0, 1], *PCM, 2)))
    return gather([base])


def targets_of(gathered: Gathered, *target: str) -> list[float | None]:
    """Return the levels that count for gaussian, laplace and the device."""
    return [a.target for a in analyses_of(gathered, target=target)]


@pytest.mark.parametrize(
    ("target", "levels"),
    [
        ((), [0.2, 0.1, 31557600.0]),
        (("0.1",), [0.1, 0.1, 31557600.0]),
        (("1e-1",), [0.1, 0.1, 31557600.0]),
        (("1d",), [0.2, 0.1, 86400.0]),
        (("24h",), [0.2, 0.1, 86400.0]),
        (("3600",), [0.2, 0.1, 3600.0]),
        (("0.1", "1h"), [0.1, 0.1, 3600.0]),
        (("gaussian=0.1",), [0.1, 0.1, 31557600.0]),
        (("gaussian= 0.1 ",), [0.1, 0.1, 31557600.0]),
        (("laplace=0.1", "pcm-nandakumar-2019=1s"), [0.2, 0.1, 1.0]),
        (("0.1", "gaussian=0.2"), [0.2, 0.1, 31557600.0]),  # what is said of one noise counts more
    ],
)
def test_forms_of_targets(gathered, target, levels):
    assert targets_of(gathered, *target) == levels


@pytest.mark.parametrize(
    ("criteria", "said"),
    [
        ({"target": ["0.3"]}, "Expected `target` to be a level that was evaluated (gaussian 0.1, 0.2; laplace 0.1; "),
        ({"target": ["0.1", "2d"]}, "but got 2d"),
        ({"target": ["laplace=0.2"]}, "Expected `target` to be a level that was evaluated (laplace 0.1), but got "),
        ({"target": ["gausian=0.1"]}, "Expected `target` to be one of 'gaussian', 'laplace', 'pcm-nandakumar-2019', "),
        ({"target": ["gausian=0.1"]}, "did you mean 'gaussian'?"),
        ({"target": ["=0.1"]}, "Expected `target` to be one of 'gaussian'"),
        ({"target": [""]}, "Expected `target` to be a level"),
        ({"target": ["clean"]}, "Expected `target` to be a level"),
        ({"target": ["0"]}, "Expected `target` to be a level"),
        ({"target": ["nan"]}, "Expected `target` to be a level"),
        ({"target": ["inf"]}, "Expected `target` to be a level"),
        ({"target": ["gaussian=1d"]}, "Expected `target` to be a level"),
        ({"baseline": "SDG"}, "Expected `baseline` to be one of 'SAM', 'SGD', but got 'SDG'"),
        ({"spec": -1}, "Expected `spec` to be a finite number >= 0 and <= 100, but got -1"),
        ({"spec": 100.5}, "Expected `spec` to be a finite number >= 0 and <= 100, but got 100.5"),
        ({"spec": math.nan}, "Expected `spec` to be a finite number"),
        ({"drop": 0.0}, "Expected `drop` to be a finite number > 0 and <= 100, but got 0.0"),
        ({"drop": math.inf}, "Expected `drop` to be a finite number"),
    ],
)
def test_what_the_results_do_not_have_is_refused_in_one_line(gathered, criteria, said):
    with pytest.raises(InvalidValueError) as error:
        analyses_of(gathered, **criteria)
    text = str(error.value)
    assert text.startswith("Expected `")
    assert ", but got " in text
    assert said in text
    assert "\n" not in text


def test_by_default_a_good_chip_is_a_drop_below_the_best_without_noise(tmp_path):
    levels = {0.0: [88.0], 0.1: [50.0, 51.0]}
    rows = given_rows({("A", 0): levels, ("B", 0): {**levels, 0.0: [93.7]}})
    found = gather([make_folder(tmp_path / "a", rows)])
    assert [(a.spec, a.asked) for a in analyses_of(found)] == [(88.0, False)]
    assert [(a.spec, a.asked) for a in analyses_of(found, drop=2.5)] == [(91.0, False)]
    assert [(a.spec, a.asked) for a in analyses_of(found, drop=100)] == [(0.0, False)]
    assert [(a.spec, a.asked) for a in analyses_of(found, spec=0)] == [(0.0, True)]


def test_without_a_clean_number_the_best_noisy_one_stands_in(tmp_path):
    rows = given_rows({("A", 0): {0.1: [80.2, 80.4], 0.2: [50.0, 51.0]}})
    (found,) = analyses_of(gather([make_folder(tmp_path / "a", rows)]))
    assert found.spec == 75.0


def test_other_metrics_have_no_specification_and_no_tolerance(tmp_path):
    rows = given_rows({("A", 0): {0.0: [0.1], 0.1: [0.5, 0.6]}}, metric="loss")
    (found,) = analyses_of(gather([make_folder(tmp_path / "a", rows)]), spec=90)
    assert found.spec is None
    assert found.chips.empty
    assert found.tolerance.empty


def test_the_specification_is_what_chips_have_to_reach(tmp_path):
    rows = given_rows({("A", 0): {0.1: [80.0, 85.0, 90.0, 95.0]}})
    found = gather([make_folder(tmp_path / "a", rows)])
    shares = [analyses_of(found, spec=spec)[0].chip_row("A", 0.1)["yield"] for spec in (80, 85, 85.01, 95.01)]
    assert shares == [1.0, 0.75, 0.5, 0.0]


def test_the_baseline_is_the_first_method_that_was_asked_for(gathered):
    first = analyses_of(gathered)
    assert [a.baseline for a in first] == ["SGD", None, None]  # alone there is nothing to compare
    (row,) = first[0].comparison[first[0].comparison["level"] == 0.2].to_dict("records")
    assert (row["method"], row["baseline"]) == ("SAM", "SGD")
    other = analyses_of(gathered, baseline="SAM")
    assert [a.baseline for a in other] == ["SAM", None, None]
    (turned,) = other[0].comparison[other[0].comparison["level"] == 0.2].to_dict("records")
    assert turned["difference"] == pytest.approx(-row["difference"])


def test_the_tolerable_level_is_that_of_the_drop(tmp_path):
    rows = given_rows({("A", 0): {0.0: [90.0], 0.1: [86.0, 84.0], 0.2: [70.0, 70.0]}})
    found = gather([make_folder(tmp_path / "a", rows)])
    levels = [analyses_of(found, drop=drop)[0].tolerance_row("A")["tolerable"] for drop in (2.5, 5, 12.5, 25)]
    assert levels == [pytest.approx(0.05), pytest.approx(0.1), pytest.approx(0.15), math.inf]
