"""Transforms of kernels against loops over their cells, their probabilities and their adjoint; weakened noise."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare
from torch import Tensor, nn
from torch.nn.functional import interpolate

import noiserobust as nr

Kernel = np.ndarray
Outcome = tuple[str | int, ...]
SIZES = [(3, 3), (5, 5), (2, 2), (4, 4), (1, 3), (3, 1), (2, 5)]
KINDS = ("translate", "crop", "rot90", "flip")


def kernel(high: int, wide: int) -> Kernel:
    """Distinct numbers, none of them zero."""
    return np.random.default_rng(0).uniform(1, 2, (high, wide)) * (-1) ** np.arange(high * wide).reshape(high, wide)


# ------------------------------------------------------------------------------------------------- cell by cell


def translated(old: Kernel, down: int, right: int) -> Kernel:
    new = np.zeros_like(old)
    high, wide = old.shape
    for i, j in product(range(high), range(wide)):
        if 0 <= i + down < high and 0 <= j + right < wide:
            new[i + down, j + right] = old[i, j]
    return new


def cropped(old: Kernel, top: int, bottom: int, left: int, right: int) -> Kernel:
    """Cut rows and columns off; resize bilinearly, pixel centres at half-integers, edges repeated."""
    high, wide = old.shape
    part = old[top : high - bottom, left : wide - right]
    new = np.zeros_like(old)
    for i, j in product(range(high), range(wide)):
        y, x = (i + 0.5) * part.shape[0] / high - 0.5, (j + 0.5) * part.shape[1] / wide - 0.5
        for a, b in product(range(math.floor(y), math.floor(y) + 2), range(math.floor(x), math.floor(x) + 2)):
            share = (1 - abs(y - a)) * (1 - abs(x - b))
            inside = min(max(a, 0), part.shape[0] - 1), min(max(b, 0), part.shape[1] - 1)
            new[i, j] += share * part[inside]
    return new


def turned(old: Kernel, quarters: int) -> Kernel:
    """Against the clock."""
    for _ in range(quarters):
        new = np.zeros((old.shape[1], old.shape[0]))
        for i, j in product(range(old.shape[0]), range(old.shape[1])):
            new[old.shape[1] - 1 - j, i] = old[i, j]
        old = new
    return old


def mirrored(old: Kernel, axis: str) -> Kernel:
    new = np.zeros_like(old)
    high, wide = old.shape
    for i, j in product(range(high), range(wide)):
        new[(high - 1 - i, j) if axis == "upside down" else (i, wide - 1 - j)] = old[i, j]
    return new


def outcomes(kind: str, old: Kernel) -> dict[Outcome, Kernel]:
    """All that a transform can do to a kernel, "nothing" included."""
    high, wide = old.shape
    if kind == "translate":
        shifts = product((-1, 0, 1) if high > 1 else (0,), (-1, 0, 1) if wide > 1 else (0,))
        return {shift: translated(old, *shift) for shift in shifts}
    nothing: dict[Outcome, Kernel] = {("nothing",): old}
    if kind == "crop":
        rows = [(1, 0), (0, 1)] if high > 1 else []
        columns = [(1, 0), (0, 1)] if wide > 1 else []
        cuts = [(*r, 0, 0) for r in rows] + [(0, 0, *c) for c in columns]
        cuts += [(*r, *c) for r, c in product(rows, columns)]
        return nothing | {cut: cropped(old, *cut) for cut in cuts}
    if kind == "rot90":
        return nothing | {(q,): turned(old, q) for q in ((1, 2, 3) if high == wide else (2,))}
    return nothing | {(axis,): mirrored(old, axis) for axis in ("upside down", "left to right")}


def recognised(kind: str, old: Kernel, new: Kernel) -> Outcome:
    """Return which outcome it is; the first of those that are the same for this size."""
    for outcome, expected in outcomes(kind, old).items():
        if np.allclose(new, expected, rtol=1e-12, atol=1e-12):
            return outcome
    raise AssertionError(f"no {kind}: {old} became {new}")


def apply(noise: nr.KernelTransform, old: Kernel, seed: int) -> Kernel:
    weight = torch.from_numpy(old)[None, None].clone()
    return noise.perturb(weight, nr.Stream(seed, "kernel"))[0, 0].numpy()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_each_outcome_occurs_and_is_that_of_a_loop_over_the_cells(kind: str, size: tuple[int, int]) -> None:
    old, noise = kernel(*size), nr.KernelTransform(0.6, kinds=(kind,))
    seen = {recognised(kind, old, apply(noise, old, seed)) for seed in range(150)}
    distinct = {recognised(kind, old, new) for new in outcomes(kind, old).values()}
    assert seen == distinct


def test_the_loops_tell_the_other_direction_and_another_way_of_resizing() -> None:
    old = kernel(3, 3)
    down = translated(old, 1, 0)
    assert np.array_equal(down[0], [0, 0, 0])
    assert np.array_equal(down[1:], old[:2])
    assert np.array_equal(turned(old, 1), np.rot90(old, 1))
    assert not np.allclose(turned(old, 1), turned(old, 3))
    large = kernel(5, 5)  # of 3 x 3 kernels both ways of resizing make the same
    part = torch.from_numpy(large[None, None, 1:])
    resized, aligned = (interpolate(part, size=(5, 5), mode="bilinear", align_corners=a)[0, 0] for a in (False, True))
    assert recognised("crop", large, resized.numpy()) == (1, 0, 0, 0)
    with pytest.raises(AssertionError, match="no crop"):
        recognised("crop", large, aligned.numpy())
    with pytest.raises(AssertionError, match="no translate"):
        recognised("translate", old, np.roll(old, 1, 0))


@pytest.mark.slow
def test_transforms_follow_each_other_in_the_order_of_kinds() -> None:
    old = kernel(3, 3)
    both = nr.KernelTransform(0.7, kinds=("translate", "rot90"))
    reverse = nr.KernelTransform(0.7, kinds=("rot90", "translate"))

    def chains(first: str, second: str) -> list[Kernel]:
        return [new for middle in outcomes(first, old).values() for new in outcomes(second, middle).values()]

    def explained(noise: nr.KernelTransform, first: str, second: str) -> list[bool]:
        known = chains(first, second)
        return [any(np.allclose(apply(noise, old, seed), k) for k in known) for seed in range(40)]

    assert all(explained(both, "translate", "rot90"))
    assert all(explained(reverse, "rot90", "translate"))
    # A corner that moved away is not brought back by a turn: crops and turns do not commute.
    crop_first = nr.KernelTransform(1.0, kinds=("crop", "translate"))
    assert all(explained(crop_first, "crop", "translate"))
    assert not all(explained(crop_first, "translate", "crop"))


# ------------------------------------------------------------------------------------------------------ probabilities

N = 2500


def frequencies(kind: str, p: float, n: int = N) -> Counter[Outcome]:
    old, noise = kernel(3, 3), nr.KernelTransform(p, kinds=(kind,))
    table = {tuple(np.round(new, 9).ravel()): outcome for outcome, new in outcomes(kind, old).items()}
    return Counter(table[tuple(np.round(apply(noise, old, seed), 9).ravel())] for seed in range(n))


@pytest.mark.parametrize("p", [0.22, 0.7])
def test_each_axis_is_shifted_with_probability_p_and_either_way_alike(p: float) -> None:
    seen = frequencies("translate", p)
    for axis in (0, 1):
        moved = sum(count for shift, count in seen.items() if shift[axis] != 0)
        forward = sum(count for shift, count in seen.items() if shift[axis] == 1)
        assert binomtest(moved, N, p).pvalue > 0.001
        assert binomtest(moved, N, 1.25 * p).pvalue < 0.01
        assert binomtest(forward, moved, 0.5).pvalue > 0.001
    expected = {s: N * math.prod(p / 2 if move else 1 - p for move in s) for s in product((-1, 0, 1), repeat=2)}
    assert chisquare([seen[s] for s in expected], list(expected.values())).pvalue > 0.001


@pytest.mark.parametrize("p", [0.22, 0.7])
@pytest.mark.parametrize("kind", ["crop", "rot90", "flip"])
def test_each_other_transform_happens_with_probability_p(kind: str, p: float) -> None:
    seen = frequencies(kind, p)
    happened = N - seen[("nothing",)]
    assert binomtest(happened, N, p).pvalue > 0.001
    assert binomtest(happened, N, 1.25 * p).pvalue < 0.01
    counts = [seen[outcome] for outcome in outcomes(kind, kernel(3, 3)) if outcome != ("nothing",)]
    # Rows, columns or both with a third each, and then either side: both has four outcomes.
    shares = [1 / 6] * 4 + [1 / 12] * 4 if kind == "crop" else [1 / len(counts)] * len(counts)
    assert chisquare(counts, [happened * share for share in shares]).pvalue > 0.001


def test_probability_one_always_transforms_and_zero_never() -> None:
    for kind in KINDS:
        assert frequencies(kind, 1.0, 60)[("nothing",) if kind != "translate" else (0, 0)] == 0
        assert frequencies(kind, 0.0, 60)[("nothing",) if kind != "translate" else (0, 0)] == 60


def test_kinds_and_weights_are_transformed_independently() -> None:
    old, noise = kernel(3, 3), nr.KernelTransform(0.5, kinds=("flip",))
    first = [recognised("flip", old, apply(noise, old, seed)) for seed in range(400)]
    stream = [nr.Stream(seed, "kernel").child("other") for seed in range(400)]
    weight = torch.from_numpy(old)[None, None]
    second = [recognised("flip", old, noise.perturb(weight, s)[0, 0].numpy()) for s in stream]
    both = sum(a != ("nothing",) and b != ("nothing",) for a, b in zip(first, second, strict=True))
    assert binomtest(both, 400, 0.25).pvalue > 0.001


# ----------------------------------------------------------------------------------------------------- whole weights


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_probability_zero_is_the_identity_bit_for_bit(dtype: torch.dtype, layout: torch.memory_format) -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight[0, 0, 0, 0], weight[0, 0, 1, 1] = -0.0, float("inf")
    weight = weight.contiguous(memory_format=layout)
    for seed in range(5):
        same = nr.KernelTransform(0.0, kinds=KINDS).perturb(weight, nr.Stream(seed))
        assert same.data_ptr() != weight.data_ptr()
        assert same.dtype == dtype
        bits = [t.contiguous().flatten().view(torch.uint8) for t in (same, weight)]
        assert torch.equal(*bits)


@pytest.mark.parametrize("kind", KINDS)
def test_all_filters_and_channels_of_a_weight_are_transformed_alike(kind: str) -> None:
    noise = nr.KernelTransform(0.8, kinds=(kind,))
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for seed in range(20):
        new = noise.perturb(weight, nr.Stream(seed))
        found = set()
        for out, channel in product(range(5), range(3)):
            found.add(recognised(kind, weight[out, channel].numpy(), new[out, channel].numpy()))
        assert len(found) == 1


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 3), (4, 3, 1, 1), (2, 3, 3, 3, 3)], ids=str)
def test_weights_that_are_no_two_dimensional_kernels_stay_what_they_are(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    noise = nr.KernelTransform(1.0, kinds=KINDS)
    for seed in range(10):
        assert torch.equal(noise.perturb(weight, nr.Stream(seed)), weight)
        assert torch.equal(noise.pull_back(weight, nr.Stream(seed)), weight)


def test_a_model_gets_a_transform_for_each_convolution_and_keeps_the_rest() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        model[2].weight.copy_(model[0].weight[:, :1].expand(3, 3, 3, 3))
        model[0].weight.copy_(model[0].weight[:, :1].expand(3, 2, 3, 3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    differing = 0
    for draw in range(10):
        with nr.perturbed(model, nr.KernelTransform(0.6), 3, draw):
            after = {name: p.detach().clone() for name, p in model.named_parameters()}
        kept = [name for name in before if torch.equal(before[name], after[name])]
        assert set(kept) >= {"0.bias", "1.weight", "1.bias", "2.bias", "4.weight", "4.bias"}
        differing += not torch.equal(after["0.weight"][:, :1], after["2.weight"][:, :1])
    assert differing >= 5


def test_the_weight_given_is_not_changed() -> None:
    weight = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(3))
    before = weight.clone()
    for seed in range(10):
        nr.KernelTransform(1.0, kinds=KINDS).perturb(weight, nr.Stream(seed)).zero_()
    assert torch.equal(weight, before)


# ------------------------------------------------------------------------------------------------------------ adjoint


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4).map(tuple),
    p=st.sampled_from([0.3, 1.0]),
    size=st.sampled_from([*SIZES, (1, 1)]),
)
def test_pull_back_is_the_adjoint(seed: int, kinds: tuple[str, ...], p: float, size: tuple[int, int]) -> None:
    noise, stream = nr.KernelTransform(p, kinds=kinds), nr.Stream(seed)
    generator = torch.Generator().manual_seed(seed)
    w, g = (torch.randn(2, 3, *size, generator=generator, dtype=torch.float64) for _ in range(2))
    forward = (noise.perturb(w, stream) * g).sum()
    torch.testing.assert_close(forward, (w * noise.pull_back(g, stream)).sum(), rtol=1e-12, atol=1e-12)


def test_pull_back_is_not_the_transform_itself_and_keeps_the_dtype() -> None:
    gradient = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for kind in ("translate", "crop"):
        noise, stream = nr.KernelTransform(1.0, kinds=(kind,)), nr.Stream(0)
        assert not torch.allclose(noise.pull_back(gradient, stream), noise.perturb(gradient, stream))
    low = nr.KernelTransform(1.0).pull_back(gradient.bfloat16(), nr.Stream(0))
    assert low.dtype == torch.bfloat16


# ---------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "make",
    [
        lambda: nr.KernelTransform(kinds=("shear",)),
        lambda: nr.KernelTransform(kinds=("translate", "rot45")),
        lambda: nr.KernelTransform(kinds=()),
        lambda: nr.KernelTransform(kinds="flip"),
        lambda: nr.KernelTransform(1.1),
        lambda: nr.KernelTransform(-0.1),
        lambda: nr.KernelTransform(float("nan")),
        lambda: nr.KernelTransform(0.5).at(2.0),
    ],
)
def test_unknown_kinds_and_probabilities_out_of_range_are_refused(make) -> None:
    with pytest.raises(nr.NoiseRobustError, match="Expected"):
        make()


# -------------------------------------------------------------------------------------------------- weakened noise


@pytest.mark.parametrize("strength", [0.0, 0.25, 0.9, 1.0, 1.5])
@pytest.mark.parametrize(
    "noise",
    [nr.GaussianNoise(0.2), nr.GaussianNoise(0.2, reference="l2", granularity="tensor"), nr.LaplaceNoise(0.1)],
    ids=lambda n: n.name,
)
def test_a_scaled_noise_is_weakened_in_its_level(noise: nr.Noise, strength: float) -> None:
    assert noise.weakened(strength) == noise.at(noise.level * strength)
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    full, weak = (n.perturb(weight, nr.Stream(1)) - weight for n in (noise, noise.weakened(strength)))
    torch.testing.assert_close(weak, strength * full, rtol=1e-12, atol=1e-14)


def device(t: str = "1d") -> nr.DeviceNoise:
    return nr.DeviceNoise.from_profile("pcm-nandakumar-2019", t=t)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("strength", [0.0, 0.25, 0.9, 1.0, 1.5])
def test_a_device_is_weakened_in_its_errors(strength: float, dtype: torch.dtype) -> None:
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(6)).to(dtype)
    exact, error = weight.double(), device().perturb(weight, nr.Stream(1)).double() - weight.double()
    assert error.abs().max() > 0.01
    weak = device().weakened(strength).perturb(weight, nr.Stream(1))
    assert weak.dtype == dtype
    torch.testing.assert_close(weak.double(), exact + strength * error, rtol=1e-6, atol=1e-7)
    if strength in (0.0, 1.0):
        assert torch.equal(weak, weight if strength == 0 else device().perturb(weight, nr.Stream(1)))
    else:
        assert not torch.allclose(weak.double(), exact + 1.05 * strength * error, rtol=1e-4)


def test_a_weakened_device_goes_through_time() -> None:
    weight: Tensor = torch.randn(6, 5, generator=torch.Generator().manual_seed(7))
    later = device().weakened(0.5).at("1y")
    assert later.level == device("1y").level
    assert torch.equal(later.perturb(weight, nr.Stream(2)), device("1y").weakened(0.5).perturb(weight, nr.Stream(2)))
    assert not torch.equal(later.perturb(weight, nr.Stream(2)), device().weakened(0.5).perturb(weight, nr.Stream(2)))


@pytest.mark.parametrize("second", [0.0, 0.5])
def test_a_device_weakened_twice_is_weakened_in_its_errors_twice(second: float) -> None:
    # Its level is a time: a schedule on a weakened device must not shorten the time.
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(8))
    error = device().perturb(weight, nr.Stream(1)) - weight
    twice = device().weakened(0.5).weakened(second)
    assert twice.level == device().level
    torch.testing.assert_close(twice.perturb(weight, nr.Stream(1)), weight + 0.5 * second * error)


def test_levels_of_a_weakened_device_are_times() -> None:
    assert device().weakened(0.5).parse_level("1h") == 3600.0
