"""Scaled noise against plain loops: what the level is a fraction of, for every reference, granularity and layout."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from noiserobust.errors import InvalidValueError
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.noise.reference import GRANULARITIES, REFERENCES
from noiserobust.noise.scaled import GaussianNoise, LaplaceNoise
from noiserobust.rng import Stream

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=60)
STREAM = Stream(0, "test")
KINDS = [GaussianNoise, LaplaceNoise]


# ------------------------------------------------------------------------------------------- an independent reference


def place(index, shape, view):
    """Return (filter, input) of one weight, by the meaning of the dimensions; inputs are counted in storage order."""
    if len(shape) < 2:
        return 0, (index[0] if index else 0)
    first, second, *kernel = index
    inputs_per_group = shape[0] // view.groups
    taps = math.prod(shape[2:])
    tap = int(np.ravel_multi_index(kernel, shape[2:])) if kernel else 0
    if not view.transposed:
        return first, second * taps + tap
    group, channel = divmod(first, inputs_per_group)
    return group * shape[1] + second, channel * taps + tap


def statistic(values, reference):
    if reference == "max":
        return max(abs(v) for v in values)
    if reference == "l2":
        return math.sqrt(math.fsum(v * v for v in values))
    if reference == "sqrt-max":  # the variance is level^2 times the largest magnitude
        return math.sqrt(max(abs(v) for v in values))
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))


def plain_scale(weight, reference, granularity, tile, view):
    weight = weight.double().numpy()
    if reference == "absolute":
        return np.ones_like(weight)
    if reference == "weight":
        return np.abs(weight)
    groups = {}
    for index in np.ndindex(weight.shape):
        row, column = place(index, weight.shape, view)
        in_tile = column // tile[0] if tile else None
        group = {"filter": row, "tensor": 0, "tile": tile and (row // tile[1], in_tile), "column": (row, in_tile)}
        group = group[granularity]
        groups.setdefault(group, []).append(index)
    scale = np.empty_like(weight)
    for members in groups.values():
        value = statistic([float(weight[i]) for i in members], reference)
        for i in members:
            scale[i] = value
    return scale


def unit_noise(kind, shape, stream=STREAM):
    return (stream.normal(shape) if kind is GaussianNoise else stream.laplace(shape)).astype(np.float64)


def numbers(*shape, dtype=torch.float64):
    """Weights whose largest magnitude is negative."""
    weight = torch.from_numpy(Stream(1, "weights").normal(shape)).to(dtype)
    flat = weight.reshape(-1)
    flat[0] = -flat.abs().max() * 1.5
    return flat.reshape(shape)


WEIGHTS = {
    "conv2d": (numbers(5, 3, 3, 3), FILTERS),
    "conv1d": (numbers(4, 3, 5), FILTERS),
    "conv3d": (numbers(3, 2, 2, 3, 1), FILTERS),
    "linear": (numbers(6, 7), FILTERS),
    "one filter": (numbers(1, 7), FILTERS),
    "one input": (numbers(7, 1), FILTERS),
    "depthwise": (numbers(6, 1, 3, 3), FILTERS),
    "transposed 1d": (numbers(6, 4, 3), FilterView(True, 1)),
    "transposed 1d grouped": (numbers(6, 4, 3), FilterView(True, 2)),
    "transposed 2d grouped": (numbers(6, 2, 3, 2), FilterView(True, 3)),
    "transposed 3d grouped": (numbers(4, 3, 2, 1, 2), FilterView(True, 2)),
    "transposed depthwise": (numbers(4, 1, 3, 3), FilterView(True, 4)),
    "vector": (numbers(9), FILTERS),
    "number": (torch.tensor(-1.7, dtype=torch.float64), FILTERS),
    "all negative": (-numbers(4, 6).abs(), FILTERS),
    "zero filter": (numbers(4, 6) * torch.tensor([[1.0], [0], [1], [0]]), FILTERS),
    "zeros": (torch.zeros(3, 4, dtype=torch.float64), FILTERS),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_noise_is_level_times_scale_times_unit_noise(kind, granularity, reference, weight):
    weight, view = WEIGHTS[weight]
    tile = (4, 2)  # divides hardly any of the shapes
    noisy = kind(0.1, reference=reference, granularity=granularity, tile=tile).perturb(weight, STREAM, view)
    scale = plain_scale(weight, reference, granularity, tile, view)
    wanted = weight.numpy() + 0.1 * scale * unit_noise(kind, tuple(weight.shape))
    assert noisy.shape == weight.shape
    assert noisy.dtype == weight.dtype
    np.testing.assert_allclose(noisy.numpy(), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "module",
    [
        nn.ConvTranspose1d(6, 4, 3, groups=2),
        nn.ConvTranspose2d(6, 9, (2, 3), groups=3),
        nn.ConvTranspose3d(4, 2, 2, groups=2),
        nn.ConvTranspose2d(3, 5, 2),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Linear(3, 4),
    ],
    ids=str,
)
def test_a_filter_is_what_feeds_one_output_channel(module):
    # The module itself says which weights feed a channel: those on which the channel's output depends.
    linear = isinstance(module, nn.Linear)
    x = (
        torch.rand(1, module.in_features)
        if linear
        else torch.rand(1, module.in_channels, *[5] * (module.weight.ndim - 2))
    )
    outputs = module(x)
    transposed = "Transpose" in type(module).__name__
    view = FilterView(transposed, module.groups if transposed else 1)
    rows = view.matrix(torch.arange(module.weight.numel()).reshape(module.weight.shape))
    assert len(rows) == outputs.shape[1]
    for channel, row in enumerate(rows):
        (gradient,) = torch.autograd.grad(outputs[:, channel].sum(), module.weight, retain_graph=True)
        assert gradient.flatten().nonzero().flatten().tolist() == sorted(row.tolist())
    restored = view.restore(view.matrix(module.weight), module.weight.shape)
    assert torch.equal(restored, module.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reference", REFERENCES)
def test_narrow_weights_are_noised_in_float32_and_rounded_once(dtype, reference):
    weight = numbers(5, 8, dtype=dtype)
    noisy = GaussianNoise(0.1, reference=reference).perturb(weight, STREAM)
    wanted = weight.double().numpy() + 0.1 * plain_scale(weight, reference, "filter", None, FILTERS) * unit_noise(
        GaussianNoise, (5, 8)
    )
    error = np.abs(noisy.double().numpy() - wanted)
    assert noisy.dtype == dtype
    assert (error <= (0.5 * torch.finfo(dtype).eps + 1e-6) * np.abs(wanted) + 1e-7).all()


@pytest.mark.parametrize("make", [lambda w: w.to(memory_format=torch.channels_last), lambda w: w.flip(0).flip(0)])
def test_memory_layout_changes_nothing(make):
    weight = numbers(4, 3, 3, 3, dtype=torch.float32)
    for reference in REFERENCES:
        noise = GaussianNoise(0.1, reference=reference)
        torch.testing.assert_close(
            noise.perturb(make(weight), STREAM), noise.perturb(weight, STREAM), rtol=1e-6, atol=0
        )


def test_a_transposed_view_of_a_weight_is_a_weight_like_any_other():
    weight = numbers(4, 3)
    noise = GaussianNoise(0.1)
    assert torch.equal(noise.perturb(weight.t(), STREAM), noise.perturb(weight.t().contiguous(), STREAM))


# --------------------------------------------------------------------------------------------------------- properties

ANY_NOISE = st.builds(
    lambda kind, level, **settings: kind(level, **settings),
    st.sampled_from(KINDS),
    st.floats(1e-3, 2),
    reference=st.sampled_from(REFERENCES),
    granularity=st.sampled_from(GRANULARITIES),
    tile=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@PROPERTY
@given(ANY_NOISE, SHAPES, st.integers(-8, 8), st.integers(0, 2**70))
def test_noise_scales_with_the_weights(noise, shape, exponent, seed):
    # A power of two scales without rounding, so equality is exact; "absolute" noise does not scale, the variance of
    # "sqrt-max" does.
    weight, factor, stream = torch.from_numpy(Stream(seed, "w").normal(shape)), 2.0**exponent, Stream(seed)
    scaled = noise.perturb(factor * weight, stream)
    if noise.reference == "absolute":
        torch.testing.assert_close(
            scaled - factor * weight, noise.perturb(weight, stream) - weight, rtol=1e-3, atol=1e-4 * max(factor, 1)
        )
    elif noise.reference == "sqrt-max":
        errors = noise.perturb(weight, stream) - weight
        torch.testing.assert_close(
            scaled - factor * weight, factor**0.5 * errors, rtol=1e-3, atol=1e-4 * max(factor, 1)
        )
    else:
        assert torch.equal(scaled, factor * noise.perturb(weight, stream))


@PROPERTY
@given(ANY_NOISE, SHAPES, st.integers(0, 2**70))
def test_the_sign_of_the_weights_does_not_change_the_noise(noise, shape, seed):
    weight, stream = torch.from_numpy(Stream(seed, "w").normal(shape)).double(), Stream(seed)
    torch.testing.assert_close(noise.perturb(-weight, stream) + weight, noise.perturb(weight, stream) - weight)


@PROPERTY
@given(ANY_NOISE, SHAPES, st.integers(0, 2**70), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_level_zero_changes_no_bit_and_the_weight_is_never_modified(noise, shape, seed, dtype):
    weight = torch.from_numpy(Stream(seed, "w").normal(shape)).to(dtype).requires_grad_()
    before = weight.detach().clone()
    noisy = noise.perturb(weight, Stream(seed))
    clean = noise.at(0).perturb(weight, Stream(seed))
    assert torch.equal(weight, before)
    assert weight._version == 0
    assert torch.equal(clean, before)
    assert not noisy.requires_grad
    assert not clean.requires_grad
    assert weight.data_ptr() not in (noisy.data_ptr(), clean.data_ptr())


def test_level_zero_keeps_signed_zeros_nan_and_infinity():
    weight = torch.tensor([[-0.0, math.nan, math.inf, -1e-45]])
    clean = GaussianNoise(0.0).perturb(weight, STREAM)
    assert torch.equal(clean.view(torch.int32), weight.view(torch.int32))


@PROPERTY
@given(ANY_NOISE, SHAPES, st.floats(1e-3, 2))
def test_two_levels_are_one_chip_at_two_strengths(noise, shape, other):
    weight = numbers(*shape) if shape else torch.tensor(-1.7, dtype=torch.float64)
    one = (noise.perturb(weight, STREAM) - weight) / noise.level
    two = (noise.at(other).perturb(weight, STREAM) - weight) / other
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


@PROPERTY
@given(ANY_NOISE, st.integers(0, 2**70))
def test_equal_streams_equal_noise_other_streams_other_noise(noise, seed):
    assume(noise.reference != "std" or noise.tile != (1, 1))  # the std of a single weight is 0
    weight = numbers(4, 5)
    once, again = (noise.perturb(weight, Stream(seed, "a")) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, noise.perturb(weight, Stream(seed, "b")))


@pytest.mark.parametrize("reference", [r for r in REFERENCES if r != "absolute"])
def test_zero_filters_stay_zero_beside_others(reference):
    weight = numbers(4, 6)
    weight[1] = 0
    noisy = GaussianNoise(0.5, reference=reference).perturb(weight, STREAM)
    assert (noisy[1] == 0).all()
    assert (noisy[[0, 2, 3]] != weight[[0, 2, 3]]).all()


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3, 2)])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_empty_weights_stay_empty(shape, granularity):
    assert GaussianNoise(0.1, granularity=granularity).perturb(torch.empty(shape), STREAM).shape == shape


# ----------------------------------------------------------------------------------------------------- as an object


@pytest.mark.parametrize(
    ("noise", "name"),
    [
        (GaussianNoise(0.1), "gaussian"),
        (LaplaceNoise(0.1), "laplace"),
        (GaussianNoise(0.1, reference="l2"), "gaussian-l2"),
        (LaplaceNoise(0.1, granularity="tensor"), "laplace-tensor"),
        (GaussianNoise(0.1, reference="std", granularity="tile", tile=(64, 32)), "gaussian-std-tile64x32"),
        (GaussianNoise(0.1, reference="weight", granularity="tensor"), "gaussian-weight"),
    ],
)
def test_the_name_says_what_is_not_default_and_never_the_level(noise, name):
    assert noise.name == name
    assert noise.at(0.7).name == name
    assert noise.at(0.7).describe() == noise.describe()


def test_describe_determines_the_noise():
    noise = LaplaceNoise(0.1, reference="l2", granularity="tile", tile=(3, 4))
    assert noise.describe() == {"kind": "laplace", "reference": "l2", "granularity": "tile", "tile": [3, 4]}
    settings = {k: v for k, v in noise.describe().items() if k != "kind"}
    assert LaplaceNoise(0.1).with_settings(**settings) == noise


def test_levels_have_names_and_noises_are_values():
    assert (GaussianNoise.level_name, LaplaceNoise.level_name) == ("sigma", "b")
    noise = GaussianNoise(0.1)
    assert noise.at(0.2) == GaussianNoise(0.2) == GaussianNoise(sigma=np.float64(0.2))
    assert noise.level == noise.sigma == 0.1
    assert noise.parse_level("0.25") == noise.parse_level(0.25) == 0.25
    assert hash(noise) == hash(GaussianNoise(0.1))
    assert pickle.loads(pickle.dumps(noise)) == noise
    with pytest.raises(AttributeError):
        noise.sigma = 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "bad", [-1e-9, math.nan, math.inf, True, "0.1", None, [0.1], 10**400], ids=lambda v: str(v)[:9]
)
def test_a_level_is_a_finite_number_from_zero(kind, bad):
    said = rf"^Expected `{kind.level_name}` to be a finite number >= 0, but got "
    with pytest.raises(InvalidValueError, match=said):
        kind(bad)
    with pytest.raises(InvalidValueError, match=said):
        kind(0.1).at(bad)


@pytest.mark.parametrize("bad", ["", "x", "1s", "nan", "-1", True, None, math.inf])
def test_a_level_given_as_text_is_checked_too(bad):
    with pytest.raises(InvalidValueError, match=r"^Expected (a level of )?`sigma` to be a .*number.*, but got "):
        GaussianNoise(0.1).parse_level(bad)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reference": "maxx"}, "did you mean 'max'"),
        ({"reference": "L2"}, "did you mean 'l2'"),
        ({"reference": None}, "Expected `reference` to be one of .*, but got None"),
        ({"granularity": "filters"}, "did you mean 'filter'"),
        ({"granularity": 1}, "Expected `granularity`"),
        ({"tile": 512}, r"Expected `tile` to be \(rows, columns\), but got 512"),
        ({"tile": (1, 2, 3)}, "Expected `tile`"),
        ({"tile": (0, 2)}, "Expected `tile rows` to be an integer >= 1, but got 0"),
        ({"tile": (2, 1.5)}, "Expected `tile columns` to be an integer >= 1, but got 1.5"),
        ({"tile": (True, 2)}, "Expected `tile rows`"),
        ({"tile": "ab"}, "Expected `tile`"),
    ],
)
def test_settings_are_checked(settings, said):
    for make in (lambda: GaussianNoise(0.1, **settings), lambda: GaussianNoise(0.1).with_settings(**settings)):
        with pytest.raises(InvalidValueError, match=said):
            make()


def test_unknown_settings_name_the_nearest():
    with pytest.raises(InvalidValueError, match="did you mean 'granularity'"):
        GaussianNoise(0.1).with_settings(granularty="tensor")
    with pytest.raises(InvalidValueError, match=r"Expected `setting of gaussian noise`.*but got 'sigma'"):
        GaussianNoise(0.1).with_settings(sigma=0.2)


@pytest.mark.parametrize(
    "bad", [torch.ones(2, 2, dtype=torch.int32), torch.ones(2, dtype=torch.bool), torch.ones(2) * 1j, [1.0], None]
)
@pytest.mark.parametrize("level", [0, 0.1])
def test_a_weight_is_a_floating_point_tensor(bad, level):
    with pytest.raises(InvalidValueError, match="Expected `weight` to be a floating point tensor, but got"):
        GaussianNoise(level).perturb(bad, STREAM)
