"""The space that is searched, and records of trials."""

import math
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from noiserobust.cli.parsing import checked_settings
from noiserobust.config import AverageConfig, ClipConfig, NoiseConfig, OptimizerConfig, TrainConfig
from noiserobust.errors import InvalidValueError
from noiserobust.train.recipe import build_method
from noiserobust.tune.space import ORDINARY, SHARES, STRENGTHS, Space, settings_of
from noiserobust.tune.trials import COMPLETE, FAILED, PRUNED, Record, import_optuna, is_poor, read_record, write_record

optuna = pytest.importorskip("optuna", reason="needs the extra `tune`")

BASE = TrainConfig("digits-mlp", "digits", epochs=9, optimizer=OptimizerConfig(lr=0.05))
SPACE = Space(BASE, "pcm-nandakumar-2019", "1d", ["1h", "1d"], sigma=0.06)


def points(number: int = 60, seed: int = 0) -> list[dict]:
    study = import_optuna().create_study(sampler=optuna.samplers.RandomSampler(seed))
    return [SPACE.suggest(study.ask()) for _ in range(number)]


def test_no_trial_has_more_passes_than_the_plain_training():
    passes = {p["share"]: SPACE.config(p).epochs * build_method(SPACE.config(p).method).passes for p in points()}
    assert passes == {1.0: 9, 0.5: 8}  # of a step
    assert SPACE.plain().epochs == 9


def test_every_point_is_a_training_selected_on_the_device():
    for point in points():
        config = SPACE.config(point)
        assert config.selection_noise == NoiseConfig("pcm-nandakumar-2019", "1d")
        build_method(config.method)


def test_the_noise_is_as_strong_as_the_device_times_strength():
    gaussian = SPACE.config({**ORDINARY, "strength": 2.0}).method.noise
    assert (gaussian.name, gaussian.level) == ("gaussian", pytest.approx(0.12))
    laplace = SPACE.config({**ORDINARY, "noise": "laplace", "strength": 2.0}).method.noise
    assert laplace.level * math.sqrt(2) == pytest.approx(0.12, rel=1e-3)  # the standard deviation of Laplace(0, b)
    device = {**ORDINARY, "noise": "device", "t": "1h"}
    assert SPACE.config(device).method.noise == NoiseConfig("pcm-nandakumar-2019", "1h")


def test_what_is_not_searched_stays_as_it_is():
    base = replace(BASE, clip=ClipConfig(grad_norm=1.0), label_smoothing=0.1)
    config = replace(SPACE, base=base).config({**ORDINARY, "clip": "2.5"})
    assert (config.clip.grad_norm, config.clip.weight_stds, config.label_smoothing) == (1.0, 2.5, 0.1)


def test_what_is_searched_is_not_that_of_the_base():
    base = replace(BASE, clip=ClipConfig(weight_stds=4.0), average=AverageConfig(0.5))
    for config in (SPACE.plain(), replace(SPACE, base=base).plain(), SPACE.config(ORDINARY)):
        assert (config.clip, config.average) == (ClipConfig(), AverageConfig())


@pytest.mark.parametrize(
    ("clip", "stds", "granularity"), [("none", None, None), ("2.5", 2.5, "tensor"), ("1.5 filter", 1.5, "filter")]
)
def test_clips_and_averages_are_what_they_are_called(clip, stds, granularity):
    config = SPACE.config({**ORDINARY, "clip": clip, "average": "0.99"})
    assert config.clip == ClipConfig(weight_stds=stds, granularity=granularity)
    assert config.average == AverageConfig(0.99)


def test_the_default_is_a_point_of_the_space_but_for_its_strength_and_chips():
    default, near = SPACE.default().resolved(), SPACE.config(SPACE.near_default(), "robust")
    assert (default.method.name, default.method.chips) == ("robust", 4)
    noise = replace(default.method.noise, name="gaussian")
    assert near == replace(default, method=replace(default.method, name="rwp", noise=noise, chips=None))
    weak = replace(SPACE, sigma=0.001).near_default()
    assert weak["strength"] == STRENGTHS[1]
    trial = optuna.trial.FixedTrial(dict(weak))
    assert SPACE.suggest(trial) == weak


def test_one_epoch_cannot_be_halved():
    with pytest.raises(InvalidValueError, match="`epochs` to be >= 2"):
        replace(SPACE, base=replace(BASE, epochs=1)).config({**ORDINARY, "share": 0.5})


@pytest.mark.slow
def test_the_file_of_a_training_gives_the_same_training():
    for config in [SPACE.plain(), SPACE.default(), *(SPACE.config(p) for p in points(20))]:
        again = checked_settings(TrainConfig, yaml.safe_load(yaml.safe_dump(settings_of(config))))
        assert again.resolved() == config.resolved()


def test_the_bounds_of_the_space_are_met():
    drawn = points(200)
    strengths = [p["strength"] for p in drawn if "strength" in p]
    assert STRENGTHS[0] <= min(strengths) < 0.7
    assert 6 < max(strengths) <= STRENGTHS[1]
    assert {p["share"] for p in drawn} == set(SHARES)
    assert all(("t" in p) is (p["noise"] == "device") for p in drawn)
    assert all(("fraction" in p) is (p["schedule"] != "constant") for p in drawn)


def record(number: int, accuracies: dict[int, float], state: str = COMPLETE) -> Record:
    value = max(accuracies.values()) if state == COMPLETE else None
    return Record(number, ORDINARY, state, value, 10, accuracies)


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=12, unique=True), st.integers(0, 1000), st.integers(1, 10))
def test_poor_is_below_the_median_at_the_same_compute_after_half_of_it(others, own, step):
    finished = [record(n, {step: v / 10, 10: 99.0}) for n, v in enumerate(others)]
    median = float(np.median(np.array(others) / 10)) if step != 10 else 99.0
    assert is_poor({step: own / 10}, finished, budget=10) is bool(step >= 5 and own / 10 < median)


def test_nothing_is_poor_among_few():
    assert not is_poor({10: 0.0}, [record(n, {10: 99.0}) for n in range(3)], budget=10)


@pytest.mark.parametrize("state", [COMPLETE, PRUNED, FAILED])
def test_records_are_read_as_written(tmp_path, state):
    (tmp_path / "trials").mkdir()
    one = Record(3, dict(ORDINARY), state, 97.25 if state == COMPLETE else None, 10, {1: 50.0, 2: 97.25}, "why")
    write_record(tmp_path, one)
    assert read_record(tmp_path, 3) == one
    assert read_record(tmp_path, 4) is None


@pytest.mark.parametrize(
    "change",
    [{"state": "won"}, {"value": None}, {"number": 4}, {"params": [1]}, {"accuracies": {"x": 1}}, {"more": 1}],
    ids=str,
)
def test_damaged_records_are_refused(tmp_path, change):
    import json

    (tmp_path / "trials").mkdir()
    write_record(tmp_path, record(3, {1: 50.0}))
    path = tmp_path / "trials/0003.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidValueError, match="record of trial 3"):
        read_record(tmp_path, 3)
