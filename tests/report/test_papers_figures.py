"""The data that each figure of the papers draws, and what it says is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_folders import (
    configuration,
    entries_of,
    make_evaluation,
    make_filters,
    make_landscape,
    make_run,
)

from noiserobust.report.figures.landscape import (
    Plane,
    curves_of,
    draw_contours,
    draw_landscape,
    draw_surfaces,
    levels_of,
    planes_of,
)
from noiserobust.report.figures.panels import Panel, Series, draw_panels
from noiserobust.report.papers import accuracy, around, dynamics
from noiserobust.report.papers.catalogue import CATALOGUE
from noiserobust.report.papers.runs import Found, find_runs
from noiserobust.report.papers.selection import Asked, Selection
from noiserobust.results.landscapes import read_landscape

NOTHING = Asked()
SGD = configuration("SGD")
SAM = [configuration(f"S{rho}", "sam", rho=rho) for rho in (0.2, 0.5)]
RWP = [configuration(f"R{level}", "rwp", level=level) for level in (0.02, 0.07)]
RAMPED = configuration("R up", "rwp", level=0.07, schedule="quadratic", fraction=0.5)
ALL = [SGD, *SAM, *RWP, RAMPED]

TESTED = {
    "SGD": {0.0: 80.0, 0.02: 76.0, 0.07: 40.0},
    "S0.2": {0.0: 82.0, 0.02: 79.0, 0.07: 50.0},
    "S0.5": {0.0: 78.0, 0.02: 77.0, 0.07: 52.0},
    "R0.02": {0.0: 79.0, 0.02: 77.5, 0.07: 55.0},
    "R0.07": {0.0: 77.0, 0.02: 76.5, 0.07: 60.0},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Trainings of three methods, one of them ramped, and an evaluation of the others."""
    base = tmp_path_factory.mktemp("papers")
    for one in ALL:
        make_run(base / one["label"], one)
    make_evaluation(base / "eval", ALL[:-1], TESTED)
    return find_runs([base])


def labels(panel: Panel) -> list[str]:
    return [one.label for one in panel.series]


def series(panel: Panel, label: str) -> Series:
    return next(one for one in panel.series if one.label == label)


def only(tmp_path: Path, *made: dict, **more) -> Found:
    for one in made:
        make_run(tmp_path / one["label"], one, (0,), **more)
    return find_runs([tmp_path])


def test_1_has_sgd_clean_and_noisy_and_the_noisy_accuracy_of_the_others(found):
    selection = accuracy.by_epoch(found, NOTHING)
    assert [labels(p) for p in selection.panels] == [
        ["SGD, clean", "SGD"],
        ["SGD", "S0.2", "S0.5"],
        ["SGD", "R0.02", "R0.07", "R up"],
    ]
    assert selection.panels[1].title == "(b) SAM, under gaussian 0.05"
    assert not selection.missing
    run = next(r for r in found.runs if r.name == "S0.5")
    drawn = series(selection.panels[1], "S0.5").frame
    for training in run.trainings:
        own = drawn[drawn["train_seed"] == training.train_seed]
        assert own["y"].tolist() == training.metrics["held_out_perturbed_accuracy"].tolist()
    clean = series(selection.panels[0], "SGD, clean").frame
    assert clean["y"].iloc[0] == found.runs[0].trainings[0].metrics["held_out_accuracy"].iloc[0]


def test_1_says_that_noises_differ_and_which_methods_lack(tmp_path):
    own = configuration("R", "rwp", level=0.08, select={"noise": {"name": None, "level": None}})
    selection = accuracy.by_epoch(only(tmp_path, SGD, own, recorded=False), NOTHING)
    assert [p.title for p in selection.panels] == [
        "(a) SGD, under noise of the selection",
        "(c) RWP, under noise of the selection",
    ]
    assert "gaussian 0.05, gaussian 0.08" in selection.notes[0]
    assert selection.missing == ("(b) a training with SAM (noiserobust train --method.name sam or asam)",)


