"""Running statistics see the clean pass only, or the only pass there is."""

from __future__ import annotations

import pytest
import torch
from small_models import closure_of, images, same_bits, seeded, snapshot
from torch import Tensor, nn

import noiserobust as nr
from noiserobust.models.batchnorm import kept_statistics

LAYERS = {
    "batch": lambda: nn.BatchNorm2d(4),
    "batch, cumulative average": lambda: nn.BatchNorm2d(4, momentum=None),
    "instance": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "batch, untracked": lambda: nn.BatchNorm2d(4, track_running_stats=False),
}
WITH_CLEAN_PASS = [nr.SAM(0.5), nr.RWP(nr.GaussianNoise(0.5), 0.5)]


def network(layer: str) -> nn.Sequential:
    return seeded(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), LAYERS[layer](), nn.Flatten(), nn.Linear(16, 3)), 0)


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in model.named_buffers()}


@pytest.mark.parametrize("method", WITH_CLEAN_PASS, ids=["sam", "mixed"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("by_hand", [False, True])
def test_statistics_are_those_of_plain_forward_passes(method, layer: str, by_hand: bool) -> None:
    model, plain = network(layer), network(layer)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), method, model)
    for step in range(3):
        x, y = images(seed=step)
        with torch.no_grad():  # a plain forward pass at the weights before the step
            for own, trained in zip(plain.parameters(), model.parameters(), strict=True):
                own.copy_(trained)
        plain(x)
        closure = closure_of(opt, model, x, y)
        if by_hand:
            closure()
            with opt.perturbed():
                closure()
            opt.step()
        else:
            opt.step(closure)
        assert same_bits(buffers(model), buffers(plain))
    if layer.startswith("batch") and "untracked" not in layer:
        assert model[1].num_batches_tracked == 3


@pytest.mark.parametrize("layer", [name for name in LAYERS if "untracked" not in name])
def test_a_pure_method_tracks_its_only_pass(layer: str) -> None:
    x, y = images()
    noise = nr.GaussianNoise(0.5)
    model, plain = network(layer), network(layer)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.RWP(noise), model, seed=4)
    with torch.no_grad():
        for name in ("0.weight", "3.weight"):
            weight = plain.get_parameter(name)
            weight.copy_(noise.perturb(weight, nr.Stream(4, "train", 0, 0).child(name)))
    plain(x)
    clean = buffers(network(layer))
    opt.step(closure_of(opt, model, x, y))
    assert same_bits(buffers(model), buffers(plain))
    assert not same_bits(buffers(model), clean)


@pytest.mark.parametrize("layer", [name for name in LAYERS if "untracked" not in name])
def test_kept_statistics_survive_forward_passes_and_exceptions(layer: str) -> None:
    model = network(layer)
    x, _ = images()
    model(x)
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError), kept_statistics(model), kept_statistics(model):  # noqa: PT012
        model(x + 3)
        assert not same_bits(before, snapshot(model))
        raise ZeroDivisionError
    assert same_bits(before, snapshot(model))


def test_an_exception_in_the_perturbed_pass_restores_the_statistics_of_the_clean_one() -> None:
    x, y = images()
    model, plain = network("batch"), network("batch")
    plain(x)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.SAM(0.5), model)
    closure_of(opt, model, x, y)()
    with pytest.raises(ZeroDivisionError), opt.perturbed():  # noqa: PT012
        model(x)
        raise ZeroDivisionError
    assert same_bits(buffers(model), buffers(plain))


def test_the_noisy_pass_would_have_changed_the_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    # The rule taken out: the tests above have something to find.
    from contextlib import nullcontext

    monkeypatch.setattr("noiserobust.train.passes.kept_statistics", lambda model: nullcontext())
    for method in WITH_CLEAN_PASS:
        for layer in LAYERS:
            with pytest.raises(AssertionError) if "untracked" not in layer else nullcontext():
                test_statistics_are_those_of_plain_forward_passes(method, layer, False)
