"""Method ``robust``: RWP with settings of its own where none are given."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_models import cnn, images, same_bits, snapshot

from noiserobust.cli.parsing import checked_settings
from noiserobust.config import (
    AverageConfig,
    ClipConfig,
    MethodConfig,
    NoiseConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.errors import InvalidValueError
from noiserobust.report.papers.recipes import recipe_of, selection_noise
from noiserobust.train.trainer import Trainer
from noiserobust.tune.space import settings_of

ROBUST = TrainConfig(
    "own", "own", method=MethodConfig("robust"), optimizer=OptimizerConfig(lr=0.05), epochs=4, batch_size=8
)
SPELLED_OUT = replace(
    ROBUST,
    method=MethodConfig("rwp", noise=NoiseConfig("gaussian", 0.2), schedule=ScheduleConfig("quadratic", fraction=0.7)),
    clip=ClipConfig(weight_stds=1.5, granularity="filter"),
    average=AverageConfig(0.99),
)


def trainer(config: TrainConfig, examples: int) -> Trainer:
    return Trainer(cnn(), ArrayData(*images(examples), "images"), config, Normalize())


def kept(config: TrainConfig, examples: int = 20) -> dict[str, object]:
    training = trainer(config, examples)
    list(training.epochs())
    return snapshot(training.kept)


def with_chips(config: TrainConfig, chips: int | None) -> TrainConfig:
    return replace(config, method=replace(config.method, chips=chips))


def test_it_is_the_training_that_the_readme_spells_out() -> None:
    assert same_bits(kept(ROBUST), kept(SPELLED_OUT))
    assert not same_bits(kept(ROBUST), kept(replace(SPELLED_OUT, clip=ClipConfig())))


def test_each_quarter_of_a_batch_has_noise_of_its_own() -> None:
    large, spelled_out = (replace(config, batch_size=128) for config in (ROBUST, SPELLED_OUT))
    found = kept(large, 130)
    assert same_bits(found, kept(with_chips(spelled_out, 4), 130))
    assert not same_bits(found, kept(replace(spelled_out, accumulate=4), 130))  # four micro-batches, one noise


@pytest.mark.parametrize(
    ("batch_size", "chips"), [(1, 1), (50, 1), (63, 1), (64, 2), (96, 2), (100, 2), (125, 1), (128, 4), (1024, 4)]
)
def test_chips_have_32_examples_or_more(batch_size: int, chips: int) -> None:
    config = replace(ROBUST, batch_size=batch_size)
    assert config.resolved().method.chips == chips
    assert config.as_dict()["method"].get("chips", 1) == chips
    assert checked_settings(TrainConfig, config.as_dict()).resolved() == config.resolved()


def test_chips_are_written_down_where_they_are_not_what_a_batch_gives_anyway() -> None:
    large = replace(ROBUST, batch_size=128)
    for chips in (1, 2, 8):
        said = with_chips(large, chips).as_dict()
        assert said["method"]["chips"] == chips
        assert checked_settings(TrainConfig, said).resolved().method.chips == chips
    assert "chips" not in ROBUST.as_dict()["method"]  # as in earlier versions
    split = replace(large, method=MethodConfig("robust", split_ranks=True))
    assert split.resolved().method.chips == 1


@pytest.mark.parametrize(
    ("accumulate", "chips", "micro"), [(1, 4, 4), (2, 4, 4), (8, 4, 8), (1, 1, 1), (16, 2, 16), (4, 8, 8)]
)
def test_micro_batches_that_save_memory_leave_the_chips_as_they_are(accumulate: int, chips: int, micro: int) -> None:
    training = trainer(with_chips(replace(ROBUST, batch_size=128, accumulate=accumulate), chips), 130)
    assert (training.chips, len(training.parts), training.optimizer.method.chips) == (chips, micro, chips)


@pytest.mark.parametrize(("examples", "chips"), [(127, 1), (126, 2), (100, 2), (45, 1), (5, 1), (3, 1)])
def test_a_batch_of_few_examples_has_fewer_chips(examples: int, chips: int) -> None:
    training = trainer(replace(ROBUST, batch_size=128), examples)
    assert (training.batch_size, training.chips, training.steps_per_epoch) == (examples, chips, 1)
    list(training.epochs())


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "chips"), [(96, 32, 2), (128, 16, 4), (160, 5, 1), (320, 5, 2), (64, 8, 2)]
)
def test_chips_leave_micro_batches_that_are_small_anyway_as_they_are(batch_size, accumulate, chips) -> None:
    training = trainer(replace(ROBUST, batch_size=batch_size, accumulate=accumulate), 2 * batch_size)
    assert training.chips == chips
    size = training.parts[0].stop - training.parts[0].start
    assert size >= min(32, batch_size // accumulate)


def test_chips_that_do_not_divide_a_batch_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"`batch_size` to be a multiple of `method\.chips`, 3, but got 8"):
        with_chips(ROBUST, 3)
    with pytest.raises(InvalidValueError, match=r"Expected `method\.chips` to be an integer >= 1, but got 0"):
        MethodConfig("rwp", chips=0)
    with pytest.raises(InvalidValueError, match=r"`method\.chips` to be given with method\.name robust, rwp only"):
        MethodConfig("sam", chips=2)


def test_what_is_written_down_says_all_of_it() -> None:
    said = ROBUST.as_dict()
    expected = SPELLED_OUT.as_dict()
    expected["method"] |= {"name": "robust", "noise": {**expected["method"]["noise"], "name": None}}
    assert said == expected
    assert checked_settings(TrainConfig, said).resolved() == ROBUST.resolved()  # as from a manifest
    assert settings_of(ROBUST)["method"] == {"name": "robust"}
    assert checked_settings(TrainConfig, settings_of(ROBUST)) == ROBUST
    for size, chips in ((64, 4), (64, 1), (128, 4), (128, 2), (8, 4)):
        config = with_chips(replace(ROBUST, batch_size=size), chips)
        assert checked_settings(TrainConfig, settings_of(config)).resolved() == config.resolved()


@pytest.mark.parametrize(
    "given",
    [
        {"method": MethodConfig("robust", noise=NoiseConfig(level=0.1))},
        {"method": MethodConfig("robust", schedule=ScheduleConfig("linear"))},
        {"method": MethodConfig("robust", schedule=ScheduleConfig("constant"))},
        {"method": MethodConfig("robust", level_range=[0.1, 0.4])},
        {"clip": ClipConfig(weight_stds=2.5, granularity="tensor")},
        {"average": AverageConfig(0.9)},
    ],
)
def test_what_is_given_counts(given: dict[str, object]) -> None:
    config = replace(SPELLED_OUT, method=MethodConfig("robust"), clip=ClipConfig(), average=AverageConfig())
    config = replace(config, **given).resolved()
    for name, value in given.items():
        if isinstance(value, MethodConfig):
            wanted = {k: v for k, v in vars(value).items() if v != getattr(MethodConfig("robust"), k)}
            found = vars(config.method)
            assert {k: found[k] for k in wanted} == wanted
        else:
            assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("noise", "level", "selected"),
    [
        (NoiseConfig(), 0.2, 0.1),
        (NoiseConfig("laplace"), 0.14, 0.07),
        (NoiseConfig("gaussian", 0.1), 0.1, 0.05),
        (NoiseConfig("pcm-nandakumar-2019"), None, None),
        (NoiseConfig("pcm-nandakumar-2019", "1y"), "1y", "1y"),
    ],
)
def test_the_best_epoch_is_selected_at_half_the_level(noise: NoiseConfig, level: object, selected: object) -> None:
    config = TrainConfig("own", "own", method=MethodConfig("robust", noise=noise))
    assert config.resolved().method.noise == replace(noise, level=level)
    assert config.selection_noise == config.resolved().selection_noise == replace(noise, level=selected)


def test_another_method_has_none_of_its_settings() -> None:
    plain = replace(ROBUST, method=MethodConfig("sgd"))
    assert (plain.clip, plain.average) == (ClipConfig(), AverageConfig())
    assert plain.resolved().clip == ClipConfig(granularity="tensor")
    assert plain.resolved().average == AverageConfig()
    assert plain.resolved().method.schedule == ScheduleConfig("constant")
    assert plain.resolved().method.chips is None


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (ClipConfig(weight_stds=2.0), ClipConfig(weight_stds=2.0, granularity="filter")),
        (ClipConfig(granularity="tensor"), ClipConfig(weight_stds=1.5, granularity="tensor")),
        (ClipConfig(weight_value=0.5), ClipConfig(weight_value=0.5, granularity="tensor")),
        (ClipConfig(weight_stds=0), ClipConfig(granularity="tensor")),
        (ClipConfig(grad_norm=1.0), ClipConfig(grad_norm=1.0, weight_stds=1.5, granularity="filter")),
    ],
)
def test_clipping_is_completed_setting_by_setting_and_can_be_left_out(given: ClipConfig, used: ClipConfig) -> None:
    assert replace(ROBUST, clip=given).resolved().clip == used


def test_the_average_can_be_left_out() -> None:
    config = replace(ROBUST, average=AverageConfig(0))
    assert config.resolved().average == AverageConfig()
    assert "average" not in config.as_dict()


def test_a_level_of_another_reference_has_to_be_given() -> None:
    for reference in ("l2", "absolute", "std", "sqrt-max"):
        noise = NoiseConfig(reference=reference)
        with pytest.raises(InvalidValueError, match=f"`method.noise.level` to be given with reference '{reference}'"):
            replace(ROBUST, method=MethodConfig("robust", noise=noise))
        replace(ROBUST, method=MethodConfig("robust", noise=replace(noise, level=0.01)))


def test_clipping_by_filter_alone_means_nothing_to_others() -> None:
    with pytest.raises(InvalidValueError, match=r"`clip\.granularity` to be given with `clip\.weight_stds` only"):
        replace(ROBUST, method=MethodConfig("rwp"), clip=ClipConfig(granularity="filter"))


def test_figures_know_it() -> None:
    recipe = recipe_of(ROBUST.as_dict())
    assert (recipe.family, recipe.strength, recipe.schedule) == ("robust", 0.2, "quadratic")
    assert selection_noise(ROBUST.as_dict()) == "gaussian 0.1"


def test_settings_of_other_methods_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"method\.rho"):
        MethodConfig("robust", rho=0.1)