def test_the_mean_over_seeds_ends_where_one_of_them_ends(tmp_path):
    long, short = configuration("SGD"), tmp_path / "b" / "seed1" / "metrics.csv"
    make_run(tmp_path / "a", long, (0,), recorded=False)
    make_run(tmp_path / "b", long, (1,), recorded=False)
    short.write_text("\n".join(short.read_text().splitlines()[:4]) + "\n")
    one = accuracy.by_epoch(find_runs([tmp_path]), NOTHING).panels[0].series[1]
    assert one.common_mean["x"].tolist() == [1, 2, 3]
    assert one.mean["n"].tolist() == [2, 2, 2, 1, 1, 1]
    first = one.frame[one.frame["x"] == 1]["y"]
    assert one.common_mean["y"].iloc[0] == pytest.approx(first.mean())
    assert one.common_mean["y_std"].iloc[0] == pytest.approx(first.std(ddof=1))


@pytest.mark.parametrize(
    ("select", "asked", "level"),
    [
        (accuracy.scatter_strong, NOTHING, 0.07),
        (accuracy.scatter_weak, NOTHING, 0.02),
        (accuracy.scatter_strong, Asked((0.02,)), 0.02),
        (accuracy.scatter_weak, Asked((0.07, 0.5)), 0.07),
    ],
)
def test_2_and_6_scatter_clean_against_noisy(found, select, asked, level):
    panel = select(found, asked).panels[0]
    assert panel.ylabel == f"test accuracy (%) at sigma = {level:g}"
    assert labels(panel) == list(TESTED)
    for label, values in TESTED.items():
        mean = series(panel, label).mean.iloc[0]
        assert mean["x"] == pytest.approx(values[0.0] + 0.5)  # the seeds have 0 and 1 points more
        assert mean["y"] == pytest.approx(values[level] + 0.5 + 0.05)  # the draws 0 and 0.1
        assert mean["x_std"] == pytest.approx(np.sqrt(0.5))
    assert series(panel, "R0.07").frame["text"].tolist() == ["0.07", "0.07"]


def test_2_compares_the_best_of_each_method_by_level(found):
    panel = accuracy.scatter_strong(found, NOTHING).panels[1]
    assert labels(panel) == ["SGD", "best SAM", "best RWP"]
    best = series(panel, "best SAM")
    assert best.mean["x"].tolist() == [0.0, 0.02, 0.07]
    assert best.mean["y"].tolist() == pytest.approx([82.5, 79.55, 52.55])
    assert best.frame.groupby("at")["text"].first().tolist() == ["0.2", "0.2", "0.5"]
    assert series(panel, "best RWP").mean["y"].tolist() == pytest.approx([79.5, 78.05, 60.55])


def test_2_without_evaluations_or_at_a_level_that_is_not_there(found, tmp_path):
    selection = accuracy.scatter_strong(only(tmp_path, SGD), NOTHING)
    assert not selection.anything
    assert selection.missing[0].startswith("(a) evaluations under noise (noiserobust evaluate --levels")
    weak = accuracy.scatter_weak(found, Asked((0.3,)))
    assert weak.missing == ("evaluations under noise (noiserobust evaluate --levels 0.3); there are 0.02, 0.07",)
    alone = make_evaluation(tmp_path / "eval", [SGD], {"SGD": {0.1: 60.0}})
    assert "at level 0" in accuracy.scatter_weak(find_runs([alone]), NOTHING).missing[0]


def test_3_has_gradient_norms_by_epoch_and_sharpness_against_loss(found):
    left, right = dynamics.gradients(found, NOTHING).panels
    run = next(r for r in found.runs if r.name == "S0.2")
    norms = run.quantity("update_gradient_norm")
    assert series(left, "S0.2").frame["y"].tolist() == norms["value"].tolist()
    assert series(left, "S0.2").frame["x"].tolist() == norms["epoch"].tolist()
    assert "SGD" in labels(left)
    assert "SGD" not in labels(right)  # it perturbs nothing
    assert series(right, "S0.2").frame["x"].tolist() == run.quantity("training_loss")["value"].tolist()
    assert right.xlabel == "training loss L(w), in a training pass"
    assert series(right, "S0.2").frame["y"].tolist() == run.quantity("gradient_sharpness")["value"].tolist()


