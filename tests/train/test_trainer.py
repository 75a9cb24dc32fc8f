"""One training: what it computes, what it depends on, and which epoch it keeps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_models import cnn, images, mlp, same_bits, seeded, snapshot
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import noiserobust as nr
from noiserobust.config import (
    AugmentConfig,
    MethodConfig,
    NoiseConfig,
    OptimizerConfig,
    TrainConfig,
)
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.train.trainer import Epoch, Trainer

SGD = TrainConfig(
    "own",
    "own",
    method=MethodConfig("sgd"),
    optimizer=OptimizerConfig(lr=0.05, momentum=0.9, weight_decay=0.01),
    epochs=3,
    batch_size=8,
)
SAM = replace(SGD, method=MethodConfig("sam", rho=0.1))
RWP = replace(SGD, method=MethodConfig("rwp", noise=NoiseConfig("gaussian", 0.3)))
MIXED = replace(SGD, method=MethodConfig("rwp", noise=NoiseConfig("gaussian", 0.3), perturbed_weight=0.5))
every_method = pytest.mark.parametrize("config", [SGD, SAM, RWP, MIXED], ids=["sgd", "sam", "rwp", "mixed"])


def image_data(n: int = 20) -> ArrayData:
    x, y = images(n)
    return ArrayData(x, y, "images")


def fit(config: TrainConfig, model: nn.Module | None = None, data: ArrayData | None = None, **keywords):
    """Train and return the model and what was recorded."""
    trained = model or cnn()
    trainer = Trainer(trained, data or image_data(), config, Normalize(), **keywords)
    return trained, list(trainer.epochs()), trainer


@every_method
def test_a_training_is_repeated_bit_for_bit_whatever_the_global_generator_does(config: TrainConfig) -> None:
    config = replace(config, augment=AugmentConfig(crop=1, flip=True))
    torch.manual_seed(1)
    first, records, _ = fit(config, train_seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, others, _ = fit(config, train_seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert same_bits(snapshot(first), snapshot(second))
    assert [e.train_loss for e in records] == [e.train_loss for e in others]


@every_method
def test_train_seeds_and_root_seeds_differ(config: TrainConfig) -> None:
    states = [snapshot(fit(c, train_seed=s)[0]) for c, s in ((config, 0), (config, 1), (replace(config, seed=1), 0))]
    assert not any(same_bits(states[i], states[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_sgd_on_features_is_the_plain_loop() -> None:
    """Every example once an epoch in the documented order; the reference is written without the trainer."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(21, 6, generator=generator), torch.randint(0, 3, (21,), generator=generator)
    config = replace(SGD, label_smoothing=0.1, lr_schedule="cosine")
    model, records, _ = fit(config, mlp(), ArrayData(x, y, "features"), train_seed=5)

    plain = mlp()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    losses: list[list[float]] = []
    for epoch in range(3):
        order = nr.Stream(0, "training", 5, "epoch", epoch + 1, "order").permutation(21)
        losses.append([])
        for index in range(2):  # 21 = 2 * 8 + 5: the incomplete batch is left out
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * (2 * epoch + index) / 6)) / 2
            batch = torch.from_numpy(order[8 * index : 8 * index + 8])
            scores = plain(x[batch]).log_softmax(1)
            own = scores[torch.arange(8), y[batch]]
            loss = -(0.9 * own + 0.1 * scores.mean(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, plain.get_parameter(name), rtol=1e-5, atol=1e-6)
    assert [e.train_loss for e in records] == pytest.approx([sum(part) / 2 for part in losses], rel=1e-5)
    assert [e.steps for e in records] == [2, 4, 6]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_enters_the_recorded_loss(smoothing: float) -> None:
    config = replace(SGD, epochs=1, batch_size=20, label_smoothing=smoothing)
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), 0)
    data = image_data()
    logs = model(data.x).log_softmax(1).detach().double()
    target = torch.full((20, 3), smoothing / 3).double()
    target[torch.arange(20), data.y] += 1 - smoothing
    _, (record,), _ = fit(config, model, data)
    assert record.train_loss == pytest.approx(-(target * logs).sum(1).mean().item(), rel=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
@every_method
def test_recorded_learning_rates_are_those_of_the_schedule(config: TrainConfig, schedule: str) -> None:
    _, records, trainer = fit(replace(config, lr_schedule=schedule, epochs=4))
    total = 8

    def one_cycle(step: int) -> float:
        low, high, last = 0.05 / 25, 0.05, 0.05 / 25 / 1e4
        peak = 0.3 * total - 1
        start, end, share = (
            (low, high, step / peak) if step <= peak else (high, last, (step - peak) / (total - 1 - peak))
        )
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    expected = {
        "constant": lambda step: 0.05,
        "cosine": lambda step: 0.05 * (1 + math.cos(math.pi * step / total)) / 2,
        "one-cycle": one_cycle,
    }[schedule]
    assert [e.lr for e in records] == pytest.approx([expected(step) for step in (1, 3, 5, 7)], rel=1e-6)
    assert trainer.optimizer.param_groups[0]["momentum"] == 0.9  # the one that was asked for


def test_adamw_keeps_its_betas_under_one_cycle() -> None:
    config = replace(SGD, optimizer=OptimizerConfig("adamw", lr=0.01), lr_schedule="one-cycle")
    _, _, trainer = fit(config)
    assert trainer.optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def scores(*perturbed: float):
    """Return a score function that says these perturbed accuracies one after the other, and the states it saw."""
    states: list[dict[str, Tensor]] = []

    def score(model: nn.Module) -> tuple[float, float]:
        states.append(snapshot(model))
        return 50.0, perturbed[len(states) - 1]

    return score, states


@pytest.mark.parametrize(
    ("perturbed", "chosen", "best"),
    [
        ((10.0, 30.0, 20.0), 1, [True, True, False]),
        ((30.0, 20.0, 10.0), 0, [True, False, False]),
        ((10.0, 20.0, 30.0), 2, [True, True, True]),
        ((30.0, 10.0, 30.0), 2, [True, False, True]),
        ((0.0, 0.0, 0.0), 2, [True, True, True]),
    ],
)
def test_the_epoch_of_the_highest_perturbed_accuracy_is_kept_and_of_equals_the_last(perturbed, chosen, best) -> None:
    score, states = scores(*perturbed)
    model, records, trainer = fit(SGD, score=score)
    assert same_bits(trainer.best_state, states[chosen])
    assert [e.best for e in records] == best
    assert [e.held_out_perturbed_accuracy for e in records] == list(perturbed)
    assert same_bits(snapshot(model), states[-1])


def test_without_a_score_the_last_epoch_is_kept() -> None:
    model, records, trainer = fit(SGD)
    assert same_bits(trainer.best_state, snapshot(model))
    assert all(math.isnan(e.held_out_accuracy) and e.best for e in records)


def test_a_score_that_changes_the_mode_does_not_change_the_training() -> None:
    def rude(model: nn.Module) -> tuple[float, float]:
        model.eval()
        return 0.0, 0.0

    assert same_bits(snapshot(fit(SGD)[0]), snapshot(fit(SGD, score=rude)[0]))


@every_method
@pytest.mark.parametrize("channels_last", [False, True])
def test_bf16_autocast_runs_and_keeps_fp32_weights(config: TrainConfig, channels_last: bool) -> None:
    model, records, _ = fit(replace(config, precision="bf16", channels_last=channels_last))
    exact, _, _ = fit(replace(config, channels_last=channels_last))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(math.isfinite(e.train_loss) for e in records)
    assert not same_bits(snapshot(model), snapshot(exact))
    for a, b in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_layout_is_the_one_asked_for(channels_last: bool) -> None:
    seen: list[bool] = []
    model = seeded(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3)), 0)
    model.register_forward_pre_hook(
        lambda m, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    fit(replace(SGD, channels_last=channels_last), model)
    assert set(seen) == {channels_last}
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_a_diverging_loss_ends_the_training_with_advice() -> None:
    config = replace(SGD, optimizer=OptimizerConfig(lr=1e30, momentum=0.0, weight_decay=0.0))
    trainer = Trainer(cnn(), image_data(), config, Normalize())
    with pytest.raises(nr.NoiseRobustError, match=r"stay finite, but got .* in epoch \d; a smaller learning rate"):
        list(trainer.epochs())


def test_uint8_images_are_normalised() -> None:
    pixels = torch.randint(0, 256, (20, 2, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ArrayData(pixels, image_data().y, "pixels")
    normalize = Normalize((0.5, 0.4), (0.2, 0.3))
    stored, ready = cnn(), cnn()
    list(Trainer(stored, data, SGD, normalize).epochs())
    mean, std = torch.tensor([0.5, 0.4]).view(2, 1, 1), torch.tensor([0.2, 0.3]).view(2, 1, 1)
    list(Trainer(ready, ArrayData((pixels / 255 - mean) / std, data.y, "ready"), SGD, Normalize()).epochs())
    for a, b in zip(stored.parameters(), ready.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_augmentation_changes_the_training_and_features_cannot_be_augmented() -> None:
    augmented = replace(SGD, augment=AugmentConfig(crop=1))
    assert not same_bits(snapshot(fit(SGD)[0]), snapshot(fit(augmented)[0]))
    features = ArrayData(torch.randn(20, 6), image_data().y, "features")
    with pytest.raises(nr.NoiseRobustError, match="images"):
        fit(augmented, mlp(), features)


@every_method
def test_training_learns(config: TrainConfig) -> None:
    x, _ = images(64)
    y = (x.mean((1, 2, 3)) > 0).long()
    _, records, _ = fit(replace(config, epochs=12), cnn(), ArrayData(x, y, "easy"))
    assert records[-1].train_loss < 0.6 * records[0].train_loss


def test_the_recorded_loss_of_sam_is_the_clean_one() -> None:
    config = replace(SAM, epochs=1, batch_size=20, method=MethodConfig("sam", rho=5.0))
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), 0)
    data = image_data()
    clean = cross_entropy(model(data.x), data.y).item()
    _, (record,), _ = fit(config, model, data)
    assert record.train_loss == pytest.approx(clean, rel=1e-5)


def test_a_batch_larger_than_the_data_is_all_of_them() -> None:
    _, records, _ = fit(replace(SGD, batch_size=1000))
    assert [e.steps for e in records] == [1, 2, 3]


def test_frozen_models_are_refused() -> None:
    with pytest.raises(nr.NoiseRobustError, match="frozen"):
        fit(SGD, mlp().requires_grad_(False))


def test_an_epoch_is_a_row_of_metrics() -> None:
    _, (record, *_), _ = fit(SGD)
    assert isinstance(record, Epoch)
    assert list(record.as_row()) == [
        *("epoch", "steps", "passes", "lr", "strength", "train_loss"),
        *("held_out_accuracy", "held_out_perturbed_accuracy", "best", "seconds", "micro_batches"),
    ]


def test_a_training_goes_on_in_the_same_object_after_an_interruption() -> None:
    whole, stopped = (Trainer(cnn(), image_data(), SGD, Normalize()) for _ in range(2))
    expected = [epoch.train_loss for epoch in whole.epochs()]
    ticks = iter(range(99))

    def tick() -> None:
        if next(ticks) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(stopped.epochs(tick))
    state = stopped.state_dict()
    assert state["progress"] == stopped.state_dict()["progress"]
    assert [epoch.train_loss for epoch in stopped.epochs()] == expected[1:]  # the first was over
    assert same_bits(snapshot(whole.model), snapshot(stopped.model))
