"""What a network with shrunk kernels costs and computes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

import noiserobust as nr
from noiserobust.diagnose.cost import Cost, shrink_kernels


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a module without touching torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Return whether two states agree; there are no NaN in them."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def with_zero_border(conv: nn.Conv2d, top: int, bottom: int, left: int, right: int) -> nn.Conv2d:
    high, wide = conv.kernel_size
    with torch.no_grad():
        conv.weight[:, :, :top] = 0
        conv.weight[:, :, high - bottom :] = 0
        conv.weight[:, :, :, :left] = 0
        conv.weight[:, :, :, wide - right :] = 0
    return conv


BORDERS = [
    (1, 0, 0, 0),
    (0, 1, 0, 0),
    (0, 0, 1, 0),
    (0, 0, 0, 1),
    (1, 0, 0, 1),
    (0, 1, 1, 0),
    (1, 1, 1, 1),
    (2, 0, 0, 2),
]
CONVOLUTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "padded": {"padding": 1},
    "strided": {"stride": 2, "padding": 1},
    "asymmetric": {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    "dilated": {"dilation": 2, "padding": 2},
    "grouped": {"groups": 2, "padding": 1},
    "no bias": {"bias": False, "padding": 2},
    "tall": {"kernel_size": (5, 3), "padding": (2, 1)},
    "all": {"stride": 3, "dilation": 2, "groups": 4, "padding": (3, 1)},
}


def convolution(**settings) -> nn.Conv2d:
    return seeded(lambda: nn.Conv2d(4, 8, **{"kernel_size": 3, **settings}), 4).double()


def image(high: int = 11, wide: int = 12) -> Tensor:
    return torch.randn(2, 4, high, wide, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("border", BORDERS, ids=str)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_shrunk_convolution_computes_the_same(name: str, border: tuple[int, int, int, int]) -> None:
    conv = with_zero_border(convolution(**CONVOLUTIONS[name]), *border)
    before = snapshot(conv)
    small = shrink_kernels(conv)
    high, wide = conv.kernel_size
    assert small.weight.shape[2:] == (high - border[0] - border[1], wide - border[2] - border[3])
    torch.testing.assert_close(small(image()), conv(image()), rtol=1e-12, atol=1e-12)
    assert same_bits(before, snapshot(conv))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_kernel_of_zeros_shrinks_to_one_zero(name: str) -> None:
    conv = convolution(**CONVOLUTIONS[name])
    nn.init.zeros_(conv.weight)
    small = shrink_kernels(conv)
    assert small.weight.shape[2:] == (1, 1)
    assert not small.weight.any()
    torch.testing.assert_close(small(image()), conv(image()), rtol=0, atol=0)


def test_only_what_is_zero_in_all_filters_is_cut_off_and_only_at_the_border() -> None:
    conv = convolution(padding=1)
    with torch.no_grad():
        conv.weight[:, :, 1] = 0  # the middle row
        conv.weight[:-1, :, 0] = 0  # the top row of all filters but one
    assert shrink_kernels(conv).weight.shape == conv.weight.shape


@pytest.mark.parametrize("settings", [{"padding_mode": "reflect", "padding": 1}, {"padding": "same"}], ids=str)
def test_other_paddings_stay_and_compute_the_same(settings: dict[str, object]) -> None:
    conv = with_zero_border(convolution(**settings), 1, 0, 0, 1)
    small = shrink_kernels(conv)
    assert small.weight.shape == conv.weight.shape
    torch.testing.assert_close(small(image()), conv(image()), rtol=0, atol=0)


def whole_network() -> nn.Sequential:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Sequential(nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=3), nn.Conv2d(6, 8, 1), nn.Tanh()),
            nn.Conv2d(8, 8, 3, padding=2, dilation=2),
            nn.Flatten(),
            nn.Linear(8 * 6 * 6, 3),
        ),
        5,
    ).double()


@pytest.mark.parametrize("kinds", [("translate",), ("translate", "crop"), ("translate", "rot90", "flip")], ids=str)
def test_the_shrunk_network_computes_what_the_transformed_one_does(kinds: tuple[str, ...]) -> None:
    model, shrunk = whole_network().eval(), 0
    before = snapshot(model)
    for draw in range(12):
        with nr.perturbed(model, nr.KernelTransform(0.6, kinds=kinds), 2, draw):
            small = shrink_kernels(model)
            torch.testing.assert_close(small(image(11, 12)), model(image(11, 12)), rtol=1e-11, atol=1e-12)
        shrunk += sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert shrunk > 6
    assert same_bits(before, snapshot(model))
    assert torch.equal(shrink_kernels(model)(image()), model(image()))


# --------------------------------------------------------------------------------------------------------------- cost


def draws_that_shift(down: bool, right: bool, name: str) -> int:
    """Return a draw with which the weight of this name is moved along these axes."""
    noise = nr.KernelTransform(0.5, kinds=("translate",))
    for draw in range(200):
        stream = nr.Stream(3, "deploy", 0, draw).child(name)
        new = noise.perturb(torch.ones(1, 1, 3, 3), stream)[0, 0]
        if (new.sum(1).min() == 0) == down and (new.sum(0).min() == 0) == right:
            return draw
    raise AssertionError


@pytest.mark.parametrize(("down", "right"), list(product([False, True], repeat=2)))
def test_operations_and_parameters_are_those_of_hand_arithmetic(down: bool, right: bool) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(660, 5)), 6)
    transform = nr.KernelTransform(0.5, kinds=("translate",))
    example = torch.zeros(7, 4, 10, 11)
    draw = draws_that_shift(down, right, "0.weight")
    aom, dom = nr.dom_cost(model, transform, example, seed=3, draw=draw)
    linear = 2 * 7 * 660 * 5
    assert aom == Cost(flops=2 * 7 * (10 * 11) * 6 * (4 // 2) * 3 * 3 + linear, parameters=6 * 2 * 9 + 6 + 660 * 5 + 5)
    high, wide = 3 - down, 3 - right
    kept = 6 * 2 * high * wide
    assert dom == Cost(flops=2 * 7 * 110 * 6 * 2 * high * wide + linear, parameters=kept + 6 + 660 * 5 + 5)


def test_a_strided_convolution_counts_its_output() -> None:
    conv = seeded(lambda: nn.Conv2d(3, 5, 3, stride=2, bias=False), 7)
    aom, dom = nr.dom_cost(conv, nr.KernelTransform(0.0), torch.zeros(1, 3, 9, 9))
    assert aom == dom == Cost(flops=2 * 4 * 4 * 5 * 3 * 9, parameters=5 * 3 * 9)


def test_dom_never_costs_more_than_aom_and_the_model_stays() -> None:
    model, savings = whole_network(), 0
    model[3].eval()
    before, modes = snapshot(model), [m.training for m in model.modules()]
    kinds = [type(m) for m in model.modules()]
    aoms = set()
    for draw in range(10):
        aom, dom = nr.dom_cost(model, nr.KernelTransform(0.5, kinds=("translate",)), image(), draw=draw)
        assert dom.flops <= aom.flops
        assert dom.parameters <= aom.parameters
        savings += dom.flops < aom.flops
        aoms.add(aom)
    assert savings > 5
    assert len(aoms) == 1
    assert same_bits(before, snapshot(model))
    assert modes == [m.training for m in model.modules()]
    assert kinds == [type(m) for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


def test_a_convolution_that_is_used_twice_is_shrunk_in_both_places() -> None:
    conv = seeded(lambda: nn.Conv2d(4, 4, 3, padding=1), 8)
    model = nn.Sequential(conv, nn.ReLU(), conv)
    draw = draws_that_shift(True, True, "0.weight")
    transform = nr.KernelTransform(0.5, kinds=("translate",))
    aom, dom = nr.dom_cost(model, transform, torch.zeros(1, 4, 8, 8), seed=3, draw=draw)
    assert aom == Cost(flops=2 * 2 * 64 * 4 * 4 * 9, parameters=4 * 4 * 9 + 4)
    assert dom == Cost(flops=2 * 2 * 64 * 4 * 4 * 4, parameters=4 * 4 * 4 + 4)


def test_a_convolution_with_a_forward_of_its_own_is_left_alone() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(2, 3, 3, padding=1))
    with torch.no_grad():
        model[0].weight[:, :, 0] = 0
    x = torch.randn(2, 2, 5, 5)
    torch.testing.assert_close(shrink_kernels(model)(x), model(x))
