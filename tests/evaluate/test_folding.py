"""Folded networks: the outputs of the network as it is, chip by chip, whatever its structure."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import noiserobust as nr
from noiserobust.evaluate import folding
from noiserobust.evaluate.draws import Draws, _Ready
from noiserobust.evaluate.folding import FoldedNetwork
from noiserobust.evaluate.networks import fastest
from noiserobust.noise.sites import Site, find_sites
from noiserobust.perturb import Change, noisy_weights

STREAM = nr.Stream(0, "deploy", 0, 0)


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a model with statistics and scales that are those of no fresh one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor, low in ((module.running_mean, -0.5), (module.running_var, 0.3), (module.weight, 0.4)):
                    if tensor is not None:
                        tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return model.eval()


def chip_outputs(model: nn.Module, noise: nr.Noise, x: Tensor) -> Tensor:
    """Return the outputs of a copy in float64 whose weights were perturbed by hand."""
    noisy = copy.deepcopy(model)
    for site, twin in zip(find_sites(model), find_sites(noisy), strict=True):
        with torch.no_grad():
            twin.parameter().copy_(noise.perturb(site.weight(), STREAM.child(site.name), site.view))
    with torch.no_grad():
        return noisy.double()(x.double())


class Shared(nn.Module):
    """One convolution with two normalisations, one weight in two convolutions, a branch before a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.one, self.other = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1)
        self.other.weight = self.one.weight
        self.third, self.fourth, self.fifth = nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3)
        self.branch = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(self.twice(x)))
        x = torch.relu(self.second(self.twice(x)))
        x = self.third(self.one(x)) + self.fourth(self.other(x))
        y = self.branch(x)
        return (y + self.fifth(y)).flatten(1)


CASES = {
    "resnet20": (lambda: nr.build_model("resnet20"), (3, 16, 16), 19),
    "wrn-10-1": (lambda: nr.build_model("wrn-10-1"), (3, 16, 16), None),
    "digits-cnn": (lambda: nr.build_model("digits-cnn"), (1, 8, 8), 3),
    "grouped, with bias": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), nn.Flatten()),
        (4, 6, 6),
        1,
    ),
    "linear": (lambda: nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 2)), (5,), 1),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten()), (2, 9), 1),
    "shared": (Shared, (3, 8, 8), 2),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("noise", [nr.GaussianNoise(0.2), nr.DeviceNoise.from_profile("pcm-hermes-2")], ids=["g", "d"])