@pytest.mark.parametrize(("select", "place"), [(dynamics.gradients, 1), (dynamics.ramped_sharpness, 0)])
def test_3_and_11_have_the_loss_of_evaluations_where_that_of_training_passes_was_not_recorded(tmp_path, select, place):
    make_run(tmp_path / "old", RAMPED, (0,), without=("training_loss",))
    selection = select(find_runs([tmp_path]), NOTHING)
    assert selection.panels[place].xlabel == "training loss L(w)"
    assert not selection.notes
    found = only(tmp_path, SAM[0])
    selection = select(found, NOTHING)
    runs = {run.name: run for run in found.runs}
    for name, loss in (("R up", "loss"), ("S0.2", "training_loss")):
        drawn = series(selection.panels[place], name).frame["x"].tolist()
        assert drawn == runs[name].quantity(loss)["value"].tolist()
    assert selection.panels[place].xlabel == "training loss L(w)"
    said = "the training loss of R up is that of an evaluation, of the others that of a training pass"
    assert selection.notes == (said,)
    assert not selection.missing


@pytest.mark.parametrize(
    ("select", "level", "asked"),
    [
        (dynamics.sharpness, 0.02, NOTHING),
        (dynamics.sharpness_high, 0.07, NOTHING),
        (dynamics.sharpness, 0.07, Asked((0.07,))),
    ],
)
def test_4_and_9_have_sharpness_of_training_and_held_out_data_at_one_level(found, select, level, asked):
    panels = select(found, asked).panels
    run = next(r for r in found.runs if r.name == "R0.07")
    train, held_out = (
        run.quantity("average_sharpness", split, level)["value"].tolist() for split in ("train", "held-out")
    )
    first, second = (series(panel, "R0.07").frame for panel in panels[:2])
    assert first["y"].tolist() == train
    assert second["y"].tolist() == held_out
    assert first["x"].tolist() == run.quantity("loss")["value"].tolist()
    assert second["x"].tolist() == run.quantity("loss", "held-out")["value"].tolist()
    assert all(f"σ = {level:g}" in panel.title for panel in panels)
    if select is dynamics.sharpness:
        third = series(panels[2], "R0.07").frame
        assert (third["x"].tolist(), third["y"].tolist()) == (train, held_out)
        assert panels[2].diagonal


def test_4_says_at_which_levels_there_is_something(found):
    selection = dynamics.sharpness(found, Asked((0.3,)))
    assert not selection.anything
    assert "at 0.3, not at 0.02, 0.07" in selection.missing[0]


@pytest.mark.parametrize(
    ("select", "quantity"), [(dynamics.cosines, "cosine"), (dynamics.perturbed_losses, "perturbed_loss")]
)
def test_5_and_10_have_a_panel_a_method(found, select, quantity):
    sam, rwp = select(found, NOTHING).panels
    assert (labels(sam), labels(rwp)) == (["S0.2", "S0.5"], ["R0.02", "R0.07", "R up"])
    run = next(r for r in found.runs if r.name == "R0.02")
    assert series(rwp, "R0.02").frame["y"].tolist() == run.quantity(quantity)["value"].tolist()


def test_a_panel_says_which_trainings_lack_a_quantity(tmp_path):
    make_run(tmp_path / "old", RWP[0], (0,), without=("cosine",))
    selection = dynamics.cosines(only(tmp_path, SAM[0], RWP[1]), NOTHING)
    assert labels(selection.panels[1]) == ["R0.07"]
    assert selection.missing == ("(b) cosine of R0.02 (noiserobust train --record.every auto)",)


def test_a_sample_that_was_taken_twice_counts_once(tmp_path):
    run = make_run(tmp_path / "a", SAM[0], (0,))
    path = run / "seed0" / "diagnostics.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, *lines[1:40]]) + "\n")
    frame = dynamics.cosines(find_runs([tmp_path]), NOTHING).panels[0].series[0].frame
    assert frame["at"].is_unique


def test_samples_in_which_a_loss_overflowed_are_not_drawn(tmp_path):
    run = make_run(tmp_path / "a", RAMPED, (0,))
    path = run / "seed0" / "diagnostics.csv"
    rows = pd.read_csv(path)
    rows.loc[(rows["step"] == 20) & (rows["split"] == "train") & rows["level"].isna(), "value"] = np.nan
    rows.loc[(rows["step"] == 25) & rows["level"].notna(), "value"] = np.nan
    rows.loc[rows["quantity"] == "cosine", "value"] = np.nan
    rows.to_csv(path, index=False)
    found = find_runs([tmp_path])
    whole = set(range(5, 61, 5))
    drawn = {
        name: [set(panel.series[0].frame["at"]) for panel in CATALOGUE[name].select(found, NOTHING).panels]
        for name in ("3", "4", "8", "10", "11", "12")
    }
    assert all(at == whole - {20} for name in ("3", "8", "10", "12") for at in drawn[name])
    assert drawn["4"] == [whole - {20, 25}, whole - {25}, whole - {25}]
    assert drawn["11"] == [whole - {20}, whole - {20, 25}]
    cosines = dynamics.cosines(found, NOTHING)
    assert not cosines.anything
    assert "(b) cosine of R up (noiserobust train --record.every auto)" in cosines.missing


