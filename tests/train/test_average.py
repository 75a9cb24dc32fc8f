"""The average of the weights over past steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_models import cnn, images, same_bits, snapshot
from torch import Tensor, nn

from noiserobust.config import AverageConfig, MethodConfig, NoiseConfig, OptimizerConfig, TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.errors import InvalidValueError
from noiserobust.train import runs
from noiserobust.train.trainer import Trainer

PLAIN = TrainConfig(
    "own",
    "own",
    method=MethodConfig("rwp", noise=NoiseConfig("gaussian", 0.3)),
    optimizer=OptimizerConfig(lr=0.05),
    epochs=3,
    batch_size=8,
)
DECAY = 0.8
WEIGHT = next(name for name, weight in cnn().named_parameters() if weight.ndim == 4)
AVERAGED = replace(PLAIN, average=AverageConfig(DECAY))


def fit(config: TrainConfig, score=None) -> tuple[Trainer, list[dict[str, Tensor]]]:
    """Train, and return the trainer and the state of the network after each step."""
    trainer = Trainer(cnn(), ArrayData(*images(20), "images"), config, Normalize(), score=score)
    states = []
    list(trainer.epochs(lambda: states.append({k: v.clone() for k, v in trainer.model.state_dict().items()})))
    return trainer, states


def average(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """``a <- d a + (1 - d) w`` from the first step on, d being less at first, in float64."""
    kept = {name: value.double() for name, value in states[0].items()}
    for number, state in enumerate(states[1:], start=1):
        decay = min(DECAY, (1 + number) / (10 + number))
        kept = {name: decay * value + (1 - decay) * state[name].double() for name, value in kept.items()}
    return kept


def test_it_is_that_of_the_formula_for_weights_and_statistics() -> None:
    trainer, states = fit(AVERAGED)
    expected = average(states)
    names = [name for name, value in expected.items() if states[0][name].is_floating_point()]
    for name in names:
        torch.testing.assert_close(trainer.kept.state_dict()[name].double(), expected[name], rtol=1e-5, atol=1e-7)
    for name in (WEIGHT, next(name for name in names if "running_mean" in name)):
        assert not torch.allclose(trainer.kept.state_dict()[name], states[-1][name], rtol=1e-3)


def test_training_does_not_see_it() -> None:
    with_it, without = fit(AVERAGED)[0], fit(PLAIN)[0]
    assert same_bits(snapshot(with_it.model), snapshot(without.model))
    assert without.kept is without.model


def test_it_is_what_is_measured_and_kept() -> None:
    seen: list[dict[str, Tensor]] = []

    def score(model: nn.Module) -> tuple[float, float]:
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return 0.0, -float(len(seen))  # the first epoch stays the best

    trainer, states = fit(AVERAGED, score)
    assert [s[WEIGHT].shape for s in seen] == [states[0][WEIGHT].shape] * 3
    steps = len(states) // 3
    for number, state in enumerate(seen, start=1):
        expected = average(states[: number * steps])[WEIGHT]
        torch.testing.assert_close(state[WEIGHT].double(), expected, rtol=1e-5, atol=1e-7)
    assert same_bits(trainer.best_state, seen[0])


def unscored(*_: object):
    return lambda model: (0.0, 0.0)


def test_it_is_what_is_written(tmp_path: Path) -> None:
    config = TrainConfig("digits-mlp", "digits", method=MethodConfig("sgd"), epochs=2, batch_size=256, held_out=0.2)
    files = {}
    for name, settings in {"plain": config, "averaged": replace(config, average=AverageConfig(DECAY))}.items():
        runs.train_seeds(settings, [0], tmp_path / name, make_score=unscored, device=torch.device("cpu"))
        files[name] = {k: load_file(tmp_path / name / "seed0" / f"{k}.safetensors") for k in ("best", "last")}
    assert same_bits(files["averaged"]["best"], files["averaged"]["last"])  # of equals the longest trained
    assert files["plain"]["last"].keys() == files["averaged"]["last"].keys()
    assert not same_bits(files["plain"]["last"], files["averaged"]["last"])


@pytest.mark.parametrize("decay", [1, -0.1, float("nan")])
def test_the_decay_is_a_share(decay: float) -> None:
    with pytest.raises(InvalidValueError, match=r"Expected `average\.decay` to be "):
        AverageConfig(decay)


def test_configurations_without_it_are_those_of_versions_that_had_none() -> None:
    assert "average" not in PLAIN.as_dict()
    assert "granularity" not in PLAIN.as_dict()["clip"]
    assert AVERAGED.as_dict()["average"] == {"decay": DECAY}