def test_the_outputs_are_those_of_the_network(name: str, noise: nr.Noise) -> None:
    build, shape, norms = CASES[name]
    torch.manual_seed(0)
    model, x = settled(build()), torch.randn(8, *shape)
    sites = find_sites(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    network = fastest(model, sites, "fp32", lambda dtype: [x.to(dtype), x[:3].to(dtype)])
    assert isinstance(network.runs, FoldedNetwork), network.path
    if norms is not None:
        assert network.path == f"traced, {norms} normalisations folded"
    with torch.inference_mode():
        for changes, wanted in (
            (noisy_weights(sites, noise, STREAM), chip_outputs(model, noise, x)),
            ((), model.double()(x.double())),
        ):
            model.float()
            with network.on(changes):
                found = network(x)
            assert torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_bf16_is_near() -> None:
    torch.manual_seed(0)
    model, x, noise = settled(nr.build_model("resnet20")), torch.randn(8, 3, 16, 16), nr.GaussianNoise(0.1)
    sites = find_sites(model)
    network = fastest(model, sites, "bf16", lambda dtype: [x.to(dtype), x[:3].to(dtype)])
    assert network.dtype == torch.bfloat16
    with torch.inference_mode(), network.on(noisy_weights(sites, noise, STREAM)):
        found = network(x.bfloat16()).double()
    wanted = chip_outputs(model, noise, x)
    assert 0 < torch.linalg.vector_norm(found - wanted) < 0.05 * torch.linalg.vector_norm(wanted)


class Branching(nn.Module):
    """Goes another way for other inputs, as no trace can."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x if x.sum() > 0 else -x)


class Counting(nn.Module):
    """Computes something else at each call, which a trace freezes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        self.calls = itertools.count(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) * next(self.calls)

    def __deepcopy__(self, memo: object) -> Counting:
        other = Counting()
        other.load_state_dict(self.state_dict())
        return other.eval()


class Hooked(nn.Module):
    """A hook changes what lies between layer and normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        self.layers[0].register_forward_hook(lambda module, inputs, output: output.clamp(min=0))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("build", [Branching, Counting, Hooked])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_cannot_be_traced_runs_as_it_is(build: type[nn.Module], precision: str) -> None:
    torch.manual_seed(0)
    model, x = settled(build()), torch.randn(6, 4)
    network = fastest(model, find_sites(model), precision, lambda dtype: [x.to(dtype), x[:3].to(dtype)])
    assert "normalisations folded" not in network.path or "traced, 0 " in network.path
    if build is not Hooked:
        assert network.path == "as it is"


def test_a_fold_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = settled(nr.build_model("digits-cnn")), torch.rand(8, 1, 8, 8)
    right = folding._affine
    monkeypatch.setattr(folding, "_affine", lambda norm: (right(norm)[0] * 1.001, right(norm)[1]))
    assert fastest(model, find_sites(model), "fp32", lambda dtype: [x.to(dtype), x[:3].to(dtype)]).path == "as it is"
    monkeypatch.setattr(folding, "_affine", right)
    assert fastest(model, find_sites(model), "fp32", lambda dtype: [x.to(dtype), x[:3].to(dtype)]).path.startswith(
        "traced, 3"
    )


def test_noise_on_normalisation_and_biases_stays_exact() -> None:
    torch.manual_seed(0)
    model = settled(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten()))
    x, y = torch.randn(30, 2, 5, 5), torch.randint(0, 36, (30,))
    noise = nr.GaussianNoise(0.3, reference="absolute")
    result = nr.evaluate(model, (x, y), noise=noise, levels=[0.3], draws=3, metrics="loss", select=lambda *_: True)
    for draw, value in zip(result.draws["draw"], result.draws["value"], strict=True):
        with nr.perturbed(model, noise, draw=draw, select=lambda *_: True), torch.no_grad():
            assert value == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-5)


def test_a_chip_read_anew_for_each_batch_is_folded_too() -> None:
    torch.manual_seed(0)
    model = settled(nr.build_model("digits-cnn"))
    x, y = torch.rand(50, 1, 8, 8), torch.randint(0, 10, (50,))
    noise = nr.DeviceNoise.from_profile("pcm-hermes-2")
    settings = {"noise": noise, "draws": 2, "reads": "batch", "batch_size": 20, "metrics": "loss"}
    found = nr.evaluate(model, (x, y), **settings).draws["value"]
    total = 0.0
    chip = noise.program(model)
    for number, (a, b) in enumerate(zip(x.split(20), y.split(20), strict=True)):
        stream = STREAM.child("batch", number)
        noisy = copy.deepcopy(model)
        for site, twin in zip(find_sites(model), find_sites(noisy), strict=True):
            with torch.no_grad():
                twin.parameter().copy_(chip.perturb(site.weight(), stream.child(site.name), site.view))
        with torch.no_grad():
            total += nn.functional.cross_entropy(noisy(a), b, reduction="sum").item()
    assert found[0] == pytest.approx(total / 50, rel=1e-5)


def test_an_error_leaves_no_noise_behind() -> None:
    torch.manual_seed(0)
    model, x = settled(nr.build_model("digits-cnn")), torch.rand(8, 1, 8, 8)
    sites = find_sites(model)
    network = fastest(model, sites, "fp32", lambda dtype: [x.to(dtype), x[:3].to(dtype)])

    def failing(noise: nr.Noise) -> Iterator[tuple[Site, Change]]:
        yield from itertools.islice(noisy_weights(sites, noise, STREAM), 2)
        raise MemoryError

    with torch.inference_mode():
        with network.on():
            clean = network(x)
        with network.on(noisy_weights(sites, nr.GaussianNoise(0.5), STREAM)):
            assert not torch.equal(network(x), clean)
        with pytest.raises(MemoryError), network.on(failing(nr.GaussianNoise(0.3))):
            pass
        with network.on():
            assert torch.equal(network(x), clean)


@pytest.mark.parametrize("noise", [nr.GaussianNoise(0.2), nr.DeviceNoise.from_profile("pcm-nandakumar-2019")])
@pytest.mark.thorough
def test_chips_that_are_drawn_ahead_are_the_same(noise: nr.Noise, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [nr.build_model("resnet20").eval() for _ in range(2)]
    data = torch.rand(40, 3, 32, 32), torch.randint(10, (40,))
    levels = ["clean", noise.level, 2 * noise.level]
    settings = {"noise": noise, "levels": levels, "draws": 3, "metrics": ["accuracy", "loss"]}
    expected = nr.evaluate(models, data, **settings)
    threads = []
    drawn = _Ready.drawn

    def spied(self: _Ready, *arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return drawn(self, *arguments)

    monkeypatch.setattr(_Ready, "drawn", spied)
    monkeypatch.setattr(Draws, "overlaps", True)
    found = nr.evaluate(models, data, **settings)
    pd.testing.assert_frame_equal(found.draws, expected.draws)
    assert len(threads) == 2 * 5  # not the first: the network is not there yet when it could be begun
    assert all(name.startswith("next-chip") for name in threads)


def test_networks_that_cannot_be_traced_draw_nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    class Untraceable(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() > 0 else x + 0)

    model = Untraceable(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(5))
    data = torch.rand(10, 3, 8, 8), torch.randint(5, (10,))
    model(data[0])
    expected = nr.evaluate(model, data, noise=nr.GaussianNoise(0.2))
    monkeypatch.setattr(Draws, "overlaps", True)
    pd.testing.assert_frame_equal(nr.evaluate(model, data, noise=nr.GaussianNoise(0.2)).draws, expected.draws)