def test_8_has_norms_and_paths(found):
    left, right = dynamics.paths(found, NOTHING).panels
    run = found.runs[0]
    assert series(left, "SGD").frame["y"].tolist() == run.quantity("update_gradient_norm")["value"].tolist()
    rows = run.quantity("epoch_path_length")
    assert series(right, "SGD").frame["y"].tolist() == rows["value"].tolist()
    assert series(right, "SGD").frame["x"].tolist() == rows["epoch"].tolist()  # also within epochs
    assert (rows["epoch"] % 1 > 0).any()


def test_11_needs_a_ramp(found, tmp_path):
    left, right = dynamics.ramped_sharpness(found, NOTHING).panels
    run = next(r for r in found.runs if r.name == "R up")
    assert series(left, "R up").frame["y"].tolist() == run.quantity("gradient_sharpness")["value"].tolist()
    assert series(right, "R up").frame["y"].tolist() == run.quantity("average_sharpness", level=0.02)["value"].tolist()
    constant = dynamics.ramped_sharpness(only(tmp_path, SAM[0]), NOTHING)
    assert not constant.anything
    assert constant.missing == (dynamics.RAMPED,)


def test_12_marks_where_a_ramp_ends(found):
    selection = dynamics.ramped_losses(found, NOTHING)
    (panel,) = selection.panels
    assert panel.title == "(b) RWP"
    assert panel.verticals == (("full strength reached", 3.0),)
    run = next(r for r in found.runs if r.name == "R up")
    assert series(panel, "R up").frame["y"].tolist() == run.quantity("full_strength_loss")["value"].tolist()
    assert selection.missing[0].startswith("(a) a training with SAM with a ramped strength")


@pytest.mark.parametrize(
    ("ramp", "end"), [({"steps": 25}, 2.5), ({"fraction": 0.25}, 1.5), ({}, 6.0)]
)  # ten steps an epoch, six epochs
def test_a_ramp_ends_after_its_steps_or_its_share(tmp_path, ramp, end):
    one = configuration("up", "sam", rho=0.5, schedule="linear", **ramp)
    (run,) = only(tmp_path, one, recorded=False).runs
    assert dynamics.ramp_end(run) == pytest.approx(end)


def test_12_asks_for_a_constant_training_to_compare_with(tmp_path):
    selection = dynamics.ramped_losses(only(tmp_path, RAMPED), NOTHING)
    assert any("to compare with, a training with RWP" in text for text in selection.missing)


def test_rwp_5_has_loss_and_accuracy_of_all(found):
    selection = accuracy.training_curves(found, NOTHING)
    assert [labels(p) for p in selection.panels] == [[r.name for r in found.runs]] * 2
    assert selection.notes == ("the training loss of R0.02, R0.07, R up is that at the perturbed weights",)
    metrics = found.runs[0].trainings[1].metrics
    frame = series(selection.panels[0], "SGD").frame
    assert frame[frame["train_seed"] == 1]["y"].tolist() == metrics["train_loss"].tolist()


def test_rwp_3_has_rho_of_sam_and_the_recorded_radius_of_rwp(found):
    selection = accuracy.by_radius(found, NOTHING)
    (panel,) = selection.panels
    assert panel.logx
    assert "held-out" in panel.ylabel  # the ramped one was not evaluated
    assert labels(panel) == ["SAM", "RWP", "RWP, ramped"]
    assert series(panel, "SAM").mean["x"].tolist() == [0.2, 0.5]
    assert series(panel, "RWP").mean["x"].tolist() == pytest.approx([20.0, 70.0])
    # Where it was first recorded at full strength.
    assert series(panel, "RWP, ramped").mean["x"].tolist() == pytest.approx([70.0])
    run = next(r for r in found.runs if r.name == "S0.2")
    kept = [t.metrics.loc[t.metrics["best"], "held_out_accuracy"].iloc[-1] for t in run.trainings]
    assert series(panel, "SAM").mean["y"].iloc[0] == pytest.approx(np.mean(kept))


