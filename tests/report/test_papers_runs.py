"""What is found for the figures of papers: how trainings were made, what they are called, what belongs together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from paper_folders import configuration, make_evaluation, make_filters, make_landscape, make_run

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.report.papers.recipes import Recipe, recipe_of, recipe_of_weights, selection_noise
from noiserobust.report.papers.runs import find_runs

SGD = configuration("SGD")


@pytest.mark.parametrize(
    ("settings", "family", "strength", "symbol", "noise"),
    [
        (SGD, "sgd", None, "", ""),
        (configuration(None, "sam", rho=0.3), "sam", 0.3, "ρ", ""),
        (configuration(None, "sam"), "sam", 0.05, "ρ", ""),
        (configuration(None, "asam"), "asam", 0.5, "ρ", ""),
        (configuration(None, "rwp", level=0.02), "rwp", 0.02, "σ", "gaussian"),
        (configuration(None, "rwp", level="0.02"), "rwp", 0.02, "σ", "gaussian"),
        (configuration(None, "rwp", level=0.01, reference="l2"), "rwp", 0.01, "γ", "gaussian, l2"),
        (configuration(None, "rwp"), "rwp", 0.05, "σ", "gaussian"),
        (configuration(None, "was"), "was", 0.22, "p", "kernels"),
    ],
)
def test_a_recipe_is_read_from_the_configuration(settings, family, strength, symbol, noise):
    recipe = recipe_of(settings)
    assert (recipe.family, recipe.strength, recipe.symbol, recipe.noise) == (family, strength, symbol, noise)
    assert not recipe.ramped
    assert not recipe.mixed


def test_recipes_of_devices_ranges_mixtures_and_ramps():
    device = configuration(None, "rwp", level="1d", weight=0.25, schedule="quadratic", fraction=0.5)
    device["method"]["noise"]["name"] = "pcm"
    recipe = recipe_of(device)
    assert (recipe.strength, recipe.strength_text, recipe.symbol) == (86400.0, "1 d", "t")
    assert (recipe.mixed, recipe.perturbed_weight) == (True, 0.25)
    assert (recipe.ramped, recipe.schedule, recipe.ramp) == (True, "quadratic", (None, 0.5))
    spread = configuration(None, "rwp")
    spread["method"]["level_range"] = [0.0, 0.1]
    assert recipe_of(spread).strength == 0.1
    assert recipe_of({}) == recipe_of({"method": 3}) == Recipe()
    odd = recipe_of({"method": {"name": "rwp", "noise": "x", "schedule": [1], "rho": True}})
    assert (odd.strength, odd.schedule) == (0.05, "constant")
    assert recipe_of_weights({"method": "rwp", "noise": "gaussian", "level": 0.1}).strength == 0.1
    assert recipe_of_weights(None) == Recipe()


def test_the_noise_of_the_selection_is_the_trainer_s():
    assert selection_noise(SGD) == "gaussian 0.05"
    own = configuration(None, "rwp", level=0.08, select={"noise": {"name": None, "level": None}})
    assert selection_noise(own) == "gaussian 0.08"
    assert selection_noise({**SGD, "select": {"noise": {"name": None, "level": None}}}) == "gaussian 0.05"
    l2 = {**SGD, "select": {"noise": {"name": "gaussian", "level": 0.01, "reference": "l2"}}}
    assert selection_noise(l2) == "gaussian 0.01, l2"


def test_trainings_are_joined_over_seeds_and_in_the_order_of_strength(tmp_path: Path):
    strong, weak = (configuration(f"R{level}", "rwp", level=level) for level in (0.1, 0.02))
    make_run(tmp_path / "a", strong, (1,))
    make_run(tmp_path / "b", strong, (0,))
    make_run(tmp_path / "c", weak)
    make_run(tmp_path / "d", SGD, recorded=False)
    found = find_runs([tmp_path, tmp_path / "a"])
    assert [run.name for run in found.runs] == ["SGD", "R0.02", "R0.1"]
    assert [t.train_seed for t in found.runs[2].trainings] == [0, 1]
    assert found.runs[2].folders == (tmp_path / "b", tmp_path / "a")
    assert set(found.runs[2].quantity("loss")["train_seed"]) == {0, 1}
    assert found.runs[0].diagnostics.empty
    assert found.runs[2].levels("average_sharpness") == {0.02, 0.07}


def test_of_one_training_in_two_places_the_recorded_one_counts(tmp_path: Path):
    make_run(tmp_path / "a", SGD, (0,), recorded=False)
    make_run(tmp_path / "b", SGD, (0,))
    (run,) = find_runs([tmp_path]).runs
    assert run.folders == (tmp_path / "b",)


def test_trainings_of_one_label_are_told_apart(tmp_path: Path):
    made = [configuration(None, "rwp", level=level) for level in (0.02, 0.05)]
    made += [configuration(None, "rwp", level=0.05, weight=0.5), configuration(None, "rwp", level=0.05, epochs=4)]
    for place, one in enumerate(made):
        make_run(tmp_path / f"run{place}", one, (0,), recorded=False)
    names = [run.name for run in find_runs([tmp_path]).runs]
    assert sorted(names) == ["rwp 0.02", "rwp 0.05 (run1)", "rwp 0.05 (run3)", "rwp 0.05 α=0.5"]


def test_evaluations_find_their_training_by_its_hash(tmp_path: Path):
    made = [configuration(None, "rwp", level=level) for level in (0.02, 0.05)]
    for place, one in enumerate(made):
        make_run(tmp_path / f"run{place}", one, (0,), recorded=False)
        make_evaluation(tmp_path / f"eval{place}", [one], {"rwp": {0.0: 80.0 - place, 0.07: 60.0}}, seeds=(0,))
    make_landscape(tmp_path / "around", [made[1]])
    make_filters(tmp_path / "filters", [made[0]])
    found = find_runs([tmp_path])
    assert found.tests.clean.set_index("method")["value"].to_dict() == {"rwp 0.02": 80.0, "rwp 0.05": 79.0}
    assert set(found.landscapes["method"]) == {"rwp 0.05"}
    assert set(found.filters["method"]) == {"rwp 0.02"}
    assert found.tests.folders["rwp 0.05"] == (tmp_path / "eval1",)


def test_weights_of_one_training_under_two_names_keep_them(tmp_path: Path):
    make_run(tmp_path / "run", SGD, (0,), recorded=False)
    for name, value in (("SGD best", 80.0), ("SGD last", 79.0)):
        make_evaluation(tmp_path / name, [SGD], {name: {0.0: value, 0.1: 50.0}}, seeds=(0,), method=name)
    found = find_runs([tmp_path])
    assert found.tests.clean.set_index("method")["value"].to_dict() == {"SGD best": 80.0, "SGD last": 79.0}
    assert found.recipes["SGD last"].family == "sgd"


def test_evaluations_without_trainings_say_what_they_know(tmp_path: Path):
    one = configuration("R", "rwp", level=0.02)
    make_evaluation(tmp_path / "a", [one], {"R": {0.0: 80.0, 0.1: 50.0}}, hashed=False)
    found = find_runs([tmp_path])
    assert not found.runs
    assert (found.recipes["R"].family, found.recipes["R"].strength_text) == ("rwp", "0.02")


def test_ramped_trainings_have_the_colour_of_constant_ones_and_others_their_own(tmp_path: Path):
    made = [SGD, *(configuration(f"S{rho}", "sam", rho=rho) for rho in (0.2, 0.5))]
    made += [
        configuration("ramped", "sam", rho=0.5, schedule="linear"),
        configuration("mixed", "sam", rho=0.5, weight=0.5),
    ]
    for one in made:
        make_run(tmp_path / one["label"], one, (0,), recorded=False)
    looks = find_runs([tmp_path]).looks
    assert looks["ramped"].color == looks["S0.5"].color
    assert looks["ramped"].dash != looks["S0.5"].dash
    assert looks["mixed"].dash not in (looks["ramped"].dash, looks["S0.5"].dash)
    assert len({looks[name].color for name in ("SGD", "S0.2", "S0.5", "mixed")}) == 4


def test_evaluations_on_other_data_and_under_other_noise_are_left_out_and_told(tmp_path: Path):
    made = [SGD, configuration("S", "sam", rho=0.2)]
    both = {"SGD": {0.0: 80.0, 0.1: 60.0}, "S": {0.0: 81.0, 0.1: 65.0}}
    make_evaluation(tmp_path / "a", made, both)
    make_evaluation(tmp_path / "b", made[:1], {"SGD": {0.0: 10.0, 0.1: 5.0}}, data="mnist")
    make_evaluation(tmp_path / "c", made, both, noise=("laplace", "b"))
    found = find_runs([tmp_path])
    assert found.tests.noise == "gaussian"
    assert set(found.tests.clean["value"]) == {80.0, 81.0, 82.0}
    assert found.notes == (
        "evaluations on other test data are left out: mnist",
        "of the test noises gaussian is drawn, not laplace",
    )


def test_evaluations_on_training_data_are_left_out_and_told(tmp_path: Path):
    make_evaluation(tmp_path / "test", [SGD], {"SGD": {0.0: 80.0, 0.1: 60.0}}, seeds=(0,))
    own = make_evaluation(tmp_path / "fitted", [SGD], {"SGD": {0.0: 99.0, 0.1: 90.0}}, seeds=(0,), split="train")
    found = find_runs([tmp_path])
    assert found.tests.clean["value"].tolist() == [80.0]
    assert found.tests.folders == {"SGD": (tmp_path / "test",)}
    said = ("evaluations on training data are left out: fitted",)
    assert found.notes == said
    alone = find_runs([own])
    assert (len(alone.tests.clean), len(alone.tests.noisy), alone.notes) == (0, 0, said)


def test_methods_are_picked_by_name(tmp_path: Path):
    made = [SGD, configuration("SAM 0.2", "sam", rho=0.2)]
    for one in made:
        make_run(tmp_path / one["label"], one, (0,), recorded=False)
    make_evaluation(tmp_path / "eval", made, {"SGD": {0.0: 80.0}, "SAM 0.2": {0.0: 81.0}})
    found = find_runs([tmp_path], ["SGD"])
    assert [run.name for run in found.runs] == list(found.recipes) == ["SGD"]
    assert set(found.tests.clean["method"]) == {"SGD"}
    with pytest.raises(InvalidValueError, match=r"`methods` .* but got 'SAM 0.3'; did you mean 'SAM 0.2'"):
        find_runs([tmp_path], ["SAM 0.3"])


def test_bad_folders_are_refused(tmp_path: Path):
    with pytest.raises(InvalidValueError, match="at least one folder"):
        find_runs([])
    with pytest.raises(MissingFileError, match="Expected a folder"):
        find_runs([tmp_path / "none"])
    with pytest.raises(MissingFileError, match="but it has none"):
        find_runs([tmp_path])
    run = make_run(tmp_path / "a", SGD, (0,))
    (run / "seed0" / "diagnostics.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(InvalidValueError, match=r"diagnostics\.csv to hold the diagnostics"):
        find_runs([tmp_path])


def test_what_an_interrupted_diagnosis_left_is_passed_over(tmp_path: Path):
    make_run(tmp_path / "run", SGD, (0,))
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "manifest.json").write_text(json.dumps({"kind": "landscape", "configuration": {}}))
    assert find_runs([tmp_path]).landscapes.empty


@pytest.mark.parametrize("content", ["{not json", "[1, 2]", ""])
def test_a_training_with_a_damaged_manifest_is_not_left_out_silently(tmp_path, content):
    make_run(tmp_path / "a", configuration("SAM", "sam"), (0,))
    damaged = make_run(tmp_path / "b", SGD, (0,))
    (damaged / "manifest.json").write_text(content)
    with pytest.raises(InvalidValueError, match=r"manifest\.json"):
        find_runs([tmp_path])
