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


def kept(config: TrainConfig) -> dict[str, object]:
    trainer = Trainer(cnn(), ArrayData(*images(20), "images"), config, Normalize())
    list(trainer.epochs())
    return snapshot(trainer.kept)


def test_it_is_the_training_that_the_readme_spells_out() -> None:
    assert same_bits(kept(ROBUST), kept(SPELLED_OUT))
    assert not same_bits(kept(ROBUST), kept(replace(SPELLED_OUT, clip=ClipConfig())))


def test_what_is_written_down_says_all_of_it() -> None:
    said = ROBUST.as_dict()
    expected = SPELLED_OUT.as_dict()
    expected["method"] |= {"name": "robust", "noise": {**expected["method"]["noise"], "name": None}}
    assert said == expected
    assert checked_settings(TrainConfig, said) == ROBUST.resolved()  # as from a manifest
    assert settings_of(ROBUST)["method"] == {"name": "robust"}
    assert checked_settings(TrainConfig, settings_of(ROBUST)) == ROBUST


@pytest.mark.parametrize(
    "given",
    [
        {"method": MethodConfig("robust", noise=NoiseConfig(level=0.1))},
        {"method": MethodConfig("robust", schedule=ScheduleConfig("linear"))},
        {"method": MethodConfig("robust", level_range=[0.1, 0.4])},
        {"clip": ClipConfig(weight_stds=2.5)},
        {"clip": ClipConfig(weight_value=0.5)},
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


def test_grad_norm_goes_with_the_clipping_of_weights() -> None:
    config = TrainConfig("own", "own", method=MethodConfig("robust"), clip=ClipConfig(grad_norm=1.0))
    assert config.resolved().clip == ClipConfig(grad_norm=1.0, weight_stds=1.5, granularity="filter")


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
    assert plain.resolved() is plain
    assert (plain.clip, plain.average) == (ClipConfig(), AverageConfig())


def test_figures_know_it() -> None:
    recipe = recipe_of(ROBUST.as_dict())
    assert (recipe.family, recipe.strength, recipe.schedule) == ("robust", 0.2, "quadratic")
    assert selection_noise(ROBUST.as_dict()) == "gaussian 0.1"


def test_settings_of_other_methods_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"method\.rho"):
        MethodConfig("robust", rho=0.1)