def test_rwp_3_says_that_radii_were_not_recorded(tmp_path):
    selection = accuracy.by_radius(only(tmp_path, SAM[0], RWP[0], without=("perturbation_norm",)), NOTHING)
    assert labels(selection.panels[0]) == ["SAM"]
    assert selection.missing == ("perturbation_norm of R0.02 (noiserobust train --record.every auto)",)


def test_rwp_7_and_8_have_lines_over_one_setting(tmp_path):
    pure = [configuration(f"R{level}", "rwp", level=level, reference="l2") for level in (0.01, 0.02)]
    mixed = [configuration(f"m{level}", "rwp", level=level, reference="l2", weight=0.5) for level in (0.01, 0.02)]
    quarter = configuration("q", "rwp", level=0.01, reference="l2", weight=0.25)
    made = [*pure, *mixed, quarter]
    values = {one["label"]: {0.0: 80.0 + place} for place, one in enumerate(made)}
    make_evaluation(tmp_path / "eval", made, values, seeds=(0,))
    found = only(tmp_path, *made, recorded=False)
    (balance,) = accuracy.by_balance(found, NOTHING).panels
    assert labels(balance) == ["RWP γ = 0.01", "RWP γ = 0.02"]
    assert balance.ylabel == "clean test accuracy (%)"
    assert series(balance, "RWP γ = 0.01").mean["x"].tolist() == [0.0, 0.5, 0.75]
    assert series(balance, "RWP γ = 0.01").mean["y"].tolist() == [80.0, 82.0, 84.0]
    (level,) = accuracy.by_noise(found, NOTHING).panels
    assert level.xlabel == "γ of the noise in training"
    drawn = {one.label: one.mean["y"].tolist() for one in level.series}
    assert drawn == {"RWP l2 (pure)": [80.0, 81.0], "RWP l2 (mixed, α = 0.5)": [82.0, 83.0]}
    dashes = [one.look.dash for one in level.series]
    assert dashes[0] != dashes[1]


def test_rwp_7_and_8_say_which_trainings_lack(tmp_path):
    found = only(tmp_path, RWP[0], recorded=False)
    assert "method.perturbed_weight" in accuracy.by_balance(found, NOTHING).missing[0]
    mixed, pure = accuracy.by_noise(found, NOTHING).missing
    assert "mixed" in mixed
    assert "pure" in pure


def test_rwp_6_averages_over_corruptions_that_all_have(tmp_path):
    made = [SGD, SAM[0]]
    for corruption, cost in (("fog", 2.0), ("snow", 4.0), ("rain", 20.0)):
        for severity in (1, 3):
            own = made if corruption != "rain" else made[:1]
            values = {one["label"]: {0.0: 80.0 - cost * severity} for one in own}
            name = f"cifar10-c:data/CIFAR-10-C/{corruption}/{severity}"
            make_evaluation(tmp_path / f"{corruption}{severity}", own, values, data=name, seeds=(0,))
    clean = {one["label"]: {0.0: 90.0} for one in made}
    make_evaluation(tmp_path / "clean", made, clean, data="cifar10", seeds=(0,))
    (panel,) = accuracy.by_severity(find_runs([tmp_path]), NOTHING).panels
    assert panel.title == "cifar10-c, mean of 2 corruptions"
    assert series(panel, "SGD").mean["x"].tolist() == [0, 1, 3]
    assert series(panel, "SGD").mean["y"].tolist() == pytest.approx([90.0, 77.0, 71.0])


def test_rwp_6_says_what_to_evaluate(found):
    assert "cifar10-c:DIR/CORRUPTION/SEVERITY" in accuracy.by_severity(found, NOTHING).missing[0]


