"""What goes wrong without a word in device models, and what happens here instead."""

import numpy as np
import pytest
import torch
from torch import nn

import noiserobust as nr
from noiserobust.errors import InvalidValueError
from noiserobust.noise.profiles import profile_names

EVERY = pytest.mark.parametrize("name", profile_names())
STREAM = nr.Stream(0, "chip", "w")


def weights(*shape):
    return torch.from_numpy(nr.Stream(0, "weights").normal(shape))


def device(name="pcm-nandakumar-2019", t="1d", **settings):
    return nr.DeviceNoise.from_profile(name, t, **settings)


@EVERY
def test_time_0_is_refused_and_clean_is_a_level(name):
    with pytest.raises(InvalidValueError, match=r"Expected `t` to be a finite number > 0.*, but got 0"):
        device(name).at(0)
    model, data = nn.Linear(6, 3), (torch.randn(9, 6), torch.arange(9) % 3)
    assert len(nr.evaluate([model], data, noise=device(name), levels=["clean", "1d"], draws=2).draws) == 3


@EVERY
def test_reading_does_not_map_to_the_programmed_maximum(name):
    # Programmed in one step and read in another, through weights, the largest programmed conductance would become the
    # largest target: a gain that no device has.
    weight = weights(300, 300)
    noisy = device(name, "1s", compensation="none").perturb(weight, STREAM)
    gain = ((noisy * weight).sum() / weight.square().sum()).item()
    assert 0.97 < gain < 1.01


def test_the_noise_of_wan_is_scaled_to_the_largest_conductance():
    weight = weights(300, 300)
    spread = [
        (device("reram-wan-2022", g_max_us=g).perturb(weight, STREAM) - weight).std().item() for g in (25.0, 40.0)
    ]
    assert spread[0] == pytest.approx(spread[1], rel=1e-4)


def test_coefficients_can_be_given_with_their_reference():
    weight = weights(300, 300)
    still = {"read_noise_scale": 0.0, "drift_scale": 0.0, "compensation": "none"}

    def spread(**settings):
        return (device(t="1s", **still, **settings).perturb(weight, STREAM) - weight).std().item()

    twice = spread(programming_std_us={"polynomial": [0.52696, 3.93, -2.3462]}, reference_g_max_us=50.0)
    assert twice == pytest.approx(spread(), rel=1e-4)


def test_the_two_acceptance_ranges_are_two_profiles():
    weight, still = weights(100, 100), {"read_noise_scale": 0.0, "drift_scale": 0.0, "compensation": "none"}
    fine, coarse = (
        (device(f"reram-cmo-{kind}", "1s", **still).perturb(weight, STREAM) - weight).std()
        for kind in ("fine", "coarse")
    )
    assert coarse / fine == pytest.approx(1.43 / 0.135, rel=0.03)
    with pytest.raises(InvalidValueError, match="Expected `setting of profile reram-cmo-fine` to be one of"):
        device("reram-cmo-fine", acceptance_range=2e-2)


@EVERY
@pytest.mark.parametrize("granularity", ["tensor", "filter", "tile", "column"])
@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
def test_equal_weights_give_no_nan(name, granularity, value):
    weight = torch.full((5, 7), value)
    noisy = device(name, granularity=granularity, tile=(3, 2)).perturb(weight, STREAM)
    assert noisy.isfinite().all()
    if value == 0 or name.startswith("reram-cmo"):  # without a range there is nothing to map
        assert torch.equal(noisy, weight)


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_gives_finite_weights(name, dtype):
    weight = weights(5, 7).to(dtype)
    noisy = device(name).perturb(weight, STREAM)
    assert noisy.dtype == dtype
    assert noisy.isfinite().all()
    torch.testing.assert_close(noisy, device(name).perturb(weight.float(), STREAM).to(dtype))


def test_times_that_were_not_measured_are_refused():
    with pytest.raises(InvalidValueError, match=r"Expected `t` to be one of 1s, 1d, 2d, .*, but got 1h"):
        device("reram-wan-2022", "1h")
    for t in ("0.5s", "11y"):
        with pytest.raises(InvalidValueError, match=r"Expected `t` to be between 1 s and 10 y, .*, but got"):
            device("reram-cmo-fine", t)


