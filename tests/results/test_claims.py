"""Claims from draws are the statistics of the arrays that the draws are made of."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from rows import row

import noiserobust as nr
from noiserobust import stats
from noiserobust.evaluate.montecarlo import EvaluationResult
from noiserobust.results.claims import chip_table, comparison_table, tolerance_table
from noiserobust.results.schema import CHIP_COLUMNS, COMPARISON_COLUMNS, TOLERANCE_COLUMNS
from noiserobust.results.store import as_frame
from noiserobust.results.summary import estimate_sampled
from noiserobust.stats.tails import Estimated

LEVELS = (0.0, 0.05, 0.1)
SHIFT = {"sgd": 0.0, "sam": 2.0, "rwp": 5.0}
PART = {"n_examples": 100, "of_examples": 797, "sampling_std": 1.0}

Arrays = dict[tuple[str, float], list[np.ndarray]]


def arrays(seeds: int = 3, draws: int = 25) -> Arrays:
    """Return accuracies by method and level, for each train seed; without noise one draw."""
    rng = np.random.default_rng([seeds, draws])
    return {
        (method, level): [
            95 + shift - 200 * level + rng.normal() + 3 * rng.normal(size=draws if level else 1) for _ in range(seeds)
        ]
        for method, shift in SHIFT.items()
        for level in LEVELS
    }


def framed(table: Arrays, **more: object) -> pd.DataFrame:
    return as_frame(
        row(seed, level, draw, float(value), method=method, **more)
        for (method, level), rows in table.items()
        for seed, values in enumerate(rows)
        for draw, value in enumerate(values)
    )


def triple(found: pd.Series, name: str) -> list[float]:
    return [found[name], found[f"{name}_low"], found[f"{name}_high"]]


def same(found: pd.Series, name: str, expected: Estimated) -> bool:
    ours, theirs = triple(found, name), [expected.value, expected.low, expected.high]
    return ours == pytest.approx(theirs, rel=1e-9, abs=1e-9, nan_ok=True)


def cell(table: pd.DataFrame, **where: object) -> pd.Series:
    """Return the one row of which columns have these values."""
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


# Chips


@pytest.mark.parametrize("seeds", [1, 3])
def test_chips_are_those_of_the_arrays(seeds: int) -> None:
    own = arrays(seeds, 70)
    table = chip_table(framed(own), 80.0, 0.1, 0.9)
    assert list(table.columns) == CHIP_COLUMNS
    assert len(table) == 3 * 2  # not without noise
    for (method, level), rows in own.items():
        if not level:
            continue
        found = cell(table, method=method, level=level)
        assert same(found, "yield", stats.chip_yield(rows, 80.0, 0.9))
        quantile, worst = stats.quantile(rows, 0.1, 0.9), stats.cvar(rows, 0.1, 0.9)
        for name, e in (("quantile", quantile), ("cvar", worst)):
            clipped = [min(max(v, 0.0), 100.0) if v == v else v for v in (e.low, e.high)]
            assert same(found, name, Estimated(e.value, *clipped))
        assert found["worst"] == min(r.min() for r in rows)
        # 0.9^22 = 9.8% is the first power below 10%.
        assert found["draws_needed"] == 22
        expected = {"n_seeds": seeds, "n_draws": 70, "over": "trainings" if seeds > 1 else "chips"}
        expected |= {"spec": 80.0, "worst_share": 0.1, "ci_level": 0.9, "noise": "gaussian", "metric": "accuracy"}
        assert expected.items() <= found.to_dict().items()


def test_unequal_numbers_of_draws_count_by_seed() -> None:
    frame = as_frame([row(0, 0.1, d, 90.0) for d in range(10)] + [row(1, 0.1, d, 70.0) for d in range(2)])
    found = cell(chip_table(frame, 80.0))
    assert found["yield"] == 0.5
    assert (found["n_draws"], found["n_seeds"], found["worst"]) == (2, 2, 70.0)


def test_too_few_draws_have_a_yield_and_no_tails() -> None:
    found = cell(chip_table(framed(arrays(2, 29)), 80.0), method="sgd", level=0.1)
    assert not any(map(math.isnan, triple(found, "yield")))
    assert found["draws_needed"] == 59
    assert all(map(math.isnan, triple(found, "quantile") + triple(found, "cvar")))


@pytest.mark.parametrize(("value", "share"), [(79.0, 0.0), (80.0, 1.0)])
def test_no_chip_or_every_chip_is_good(value: float, share: float) -> None:
    found = cell(chip_table(as_frame(row(0, 0.1, d, value) for d in range(60)), 80.0))
    # Without a failure in n trials the interval begins at 0.05^(1/n), and without a success it ends as far from 0.
    far = 1 - 0.05 ** (1 / 60)
    expected = [1.0, 1 - far, 1.0] if share else [0.0, 0.0, far]
    assert triple(found, "yield") == pytest.approx(expected, abs=1e-9)
    assert found["quantile"] == found["worst"] == value


def test_intervals_of_accuracies_end_where_accuracies_do() -> None:
    rows = [np.linspace(99.0, 100.0, 80) - 20 * m for m in (0, 1)]
    accuracy = cell(chip_table(framed({("sgd", 0.1): rows}), 80.0, 0.9))
    assert accuracy["quantile_high"] == 100.0
    assert accuracy["cvar_low"] == 0.0


def test_of_metrics_of_which_less_may_be_better_nothing_is_claimed() -> None:
    loss = framed({("sgd", 0.0): [np.ones(1)] * 2, ("sgd", 0.1): [np.ones(80)] * 2}, metric="loss")
    assert chip_table(loss, 0.5).empty
    assert tolerance_table(loss, 0.5).empty


def test_draws_on_some_of_the_examples_tell_no_shares_of_chips() -> None:
    frame = framed(arrays(2, 40), **PART)
    found = cell(chip_table(frame, 80.0), method="sgd", level=0.1)
    for name in ("yield", "quantile", "cvar"):
        assert all(map(math.isnan, triple(found, name)))
    assert math.isnan(found["worst"])
    assert (found["n_draws"], found["n_seeds"]) == (40, 2)


def test_columns_of_sampling_alone_make_no_sample() -> None:
    own = arrays(2, 40)
    whole = framed(own, n_examples=797, of_examples=797, sampling_std=0.0)
    pd.testing.assert_frame_equal(chip_table(whole, 80.0), chip_table(framed(own), 80.0))
    # One training of which some draws were sampled spoils its level, and no other.
    mixed = whole.copy()
    mixed.loc[(mixed["train_seed"] == 0) & (mixed["level"] == 0.1), "n_examples"] = 100
    table = chip_table(mixed, 80.0)
    assert table[table["level"] == 0.1]["yield"].isna().all()
    assert table[table["level"] == 0.05]["yield"].notna().all()


def test_metrics_and_noises_are_kept_apart() -> None:
    own = arrays(2, 10)
    frames = [framed(own), framed(own, metric="top5_accuracy", noise="laplace", level_name="b")]
    frames[1]["value"] += 3.0
    table = chip_table(pd.concat(frames), 85.0)
    assert len(table) == 12
    for metric, shift in (("accuracy", 0.0), ("top5_accuracy", 3.0)):
        found = cell(table, method="sam", level=0.1, metric=metric)
        assert same(found, "yield", stats.chip_yield([r + shift for r in own["sam", 0.1]], 85.0))


# Comparisons


def test_comparisons_are_those_of_the_arrays_and_adjusted_for_all_methods_of_a_level() -> None:
    own = arrays()
    table = comparison_table(framed(own), "sgd", 0.9)
    assert list(table.columns) == COMPARISON_COLUMNS
    assert len(table) == 2 * 3
    for level in LEVELS:
        p = []
        for method in ("rwp", "sam"):
            found = cell(table, method=method, level=level)
            expected = stats.compare(own[method, level], own["sgd", level], 0.9)
            assert same(found, "difference", expected.difference)
            single = [expected.p_value, expected.p_sign_flip, expected.least_p_sign_flip]
            assert [found[c] for c in ("p_value", "p_sign_flip", "least_p_sign_flip")] == pytest.approx(single)
            if level:
                assert same(found, "improvement", expected.improvement)
            else:  # one draw a train seed
                assert all(map(math.isnan, triple(found, "improvement")))
            assert (found["n_seeds"], found["n_draws"], found["over"]) == (3, 25 if level else 1, "train seeds")
            assert (found["baseline"], found["ci_level"]) == ("sgd", 0.9)
            p.append(found["p_value"])
        adjusted = stats.holm(p)
        for method, expected_p in zip(("rwp", "sam"), adjusted, strict=True):
            assert cell(table, method=method, level=level)["p_holm"] == pytest.approx(expected_p)
        assert max(adjusted) > max(p) or max(p) == 1 or adjusted[np.argmin(p)] > min(p)


def test_the_other_way_round_differences_change_their_sign() -> None:
    frame = framed(arrays())
    one = cell(comparison_table(frame, "sgd"), method="sam", level=0.1)
    other = cell(comparison_table(frame, "sam"), method="sgd", level=0.1)
    assert other["difference"] == pytest.approx(-one["difference"])
    assert other["difference_low"] == pytest.approx(-one["difference_high"])
    assert other["p_value"] == pytest.approx(one["p_value"])
    assert other["improvement"] == pytest.approx(1 - one["improvement"])


def test_only_train_seeds_and_draws_that_both_have_are_compared() -> None:
    own = arrays(4, 12)
    frame = framed(own)
    gone = (frame["method"] == "sam") & (frame["train_seed"] == 0)  # a train seed
    gone |= (frame["method"] == "sgd") & (frame["train_seed"] == 3)  # another of the baseline
    gone |= (frame["method"] == "sam") & (frame["train_seed"] == 1) & (frame["draw"] < 5)  # draws
    gone |= (frame["method"] == "sgd") & (frame["train_seed"] == 1) & (frame["draw"] > 9)
    found = cell(comparison_table(frame[~gone], "sgd"), method="sam", level=0.1)
    a, b = own["sam", 0.1], own["sgd", 0.1]
    expected = stats.compare([a[1][5:10], a[2]], [b[1][5:10], b[2]])
    assert same(found, "difference", expected.difference)
    assert same(found, "improvement", expected.improvement)
    assert (found["n_seeds"], found["n_draws"]) == (2, 5)
    shuffled = frame[~gone].sample(frac=1, random_state=1)
    assert same(cell(comparison_table(shuffled, "sgd"), method="sam", level=0.1), "difference", expected.difference)


def test_a_train_seed_without_common_draws_is_left_out() -> None:
    rows = [row(s, 0.1, d, 80.0 + s + d) for s in range(3) for d in range(4)]
    rows += [row(s, 0.1, d + 4 * (s == 0), 82.0 + 2 * s + d, method="sam") for s in range(3) for d in range(4)]
    found = cell(comparison_table(as_frame(rows), "sgd"))
    assert (found["n_seeds"], found["difference"]) == (2, 3.5)  # differences are 3 and 4


@pytest.mark.parametrize("seeds", [(0, 1), (5, 6)], ids=str)
def test_one_common_train_seed_speaks_of_its_chips_and_none_of_nothing(seeds: tuple[int, int]) -> None:
    rows = [row(s, 0.1, d, 80.0 + d % 3) for s in (1, 2) for d in range(20)]
    rows += [row(s, 0.1, d, 81.0 + d % 2, method="sam") for s in seeds for d in range(20)]
    found = cell(comparison_table(as_frame(rows), "sgd"))
    if 1 in seeds:
        a, b = ([81.0 + d % 2 for d in range(20)], [80.0 + d % 3 for d in range(20)])
        assert same(found, "difference", stats.compare([a], [b]).difference)
        assert same(found, "improvement", stats.compare([a], [b]).improvement)
        assert (found["over"], found["n_seeds"]) == ("chips", 1)
    else:
        numbers = [*triple(found, "difference"), *triple(found, "improvement"), found["p_value"], found["p_holm"]]
        assert all(map(math.isnan, numbers))
        assert (found["over"], found["n_seeds"], found["n_draws"]) == ("", 0, 0)


def test_weight_files_of_one_train_seed_are_each_compared_once() -> None:
    files = {"sgd": {"a": 80.0, "b": 81.0}, "sam": {"c": 83.0, "d": 85.0, "e": 99.0}}
    rows = [
        row(0, 0.1, draw, value, method=method, weights=name)
        for method, own in files.items()
        for name, value in own.items()
        for draw in range(3)
    ]
    found = cell(comparison_table(as_frame(rows), "sgd"))
    assert (found["n_seeds"], found["difference"]) == (2, 3.5)  # c - a and d - b


def test_draws_on_some_of_the_examples_are_compared_by_their_means_alone() -> None:
    own = arrays(3, 30)
    frame = framed(own, **PART)
    found = cell(comparison_table(frame, "sgd"), method="sam", level=0.1)
    means = [
        [
            estimate_sampled(frame[(frame[["method", "train_seed", "level"]] == [m, s, 0.1]).all(axis=1)]).mean
            for s in range(3)
        ]
        for m in ("sam", "sgd")
    ]
    expected = stats.compare(*([[v] for v in m] for m in means))
    assert same(found, "difference", expected.difference)
    assert found["p_value"] == pytest.approx(expected.p_value)
    assert all(map(math.isnan, triple(found, "improvement")))
    one_seed = cell(comparison_table(frame[frame["train_seed"] == 0], "sgd"), method="sam", level=0.1)
    assert math.isnan(one_seed["difference"])


def test_levels_noises_and_metrics_that_the_baseline_lacks_are_left_out() -> None:
    rows = [row(s, level, d, 80.0 + s + d) for s in range(2) for d in range(3) for level in (0.1, 0.2)]
    rows += [row(s, level, d, 80.0 + s * d, method="sam") for s in range(2) for d in range(3) for level in (0.2, 0.3)]
    rows += [row(s, 0.2, d, 80.0, method="sam", metric="loss") for s in range(2) for d in range(3)]
    assert comparison_table(as_frame(rows), "sgd")[["level", "metric"]].values.tolist() == [[0.2, "accuracy"]]


def test_a_baseline_alone_has_no_comparison() -> None:
    table = comparison_table(as_frame([row(0, 0.1, d) for d in range(3)]), "sgd")
    assert list(table.columns) == COMPARISON_COLUMNS
    assert len(table) == 0


def test_an_unknown_baseline_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        nr.NoiseRobustError, match="Expected `baseline` to be one of 'sgd', but got 'sgdd'; did you mean"
    ):
        comparison_table(as_frame([row()]), "sgdd")


# Tolerable levels


@pytest.mark.parametrize("seeds", [1, 3])
def test_tolerable_levels_are_those_of_the_mean_curves(seeds: int) -> None:
    own = arrays(seeds)
    table = tolerance_table(framed(own), 8.0, 0.9)
    assert list(table.columns) == TOLERANCE_COLUMNS
    for method in SHIFT:
        found = cell(table, method=method)
        means = np.array([[own[method, v][m].mean() for v in LEVELS] for m in range(seeds)])
        assert same(found, "area", stats.curve_area(LEVELS, means, 0.9))
        assert same(found, "tolerable", stats.tolerable_level(LEVELS, means[:, :1] - means, 8.0, 0.9))
        assert (found["n_seeds"], found["largest_level"], found["drop"], found["ci_level"]) == (seeds, 0.1, 8.0, 0.9)


def plain(values: dict[float, list[float]], **more: object) -> pd.DataFrame:
    """Return draws of accuracies by level, one draw for each train seed."""
    return as_frame(row(s, level, 0, v, **more) for level, seeds in values.items() for s, v in enumerate(seeds))


def test_what_is_never_lost_is_infinite() -> None:
    found = cell(tolerance_table(plain({0.0: [90.0, 91.0], 0.1: [89.0, 90.2]}), 20.0))
    assert triple(found, "tolerable") == [math.inf, pytest.approx(math.inf), math.inf]


def test_times_are_met_by_their_logarithm_and_without_noise_is_no_time() -> None:
    # 5 points are lost at 1 s, 15 at 10,000 s: 10 in the middle of their logarithms, at 100 s.
    draws = {0.0: [90.0, 91.0], 1.0: [85.0, 86.0], 1e4: [75.0, 76.0]}
    found = cell(tolerance_table(plain(draws, level_name="t"), 10.0))
    assert triple(found, "tolerable") == pytest.approx([100.0] * 3)
    assert found["area"] == pytest.approx((85.5 + 75.5) / 2)
    assert cell(tolerance_table(plain(draws, level_name="t"), 4.0))["tolerable"] == 0.0
    assert triple(cell(tolerance_table(plain(draws, level_name="t"), 40.0)), "tolerable") == [math.inf] * 3


def test_without_a_value_without_noise_nothing_is_lost_from_it() -> None:
    found = cell(tolerance_table(plain({0.05: [85.0, 86.0], 0.1: [75.0, 76.0]}), 10.0))
    assert all(map(math.isnan, triple(found, "tolerable")))
    assert found["area"] == pytest.approx(80.5)


@pytest.mark.parametrize("levels", [{0.0: [90.0]}, {0.1: [90.0]}], ids=str)
def test_one_level_is_no_curve(levels: dict[float, list[float]]) -> None:
    found = cell(tolerance_table(plain(levels), 5.0))
    assert all(map(math.isnan, triple(found, "tolerable") + triple(found, "area")))
    assert found["largest_level"] == max(levels)


def test_times_of_which_there_are_none_have_no_largest() -> None:
    found = cell(tolerance_table(plain({0.0: [90.0]}, level_name="t"), 5.0))
    assert math.isnan(found["largest_level"])
    assert found["n_seeds"] == 0


def test_weight_files_that_lack_a_level_are_left_out() -> None:
    whole = {0.0: [90.0, 91.0], 0.1: [80.0, 82.0], 0.2: [60.0, 63.0]}
    extra = as_frame([row(7, 0.0, 0, 50.0), row(7, 0.2, 0, 40.0), row(8, 0.2, 0, 10.0)])
    tables = [tolerance_table(frame, 5.0) for frame in (plain(whole), pd.concat([plain(whole), extra]))]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["n_seeds"][0] == 2
    # Of none that has all levels nothing is said.
    none = cell(tolerance_table(as_frame([row(0, 0.0), row(1, 0.1)]), 5.0))
    assert (none["n_seeds"], none["largest_level"]) == (0, 0.1)
    assert math.isnan(none["area"])


def test_of_bits_more_are_milder_and_none_is_the_tolerable_one() -> None:
    found = cell(
        tolerance_table(plain({0.0: [90.0, 91.0], 2.0: [50.0, 51.0], 8.0: [90.0, 91.0]}, level_name="bits"), 5.0)
    )
    assert all(map(math.isnan, triple(found, "tolerable")))
    assert found["area"] == pytest.approx(70.5)  # from 2 to 8 bits; no rounding is not 0 bits


@pytest.mark.parametrize(
    "f", [lambda d: chip_table(d, 80.0), lambda d: tolerance_table(d, 5.0)], ids=["chips", "levels"]
)
def test_nothing_gives_empty_tables(f: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    assert len(f(as_frame([]))) == 0
    assert list(f(as_frame([])).columns) in (CHIP_COLUMNS, TOLERANCE_COLUMNS)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda r: r.chips(math.nan), "spec"),
        (lambda r: r.chips(80.0, 1.0), "share"),
        (lambda r: r.chips(80.0, 0.05, 95), "level"),
        (lambda r: r.tolerance(0.0), "drop"),
        (lambda r: r.tolerance(5.0, 95), "level"),
    ],
)
def test_what_is_asked_for_is_checked_by_name(call: Callable[[EvaluationResult], object], name: str) -> None:
    with pytest.raises(nr.NoiseRobustError, match=f"Expected `{name}` to be a finite number.*, but got"):
        call(EvaluationResult(framed(arrays(2, 3))))


def test_an_evaluation_gives_the_same_tables() -> None:
    frame = framed(arrays(2, 10))
    result = EvaluationResult(frame)
    pd.testing.assert_frame_equal(result.chips(80.0, 0.1, 0.9), chip_table(frame, 80.0, 0.1, 0.9))
    pd.testing.assert_frame_equal(result.tolerance(5.0, 0.9), tolerance_table(frame, 5.0, 0.9))