def test_7_has_planes_of_train_and_test_at_common_levels(tmp_path):
    folder = make_landscape(tmp_path / "around", [SAM[0], RWP[0]], points=9, seeds=(3, 1))
    found = find_runs([folder])
    planes = planes_of(found.landscapes)
    assert [(p.method, p.split) for p in planes] == [
        ("S0.2", "train"),
        ("S0.2", "test"),
        ("R0.02", "train"),
        ("R0.02", "test"),
    ]
    rows = found.landscapes
    for plane in planes:
        assert plane.z.shape == (9, 9)
        assert plane.lowest[:2] == (0.25, 0.0)
        own = rows[(rows["method"] == plane.method) & (rows["split"] == plane.split) & (rows["train_seed"] == 1)]
        at = own[(own["x"] == 0.5) & (own["y"] == -1.0)]["value"].item()
        assert plane.z[0, 6] == at
    levels = levels_of(planes)
    values = np.concatenate([p.z.ravel() for p in planes])
    assert levels[-1] == pytest.approx(np.quantile(values, 0.9))
    assert levels[-1] < 0.2 * values.max()  # the corner in which the loss explodes
    assert np.allclose(np.diff(np.log(levels)), np.diff(np.log(levels))[0])
    selection = around.contours(found, NOTHING)
    assert selection.anything
    assert selection.notes == ("of S0.2 train seed 1 is drawn", "of R0.02 train seed 1 is drawn")
    assert selection.folders == (folder,)


def test_levels_of_flat_zero_and_of_accuracies():
    def plane(z) -> Plane:
        return Plane("a", "train", np.arange(2.0), np.arange(2.0), np.array(z, dtype=float))

    assert np.all(np.diff(levels_of([plane([[1, 1], [1, 1]])])) > 0)
    assert np.all(np.diff(levels_of([plane([[0, 0], [0, 0]])])) > 0)
    zero = levels_of([plane([[0, 1], [2, 3]])])
    assert zero[0] == pytest.approx(1e-3 * zero[-1])
    linear = levels_of([plane([[10, 50], [90, 100]])], "accuracy")
    assert linear[-1] == 100
    assert np.allclose(np.diff(linear), np.diff(linear)[0])
    assert np.isfinite(levels_of([plane([[np.inf, np.inf], [np.inf, np.inf]])])).all()
    assert np.isfinite(levels_of([plane([[1, np.inf], [np.nan, 3]])])).all()