def test_a_table_of_drift_exponents_has_to_cover_the_range():
    table = {"table_us": [[0.0, 0.05], [20.0, 0.05]]}
    with pytest.raises(InvalidValueError, match=r"to cover 0 to 25 µS, .*, but got 0 to 20"):
        device("pcm-custom-drift", drift_exponent_mean=table)
    with pytest.raises(InvalidValueError, match="to cover 0 to 30 µS"):
        device("pcm-custom-drift", g_max_us=30.0)
    device("pcm-custom-drift", drift_exponent_mean=table, g_max_us=20.0)


@EVERY
def test_devices_are_hashable_and_equal_by_what_they_are(name):
    one, other = device(name, prog_noise_scale=0.5) if "wan" not in name else device(name), device(name)
    assert len({one, other, device(name)}) == len({one.name, other.name})
    assert hash(other) == hash(device(name))


def test_a_model_drifts_from_its_clean_weights_only_once():
    model = nn.Linear(20, 10)
    clean = model.weight.detach().clone()
    with nr.perturbed(model, device()):
        kept = {k: v.clone() for k, v in model.state_dict().items()}
    assert torch.equal(model.weight, clean)
    model.load_state_dict(kept)  # what was saved on the chip loads like any state
    assert not torch.equal(model.weight, clean)


def test_an_outlier_can_be_cut_off():
    weight = weights(100, 100)
    with_outlier = weight.clone()
    with_outlier[0, 0] = 5 * weight.abs().max()
    others = torch.ones_like(weight, dtype=torch.bool)
    others[0, 0] = False

    def spread(w, **settings):
        return (device(**settings).perturb(w, STREAM) - w)[others].std().item()

    assert spread(with_outlier) > 2.5 * spread(weight)
    cut = spread(with_outlier, clip_percentile=99.99)
    assert cut == pytest.approx(spread(weight), rel=0.1)


def test_pruned_weights_are_on_the_chip_too():
    weight = weights(50, 50)
    weight[:, ::2] = 0
    assert (device().perturb(weight, STREAM)[:, ::2] != 0).float().mean() > 0.5  # two devices near zero are not equal


def test_an_evaluation_is_the_same_each_time():
    model, data = nn.Linear(6, 3), (torch.randn(50, 6), torch.arange(50) % 3)
    runs = [nr.evaluate([model], data, noise=device(), levels=["1d"], draws=3).draws.value.tolist() for _ in range(2)]
    assert runs[0] == runs[1]


@EVERY
def test_grouped_convolutions_are_noised_like_others(name):
    model = nn.Conv2d(8, 12, 3, groups=4)
    clean = model.weight.detach().clone()
    with nr.perturbed(model, device(name)):
        noisy = model.weight.detach()
        assert np.corrcoef(noisy.flatten(), clean.flatten())[0, 1] > 0.9
        assert not torch.equal(noisy, clean)


@pytest.mark.parametrize("compensation", ["global", "per_column"])
@pytest.mark.parametrize(("granularity", "tile"), [("tensor", (512, 512)), ("filter", (512, 512)), ("tile", (7, 5))])
def test_compensation_restores_the_mean_magnitude(compensation, granularity, tile):
    weight = weights(12, 16) * torch.logspace(-1, 1, 12)[:, None]
    noisy = device("pcm-hermes-1", compensation=compensation, granularity=granularity, tile=tile).perturb(
        weight, STREAM
    )
    blocks = [(slice(None), slice(None))]
    if granularity == "tile":
        blocks = [(slice(f, f + 5), slice(i, i + 7)) for f in (0, 5, 10) for i in (0, 7, 14)]
    for filters, inputs in blocks:
        wanted, found = (w[filters, inputs].abs() for w in (weight, noisy))
        if compensation == "per_column":
            torch.testing.assert_close(found.mean(1), wanted.mean(1), rtol=1e-4, atol=1e-6)
        else:
            torch.testing.assert_close(found.mean(), wanted.mean(), rtol=1e-4, atol=1e-6)


