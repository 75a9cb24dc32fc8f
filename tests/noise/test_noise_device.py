"""Device noise: one chip followed through time, mapping, compensation, settings."""

import math
import pickle
import sys

import numpy as np
import pytest
import torch
from torch import nn

from noiserobust.errors import InvalidValueError
from noiserobust.noise.device import DeviceNoise
from noiserobust.noise.layout import FilterView
from noiserobust.perturb import perturbed
from noiserobust.rng import Stream

PCM = "pcm-nandakumar-2019"
T_0 = 20.0
STREAM = Stream(0, "chip")


def device(t="1d", **settings):
    return DeviceNoise.from_profile(PCM, t, **settings)


def weights(*shape, seed=0):
    return torch.from_numpy(Stream(seed, "weights").normal(shape))


# -------------------------------------------------------------------------------------- one chip followed through time


def test_programming_error_and_drift_exponents_stay_through_time():
    # Without read noise a weight drifts as a power of time. Weights far from zero use one device of the pair, so
    # their exponent can be read off two times, and must predict the third.
    weight = torch.cat([weights(20, 20).clamp(-3, 3), torch.full((1, 20), -3.0)])
    times = [1.0, 3600.0, 31557600.0]
    noisy = [device(t, read_noise_scale=0.0, compensation="none").perturb(weight, STREAM).double() for t in times]
    # The unused device of a pair holds a little programming noise, too: take it away by programming without.
    quiet = [
        device(t, read_noise_scale=0.0, prog_noise_scale=0.0, compensation="none").perturb(weight, STREAM).double()
        for t in times
    ]
    used = weight.abs() > 0.3

    def exponent(a, b, values):
        return -(values[b] / values[a])[used].log() / math.log((times[b] + T_0) / (times[a] + T_0))

    nu = exponent(0, 1, quiet)
    torch.testing.assert_close(exponent(0, 2, quiet), nu, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exponent(1, 2, quiet), nu, rtol=1e-4, atol=1e-5)
    assert 0.03 < nu.mean() < 0.1
    assert nu.std() > 0.005
    start = quiet[0][used] * ((times[0] + T_0) / T_0) ** nu
    torch.testing.assert_close(start, weight[used].double(), rtol=1e-4, atol=1e-5)
    # With programming noise the start is off by the same factor at all times, if the unused device of the pair is at
    # zero, as is every second one (the noise of the others is below zero, and there are no negative conductances).
    error = [(n / q)[used] - 1 for n, q in zip(noisy, quiet, strict=True)]
    assert error[0].std() > 0.005
    same = (error[1] - error[0]).abs() < 1e-5
    assert same.double().mean().item() == pytest.approx(0.5, abs=0.1)
    torch.testing.assert_close(error[2][same], error[0][same], rtol=0, atol=1e-4)


def test_read_noise_is_new_at_each_time():
    weight = weights(100, 100)

    def read_noise(t):
        settings = {"drift_scale": 0.0, "compensation": "none"}
        still = device(t, read_noise_scale=0.0, **settings).perturb(weight, STREAM)
        return (device(t, **settings).perturb(weight, STREAM) - still).flatten().numpy()

    one, other = read_noise(3600.0), read_noise(3601.0)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
    assert np.std(one) == pytest.approx(np.std(other), rel=0.05)
    assert np.array_equal(one, read_noise("1h"))


def test_other_streams_are_other_chips():
    weight = weights(100, 100)
    one, other = (device().perturb(weight, Stream(0, "chip", k)) - weight for k in (0, 1))
    assert abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < 0.05


def test_the_stream_alone_decides_and_the_global_generator_is_left_alone():
    weight, noise = weights(5, 6), device()
    torch.manual_seed(0)
    first = noise.perturb(weight, STREAM)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(noise.perturb(weight, STREAM), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weight, weights(5, 6))
    assert torch.equal(pickle.loads(pickle.dumps(noise)).perturb(weight, STREAM), first)


# -------------------------------------------------------------------------------------------- mapping and compensation


def test_noise_scales_with_the_weights():
    weight = weights(6, 5)
    for settings in ({}, {"granularity": "filter"}, {"granularity": "tile", "tile": (2, 4)}, {"compensation": "none"}):
        noise = device(**settings)
        assert torch.equal(noise.perturb(2.0**-9 * weight, STREAM), 2.0**-9 * noise.perturb(weight, STREAM))


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        ({"granularity": "tensor"}, [(slice(0, 6), slice(0, 9))]),
        (
            {"granularity": "tile", "tile": (5, 4)},  # 5 inputs by 4 filters
            [(f, i) for f in (slice(0, 4), slice(4, 6)) for i in (slice(0, 5), slice(5, 9))],
        ),
    ],
    ids=["tensor", "tile"],
)
def test_compensation_restores_the_mean_magnitude_of_each_group(settings, blocks):
    weight = weights(6, 9) * torch.logspace(-2, 2, 6)[:, None]
    noisy = device("1y", **settings).perturb(weight, STREAM)
    raw = device("1y", compensation="none", **settings).perturb(weight, STREAM)
    for block in blocks:
        wanted = (weight[block].abs().mean() / raw[block].abs().mean()).item()
        torch.testing.assert_close(noisy[block], raw[block] * wanted, rtol=1e-5, atol=1e-8)
        assert wanted > 1.2


def test_filters_mapped_on_their_own_have_their_own_noise_scale():
    weight = weights(4, 400) * torch.tensor([1e-4, 1e-2, 1, 100])[:, None]
    relative = (device(granularity="filter").perturb(weight, STREAM) - weight).std(1) / weight.std(1)
    assert relative.max() < 1.3 * relative.min()
    shared = (device(granularity="tensor").perturb(weight, STREAM) - weight).std(1) / weight.std(1)
    assert shared[0] > 100 * relative[0]


