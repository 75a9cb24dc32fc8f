"""Settings out of range are refused in the voice of all errors."""

from __future__ import annotations

import json

import pytest

import noiserobust as nr
from noiserobust.config import (
    AugmentConfig,
    MethodConfig,
    NoiseConfig,
    OptimizerConfig,
    SelectConfig,
    TrainConfig,
)
from noiserobust.noise.registry import noise_from_config


def train_config(**settings: object) -> TrainConfig:
    return TrainConfig("digits-mlp", "digits", **settings)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: MethodConfig("asm"), "method.name"),
        (lambda: MethodConfig("sam", rho=-1), "method.rho"),
        (lambda: MethodConfig("rwp", perturbed_weight=0), "method.perturbed_weight"),
        (lambda: MethodConfig("rwp", perturbed_weight=1.5), "method.perturbed_weight"),
        (lambda: OptimizerConfig("adam"), "optimizer.name"),
        (lambda: OptimizerConfig(lr=0), "optimizer.lr"),
        (lambda: OptimizerConfig(lr=float("inf")), "optimizer.lr"),
        (lambda: OptimizerConfig(momentum=1.1), "optimizer.momentum"),
        (lambda: OptimizerConfig(weight_decay=-1e-4), "optimizer.weight_decay"),
        (lambda: OptimizerConfig(momentum=0, nesterov=True), "optimizer.momentum"),
        (lambda: AugmentConfig(crop=-1), "augment.crop"),
        (lambda: SelectConfig(draws=0), "select.draws"),
        (lambda: train_config(lr_schedule="cos"), "lr_schedule"),
        (lambda: train_config(precision="fp8"), "precision"),
        (lambda: train_config(epochs=0), "epochs"),
        (lambda: train_config(epochs=1.5), "epochs"),
        (lambda: train_config(batch_size=0), "batch_size"),
        (lambda: train_config(seed=-1), "seed"),
        (lambda: train_config(label_smoothing=1.0), "label_smoothing"),
        (lambda: train_config(held_out=1.0), "held_out"),
        (lambda: train_config(held_out=-0.1), "held_out"),
    ],
)
def test_a_setting_out_of_range_is_named(make, named: str) -> None:
    with pytest.raises(ValueError, match=f"Expected `{named}` to be .*, but got"):
        make()


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(nr.NoiseRobustError, match="did you mean 'one-cycle'"):
        train_config(lr_schedule="onecycle")


def test_settings_are_written_as_json_and_the_label_defaults_to_the_method() -> None:
    config = train_config(method=MethodConfig("sam"))
    assert json.loads(json.dumps(config.as_dict())) == config.as_dict()
    assert config.method_label == "sam"
    assert train_config(label="mine").method_label == "mine"


def test_rwp_selects_by_the_noise_it_trains_for_and_others_by_a_gaussian():
    noise = NoiseConfig("laplace", 0.02)
    rwp = TrainConfig("m", "d", method=MethodConfig("rwp", noise=noise))
    assert rwp.selection_noise == noise
    assert TrainConfig("m", "d", method=MethodConfig("sam")).selection_noise == NoiseConfig()
    said = SelectConfig(NoiseConfig("gaussian", 0.2))
    assert TrainConfig("m", "d", method=MethodConfig("rwp", noise=noise), select=said).selection_noise == said.noise


def test_a_device_without_a_level_is_a_day_old_and_scaled_noise_has_five_percent():
    assert noise_from_config(NoiseConfig("pcm-nandakumar-2019")).level == 86400
    assert noise_from_config(NoiseConfig("gaussian")).level == 0.05
    assert noise_from_config(NoiseConfig("laplace")).level == 0.05