def test_mean_shift_restores_the_mean_and_nothing_else():
    weight = weights(40, 50)
    raw, compensated = (
        device("reram-cmo-coarse", "1y", compensation=kind).perturb(weight, STREAM) for kind in ("none", "mean_shift")
    )
    assert compensated.mean().item() == pytest.approx(weight.mean().item(), abs=1e-5)
    moved = compensated - raw
    torch.testing.assert_close(moved, moved.mean().expand_as(moved), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("granularity", ["tensor", "filter", "tile", "column"])
def test_each_group_has_its_own_range(granularity):
    weight = weights(6, 8)
    settings = {"granularity": granularity, "tile": (4, 3), "compensation": "none"}
    settings |= {"prog_noise_scale": 0.0, "read_noise_scale": 0.0, "drift_scale": 0.0}
    noise = device(converter="bit_slices", bits=2, slices=1, **settings)  # no noise, three magnitudes of a group
    noisy = noise.perturb(weight, STREAM)
    unit = nr.GaussianNoise(1.0, granularity=granularity, tile=(4, 3)).perturb(weight, STREAM) - weight
    largest = unit / torch.from_numpy(STREAM.normal((6, 8)))
    expected = (3 * weight / largest).round() / 3 * largest
    torch.testing.assert_close(noisy, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reads", ["pass", "batch"])
def test_large_weights_are_noised_in_inference_mode_too(reads):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        model, data = nn.Linear(1024, 512), (torch.randn(20, 1024), torch.arange(20))
        assert (
            len(nr.evaluate([model], data, noise=device(), levels=["1d"], draws=1, reads=reads, batch_size=10).draws)
            == 1
        )
        with torch.inference_mode(), nr.perturbed(model, device()):
            inside = model.weight.clone()
        with nr.perturbed(model, device()):
            assert torch.equal(inside, model.weight)
    finally:
        torch.set_num_threads(threads)


def test_the_default_dtype_does_not_matter():
    weight = weights(300, 300)
    expected = device().perturb(weight, STREAM)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(device().perturb(weight, STREAM), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("bits", "slices"), [(5, 5), (8, 4)])
def test_more_bits_than_single_precision_has_are_refused(bits, slices):
    with pytest.raises(InvalidValueError, match="Expected `bits` times `slices` to be at most 24"):
        device(converter="bit_slices", bits=bits, slices=slices)


@pytest.mark.parametrize(
    "settings",
    [
        {"programming_std_us": 1e39},
        {"prog_noise_scale": 1e39},
        {"g_max_us": 1e39},
        {"read_noise_scale": 1e300},
        {"t_read_s": 1e-320},
        {"drift_exponent_mean": {"log": [1.0, 2.0], "min": 0.2, "max": 0.1}},
        {"read_noise": [{"below": 0.5, "table_us": [[0, 1], [12.5, 1]]}, {"table_us": [[20, 1], [25, 1]]}]},
    ],
    ids=str,
)
def test_numbers_out_of_all_proportion_are_refused(settings):
    with pytest.raises(InvalidValueError, match="Expected"):
        device(**settings)


def test_a_read_longer_than_the_time_has_no_noise_yet():
    noisy = device(t="1s", t_read_s=1000.0, prog_noise_scale=0.0, drift_scale=0.0, compensation="none")
    weight = weights(20, 20)
    torch.testing.assert_close(noisy.perturb(weight, STREAM), weight)


@pytest.mark.parametrize("compensation", ["global", "per_column"])
def test_compensation_does_not_undo_what_was_cut_off(compensation):
    still = {"prog_noise_scale": 0.0, "read_noise_scale": 0.0, "drift_scale": 0.0, "compensation": compensation}
    weight = weights(100, 100)
    limit = np.percentile(weight.abs().numpy(), 90)
    found = device(clip_percentile=90, **still).perturb(weight, STREAM)
    torch.testing.assert_close(found, weight.clamp(-limit, limit), rtol=1e-4, atol=1e-5)


def test_weakened_devices_of_other_settings_are_told_apart():
    one, other = (device(prog_noise_scale=s).weakened(0.5).describe() for s in (1.0, 2.0))
    assert one != other
    assert one == device(t="1y").weakened(0.5).describe()