@pytest.mark.parametrize("granularity", ["filter", "tile"])
def test_groups_of_zeros_stay_zero_and_do_not_disturb_the_others(granularity):
    weight = torch.zeros(64, 50)
    weight[0] = weights(50)
    noise = device(granularity=granularity, tile=(50, 1))
    noisy = noise.perturb(weight, STREAM)
    assert (noisy[1:] == 0).all()
    # 63 empty filters must not dilute the compensation of the one that is there.
    assert noisy[0].abs().mean().item() == pytest.approx(weight[0].abs().mean().item(), rel=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (0, 4), (2, 3, 3, 3)])
@pytest.mark.parametrize("granularity", ["filter", "tensor", "tile"])
def test_zero_and_empty_weights_stay_as_they_are(shape, granularity):
    weight = torch.zeros(shape)
    assert torch.equal(device(granularity=granularity).perturb(weight, STREAM), weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_dtype_is_noised_in_float32(dtype):
    weight = weights(5, 7).to(dtype)
    noisy = device().perturb(weight, STREAM)
    assert noisy.dtype == dtype
    assert torch.equal(noisy, device().perturb(weight.float(), STREAM).to(dtype))


@pytest.mark.parametrize("module", [nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3, groups=2)])
@pytest.mark.parametrize("granularity", ["filter", "tensor", "tile"])
def test_grouped_convolutions_are_noised(module, granularity):
    clean = module.weight.detach().clone()
    with perturbed(module, device(granularity=granularity, tile=(4, 4))):
        assert (module.weight != clean).all()
        assert np.corrcoef(module.weight.detach().flatten(), clean.flatten())[0, 1] > 0.9
    assert torch.equal(module.weight, clean)


def test_filters_of_a_transposed_convolution_are_its_output_channels():
    weight, view = weights(4, 3, 2, 2), FilterView(transposed=True, groups=2)
    noisy = device(granularity="filter").perturb(weight, STREAM, view)
    plain = device(granularity="filter").perturb(view.matrix(weight), STREAM)
    assert torch.equal(view.matrix(noisy), plain)


# --------------------------------------------------------------------------------------------------------- as an object


@pytest.mark.parametrize("bad", [0, -1, 0.0, "0s", "1x", "", math.nan, math.inf, "nan", None, True], ids=repr)
def test_a_time_is_after_programming(bad):
    for make in (device, device().at, device().parse_level):
        with pytest.raises(InvalidValueError, match="Expected `t` to be"):
            make(bad)


def test_times_are_levels():
    noise = device("1h")
    assert (noise.level_name, noise.level, noise.t) == ("t", 3600.0, 3600.0)
    assert noise.at("1d") == noise.at(86400) == device("1d")
    assert noise.parse_level("1d") == 86400.0


def test_the_name_says_which_settings_are_not_the_profiles():
    assert device().name == device("1y").name == PCM
    assert device(compensation="none").name == f"{PCM}-compensation=none"
    assert device(g_max_us=20).with_settings(tile=[8, 4]).name == f"{PCM}-g_max_us=20.0-tile=8x4"
    assert device(compensation="none").with_settings(compensation="global").name == PCM
    assert device(read_noise_scale=1).name == PCM


def test_describe_holds_all_settings_but_the_time():
    described = device(g_max_us=20, compensation="none").describe()
    assert described == device("1y", g_max_us=20, compensation="none").describe()
    assert described["kind"] == "device"
    assert described["profile"] == PCM
    assert described["conductance"]["g_max_us"] == 20.0
    assert described["compensation"] == "none"
    assert described != device().describe()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"compensaton": "none"}, "did you mean 'compensation'"),
        ({"g_max": 25}, "did you mean 'g_max_us'"),
        ({"t_read_ns": 250}, "did you mean 't_read_s'"),
        ({"compensation": "globl"}, "did you mean 'global'"),
        ({"compensation": None}, "Expected `compensation`"),
        ({"granularity": "row"}, "Expected `granularity` to be one of"),
        ({"g_max_us": 0}, "Expected `g_max_us` to be a finite number > 0.*, but got 0"),
        ({"g_max_us": "25"}, "Expected `g_max_us` to be a finite number"),
        ({"g_max_us": math.nan}, "Expected `g_max_us`"),
        ({"read_noise_scale": -1}, "Expected `read_noise_scale` to be a finite number >= 0.*, but got -1"),
        ({"drift_scale": True}, "Expected `drift_scale`"),
        ({"g_min_us": 25}, "Expected `g_min_us` to be below g_max_us = 25, but got 25"),
        ({"tile": 5}, "Expected `tile` to be a mapping"),
        ({"tile": (0, 5)}, "Expected `tile.rows` to be an integer >= 1, but got 0"),
    ],
    ids=str,
)
def test_settings_are_checked(settings, said):
    with pytest.raises(InvalidValueError, match=said):
        device(**settings)
    with pytest.raises(InvalidValueError, match=said):
        device().with_settings(**settings)


def test_settings_that_fit_only_together_can_be_given_together():
    assert device(g_min_us=30, g_max_us=40).profile.conductance == {"g_max_us": 40.0, "g_min_us": 30.0}


@pytest.mark.parametrize("bad", [torch.ones(2, 2, dtype=torch.int64), [1.0], None])
def test_a_weight_is_a_floating_point_tensor(bad):
    with pytest.raises(InvalidValueError, match="Expected `weight` to be a floating point tensor, but got"):
        device().perturb(bad, STREAM)


def test_device_noise_needs_no_aihwkit(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "aihwkit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aihwkit", None)
    weight = weights(3, 4)
    assert not torch.equal(device().perturb(weight, STREAM), weight)