@pytest.mark.parametrize("finite", [0, 1, 3, 20])
@pytest.mark.parametrize("highest", [1.0, 3e38])
def test_landscapes_are_drawn_where_the_loss_explodes(finite, highest):
    z = np.full(25, np.inf)
    z[12 - finite // 2 :][:finite] = np.linspace(0.1, highest, finite)
    one = Plane("a", "train", np.linspace(-1, 1, 5), np.linspace(-1, 1, 5), z.reshape(5, 5))
    crosses = draw_contours([one])["svg"].decode().count("#d55e00")
    assert (crosses > 0) == (finite > 0)  # at a minimum that there is
    assert draw_surfaces([one])["svg"]
    line = pd.DataFrame({"x": np.arange(25.0) - 12, "y": np.nan, "value": z, "method": "a", "train_seed": 0})
    line = line.assign(weights="a", split="train", metric="loss", n_draws=1)
    (panel,) = curves_of(line)
    assert panel.series[0].frame["y"].tolist() == z[np.isfinite(z)].tolist()
    assert draw_landscape(line)["svg"]


def test_of_several_weights_of_a_train_seed_the_first_are_a_line(tmp_path):
    best = make_landscape(tmp_path / "a", [SGD], points=5, line=True, seeds=(0, 1))
    frame = read_landscape(best)
    last = frame.assign(weights="SGD-last.safetensors", value=7.0)
    (panel, _) = curves_of(pd.concat([last, frame], ignore_index=True))
    drawn = panel.series[0].frame.sort_values(["train_seed", "x"])
    expected = frame[frame["split"] == "train"].sort_values(["train_seed", "x"])
    assert drawn["y"].tolist() == expected["value"].tolist()


def test_7_says_which_data_lack(tmp_path):
    folder = make_landscape(tmp_path / "around", [SGD], points=3, splits=("train",))
    selection = around.contours(find_runs([folder]), NOTHING)
    assert selection.missing == ("a landscape on test data of SGD (noiserobust diagnose landscape --split test)",)


def test_rwp_2_has_loss_and_accuracy_along_a_line(tmp_path):
    folder = make_landscape(tmp_path / "a", [SGD, SAM[0]], points=5, line=True, metrics=("loss", "accuracy"))
    found = find_runs([folder])
    selection = around.curves(found, NOTHING)
    assert [(p.title, p.ylabel) for p in selection.panels] == [
        ("(a) training data", "loss"),
        ("(b) test data", "loss"),
        ("(c) training data", "accuracy (%)"),
        ("(d) test data", "accuracy (%)"),
    ]
    rows = found.landscapes
    own = rows[(rows["method"] == "SGD") & (rows["split"] == "test") & (rows["metric"] == "accuracy")]
    assert series(selection.panels[3], "SGD").frame["y"].tolist() == own["value"].tolist()
    assert not selection.missing
    assert labels(curves_of(rows)[0]) == ["SGD", "S0.2"]
    loss = make_landscape(tmp_path / "b", [SGD], points=5, line=True, splits=("train",))
    less = around.curves(find_runs([loss]), NOTHING)
    assert [text.partition(" along")[0] for text in less.missing] == ["loss", "accuracy", "accuracy"]
    assert around.contours(found, NOTHING).missing == (
        "a landscape over a plane (noiserobust diagnose landscape --dimensions 2)",
    )


def test_rwp_4_has_a_density_and_the_variation_within_layers(tmp_path):
    found = find_runs([make_filters(tmp_path / "f", [SGD, SAM[1]], number=500)])
    (panel,) = around.filter_norms(found, NOTHING).panels
    rows = found.filters[found.filters["method"] == "SGD"]
    by_hand = np.mean([own["norm"].std(ddof=0) / own["norm"].mean() for _, own in rows.groupby("layer")])
    assert around.variation(rows) == pytest.approx(by_hand)
    assert labels(panel)[0] == f"SGD (CV {by_hand:.2f})"
    for name, one in zip(("SGD", "S0.5"), panel.series, strict=True):
        own = found.filters.loc[found.filters["method"] == name, "norm"]
        width = one.frame["x"].diff().iloc[1]
        shown = one.frame["x"].iloc[-1] + width / 2
        assert one.frame["y"].sum() * width == pytest.approx((own <= shown).mean())


def test_figures_without_their_data_are_not_drawn(tmp_path):
    found = only(tmp_path, SGD, recorded=False)
    for select in (around.contours, around.surfaces, around.curves, around.filter_norms, accuracy.by_radius):
        selection: Selection = select(found, NOTHING)
        assert not selection.anything
        assert selection.missing
    assert entries_of([SGD], (0,))[0]["trained"]["method"] == "sgd"


def test_2_of_a_device_is_over_time_without_the_clean_level(tmp_path):
    values = {one["label"]: {0.0: 80.0, 3600.0: 75.0, 86400.0: 70.0} for one in (SAM[0], RWP[0])}
    make_evaluation(tmp_path / "eval", [SAM[0], RWP[0]], values, noise=("pcm", "t"), seeds=(0,))
    marks, best = accuracy.scatter_strong(find_runs([tmp_path]), NOTHING).panels
    assert marks.ylabel == "test accuracy (%) at t = 1 d"
    assert best.times
    assert series(best, "RWP").mean["x"].tolist() == [3600.0, 86400.0]
    svg = draw_panels([best])["svg"].decode()
    assert ">1 h<" in svg
    assert ">1 d<" in svg


def test_of_two_landscapes_the_finer_counts_and_others_than_random_are_left_out(tmp_path):
    def plane(name: str, points: int, said: dict) -> Path:
        folder = make_landscape(tmp_path / name, [SGD], points=points, splits=("train",))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["configuration"] |= said
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    def random(seed: int) -> dict:
        return {"noise": {"kind": "landscape", "directions": [{"kind": "random", "seed": seed, "index": 0}]}}

    plane("coarse", 4, random(0))
    fine = plane("fine", 7, random(0))
    plane("noisy", 9, {"noise": {**random(0)["noise"], "noise": {"kind": "gaussian"}}})
    plane("chips", 9, {"noise": {"directions": [{"kind": "noise"}]}})
    plane("between", 9, {"to": {"file": "b.safetensors"}})
    found = find_runs([tmp_path])
    (only_one,) = planes_of(found.landscapes)
    assert only_one.z.shape == (7, 7)
    selection = around.contours(found, NOTHING)
    assert selection.folders == (fine,)
    left_out = "landscapes along other directions or under noise are left out: between, chips, noisy"
    assert selection.notes == (left_out,)
    other = make_landscape(tmp_path / "other", [SAM[0]], points=3, splits=("train",))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["configuration"] |= random(1)
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert any("--direction-seed" in note for note in find_runs([tmp_path]).landscape_notes)
