"""Recalibrated statistics against plain means."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import same_bits, seeded, snapshot
from torch import Tensor, nn

import noiserobust as nr


def batches(sizes: tuple[int, ...] = (8, 8, 5, 3)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 2, 5, 5, generator=generator, dtype=torch.float64) * (k + 1) for k, n in enumerate(sizes)]


def network(norm: Callable[[], nn.Module] = lambda: nn.BatchNorm2d(4)) -> nn.Sequential:
    return seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), norm(), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 1)), 1
    ).double()


def train_a_little(model: nn.Module) -> None:
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for x in batches((4, 4)):
            model(x + 5)


# -------------------------------------------------------------------------------------------------------- recalibrate


@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
def test_running_statistics_are_the_means_of_those_of_the_batches(momentum: float | None) -> None:
    model = network(lambda: nn.BatchNorm2d(4, momentum=momentum))
    train_a_little(model)
    nr.recalibrate(model, batches())
    means, variances = [], []
    for x in batches():
        h = model[0](x).detach().transpose(0, 1).flatten(1)
        means.append(h.sum(1) / h.shape[1])
        variances.append(((h - means[-1][:, None]) ** 2).sum(1) / (h.shape[1] - 1))
    torch.testing.assert_close(model[1].running_mean, sum(means) / 4, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model[1].running_var, sum(variances) / 4, rtol=1e-12, atol=1e-12)
    assert model[1].num_batches_tracked == 4
    assert model[1].momentum == momentum
    every = torch.cat([model[0](x).detach().transpose(0, 1).flatten(1) for x in batches()], 1)
    assert not torch.allclose(model[1].running_mean, every.mean(1), rtol=1e-3)  # batches count the same, not examples


def test_a_later_layer_sees_the_batch_normalised_by_itself() -> None:
    model = seeded(lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), 2).double()
    nr.recalibrate(model, batches())
    means = []
    for x in batches():
        normal = (x - x.mean((0, 2, 3), keepdim=True)) / torch.sqrt(x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5)
        means.append(model[1](normal).detach().mean((0, 2, 3)))
    torch.testing.assert_close(model[2].running_mean, sum(means) / 4, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_instance_norm_is_recalibrated_too(momentum: float | None) -> None:
    model = network(lambda: nn.InstanceNorm2d(4, track_running_stats=True, momentum=momentum))
    train_a_little(model)
    nr.recalibrate(model, batches())
    means, variances = [], []
    for x in batches():
        h = model[0](x).detach().flatten(2)
        means.append(h.mean(2).mean(0))
        variances.append(h.var(2).mean(0))
    torch.testing.assert_close(model[1].running_mean, sum(means) / 4, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model[1].running_var, sum(variances) / 4, rtol=1e-12, atol=1e-12)
    assert model[1].momentum == momentum


def test_dropout_is_off_and_weights_and_modes_stay() -> None:
    model = seeded(
        lambda: nn.Sequential(nn.Dropout(0.5), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)), 3
    ).double()
    model.train()
    model[3].eval()  # frozen
    modes = [m.training for m in model.modules()]
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = torch.random.get_rng_state()
    nr.recalibrate(model, batches())
    assert torch.equal(state, torch.random.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    assert same_bits(weights, {name: p.detach() for name, p in model.named_parameters()})
    assert all(p.grad is None for p in model.parameters())
    expected = sum(model[1](x).detach().mean((0, 2, 3)) for x in batches()) / 4
    torch.testing.assert_close(model[2].running_mean, expected, rtol=1e-12, atol=1e-12)


def test_batches_may_be_tuples_a_loader_yields_and_the_model_may_be_in_evaluation_mode() -> None:
    tensors, tuples = network(), network().eval()
    nr.recalibrate(tensors, batches())
    nr.recalibrate(tuples, ((x, torch.zeros(len(x))) for x in batches()))
    assert same_bits(snapshot(tensors), snapshot(tuples))
    assert not any(m.training for m in tuples.modules())
    lists = network()
    nr.recalibrate(lists, [[x, torch.zeros(len(x))] for x in batches()])
    assert same_bits(snapshot(tensors), snapshot(lists))


def test_past_statistics_do_not_matter_and_layers_without_statistics_are_left_alone() -> None:
    fresh, used = network(), network()
    train_a_little(used)
    for model in (fresh, used):
        nr.recalibrate(model, batches())
    assert same_bits(snapshot(fresh), snapshot(used))
    untracked = network(lambda: nn.BatchNorm2d(4, track_running_stats=False))
    nr.recalibrate(untracked, batches())
    assert untracked[1].running_mean is None


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_leaves_momentum_and_modes_as_they_were(error: type[BaseException]) -> None:
    model = network()
    model.train()
    model[3].eval()
    modes = [m.training for m in model.modules()]

    def failing():
        yield batches()[0]
        raise error

    with pytest.raises(error):
        nr.recalibrate(model, failing())
    assert modes == [m.training for m in model.modules()]
    assert model[1].momentum == 0.1
    other = network()
    for m in (model, other):
        nr.recalibrate(m, batches())
    assert same_bits(snapshot(model), snapshot(other))


def test_statistics_are_those_of_the_weights_on_the_chip() -> None:
    model = network()
    with nr.perturbed(model, nr.GaussianNoise(0.5), 1):
        nr.recalibrate(model, batches())
        expected = sum(model[0](x).detach().mean((0, 2, 3)) for x in batches()) / 4
    torch.testing.assert_close(model[1].running_mean, expected, rtol=1e-12, atol=1e-12)
    clean = sum(model[0](x).detach().mean((0, 2, 3)) for x in batches()) / 4
    assert not torch.allclose(expected, clean, rtol=1e-2)


@pytest.mark.parametrize("batches", [[], iter(())])
def test_no_batch_is_refused_and_changes_nothing(batches) -> None:
    layer = nn.BatchNorm1d(3)
    layer(torch.randn(8, 3))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(ValueError, match="at least one batch"):
        nr.recalibrate(layer, batches)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
