"""Device noise against aihwkit's own one-shot models, weight by weight, and against figures known from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from noiserobust.noise.device import DeviceNoise
from noiserobust.rng import Stream

# aihwkit's Hermes model indexes with lists.
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")

HOUR, DAY, YEAR = 3600.0, 86400.0, 31557600.0
CHIPS = 3000
BASE = torch.cat([torch.linspace(-1, 1, 41), torch.tensor([0.0, 0.003, -0.02])])  # every state of a device


def models():
    """Return aihwkit's models by the profile that describes the same device."""
    pcm = pytest.importorskip("aihwkit.inference.noise.pcm", reason="needs the extra `aihwkit`")
    from aihwkit.inference.noise.custom import StateIndependentNoiseModel
    from aihwkit.inference.noise.hermes import HermesNoiseModel
    from aihwkit.inference.noise.reram import ReRamCMONoiseModel, ReRamWan2022NoiseModel

    drift = {"g_lst": [0.0, 25.0], "nu_mean_lst": [0.05, 0.05], "nu_std_lst": [0.01, 0.01]}
    return {
        "pcm-nandakumar-2019": pcm.PCMLikeNoiseModel(g_max=25.0),
        "pcm-custom-drift": pcm.CustomDriftPCMLikeNoiseModel(drift, g_max=25.0),
        "pcm-hermes-2": HermesNoiseModel(num_devices=2),
        "pcm-hermes-1": HermesNoiseModel(num_devices=1),
        "state-independent": StateIndependentNoiseModel(g_max=25.0),
        "reram-wan-2022": ReRamWan2022NoiseModel(g_max=40.0),
        "reram-cmo-fine": ReRamCMONoiseModel(acceptance_range=0.2, g_max=88.2, g_min=9.0),
        "reram-cmo-coarse": ReRamCMONoiseModel(acceptance_range=2, g_max=88.2, g_min=9.0),
    }


def ours(name, t, base=BASE, **settings):
    """Return each weight on many chips, of shape ``(chips, weights)``."""
    noise = DeviceNoise.from_profile(name, t, **{"compensation": "none", **settings})
    return noise.perturb(base.repeat(CHIPS, 1), Stream(0, "chip")).double()


def theirs(model, t, base=BASE):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model.apply_noise(base.repeat(CHIPS, 1), t).double()


def check_same(a, b):
    """Compare two samples of chips: the mean, the spread and the distribution of every weight."""
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt().clamp(min=1e-9)
    z = (a.mean(0) - b.mean(0)) / error
    assert z.abs().max() < 5
    ratio = (a.std(0) / b.std(0).clamp(min=1e-12)).log()
    assert ratio.abs().max() < 0.2
    assert abs(ratio.mean()) < 0.01
    p = np.array([ks_2samp(x, y).pvalue for x, y in zip(a.T.numpy(), b.T.numpy(), strict=True)])
    assert p.min() > 1e-4 / len(p)


CASES = [
    (name, t)
    for name in [
        *("pcm-nandakumar-2019", "pcm-custom-drift", "pcm-hermes-2", "pcm-hermes-1", "state-independent"),
        *("reram-cmo-fine", "reram-cmo-coarse"),
    ]
    for t in (1.0, HOUR, DAY, YEAR)
] + [("reram-wan-2022", t) for t in (1.0, DAY, 2 * DAY)]


@pytest.mark.parametrize(("name", "t"), CASES)
def test_every_weight_is_distributed_as_in_aihwkit(name, t):
    check_same(ours(name, t), theirs(models()[name], t))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pcm-nandakumar-2019", {"prog_noise_scale": 1.1}),
        ("pcm-nandakumar-2019", {"read_noise_scale": 0.9}),
        ("pcm-nandakumar-2019", {"drift_scale": 1.05}),
        ("pcm-nandakumar-2019", {"t_0_s": 10.0}),
        ("pcm-nandakumar-2019", {"compensation": "global"}),
        ("pcm-nandakumar-2019", {"clip_percentile": 95}),
        ("pcm-hermes-2", {"drift_scale": 1.05}),
        ("pcm-hermes-1", {"t_0_s": 300.0}),
        ("state-independent", {"read_noise": 0.036}),
        ("reram-wan-2022", {"g_max_us": 40.0, "reference_g_max_us": 42.0}),
        ("reram-cmo-fine", {"relaxation_mean_us": -0.095}),
        ("reram-cmo-fine", {"read_noise_us": 0.02}),
        ("reram-cmo-coarse", {"programming_std_us": {"polynomial_us": [0.0008, 0.001]}}),
    ],
    ids=str,
)
def test_the_comparison_finds_other_settings(name, settings):
    with pytest.raises(AssertionError):
        check_same(ours(name, DAY, **settings), theirs(models()[name], DAY))


@pytest.mark.parametrize(
    ("converter", "settings"),
    [
        ("single_pair", {"g_min_us": 3.0}),
        ("dual_pair", {"factors": [1.0, 3.0]}),
        ("n_pair", {"factors": [0.5, 1.0, 2.0]}),
    ],
)
def test_converters_are_those_of_aihwkit(converter, settings):
    model = models()["pcm-nandakumar-2019"]
    from aihwkit.inference.converter import conductance as c

    build = {
        "single_pair": lambda: c.SinglePairConductanceConverter(g_max=25.0, g_min=3.0),
        "dual_pair": lambda: c.DualPairConductanceConverter(f_lst=[1.0, 3.0], g_max=25.0, g_min=0.0),
        "n_pair": lambda: c.NPairConductanceConverter(f_lst=[0.5, 1.0, 2.0], g_max=25.0, g_min=0.0),
    }
    model.g_converter = build[converter]()
    check_same(ours("pcm-nandakumar-2019", DAY, converter=converter, **settings), theirs(model, DAY))


# ------------------------------------------------------------------------------------------------------ known figures


@pytest.fixture(scope="module")
def gaussian():
    """1024 x 1024 Gaussian weights whose largest is 4.76 times their std."""
    weight = torch.from_numpy(Stream(0, "weights").normal((1024, 1024)))
    weight = (weight / weight.std()).clamp(-4.76, 4.76)
    weight[0, 0] = 4.76
    return weight


def spread(name, t, weight, **settings):
    noise = DeviceNoise.from_profile(name, t, **settings)
    return 100 * ((noise.perturb(weight, Stream(0, "chip")) - weight).std() / weight.abs().max()).item()


FIGURES = {  # std of the error in % of the largest weight: while programming, then (raw, compensated) by time
    "pcm-nandakumar-2019": (2.39, {1.0: (3.09, 3.14), HOUR: (5.66, 3.55), DAY: (7.72, 4.03), YEAR: (10.96, 5.13)}),
    "pcm-custom-drift": (2.39, {1.0: (3.09, 3.14), HOUR: (5.70, 3.51), DAY: (7.78, 3.88), YEAR: (11.03, 4.79)}),
    "pcm-hermes-2": (3.42, {1.0: (3.75, 3.81), HOUR: (4.66, 3.93), DAY: (7.07, 4.28), YEAR: (11.18, 5.35)}),
    "pcm-hermes-1": (4.92, {1.0: (5.31, 5.45), HOUR: (5.94, 5.61), DAY: (7.93, 6.00), YEAR: (11.61, 7.26)}),
    "state-independent": (0.97, {1.0: (3.65, 3.72), HOUR: (9.29, 6.82), DAY: (12.19, 9.77), YEAR: (15.54, 15.73)}),
    "reram-wan-2022": (4.45, {1.0: (4.45, 4.52), DAY: (7.29, 7.46)}),
    "reram-cmo-fine": (0.14, {1.0: (1.12, None), HOUR: (1.97, None), DAY: (2.30, None), YEAR: (2.92, None)}),
    "reram-cmo-coarse": (1.43, {1.0: (1.81, None), HOUR: (2.43, None), DAY: (2.70, None), YEAR: (3.25, None)}),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.slow
def test_the_spread_of_errors_is_the_known_one(name, gaussian):
    programming, by_time = FIGURES[name]
    still = {} if name == "reram-wan-2022" else {"drift_scale": 0.0, "read_noise_scale": 0.0}
    assert spread(name, 1.0, gaussian, compensation="none", **still) == pytest.approx(programming, rel=0.03, abs=0.006)
    for t, (raw, compensated) in by_time.items():
        assert spread(name, t, gaussian, compensation="none") == pytest.approx(raw, rel=0.03)
        if compensated is not None:
            assert spread(name, t, gaussian, compensation="global") == pytest.approx(compensated, rel=0.03)


def test_pcm_loses_gain_and_cmo_shifts(gaussian):
    for t, gain in ((1.0, 0.981), (HOUR, 0.762), (DAY, 0.653), (YEAR, 0.492)):
        noise = DeviceNoise.from_profile("pcm-nandakumar-2019", t, compensation="none")
        noisy = noise.perturb(gaussian, Stream(0, "chip"))
        assert ((noisy * gaussian).sum() / gaussian.square().sum()).item() == pytest.approx(gain, rel=0.01)
    for t, shift in ((1.0, 0.0), (HOUR, -1.8), (DAY, -2.5), (YEAR, -3.8)):
        for compensation, expected in (("none", shift), ("mean_shift", 0.0)):
            noise = DeviceNoise.from_profile("reram-cmo-fine", t, compensation=compensation)
            error = noise.perturb(gaussian, Stream(0, "chip")) - gaussian
            assert 100 * error.mean().item() / 4.76 == pytest.approx(expected, abs=0.1)


def test_a_second_pair_of_more_significance_helps(gaussian):
    def without_gain(**settings):
        noise = DeviceNoise.from_profile("pcm-nandakumar-2019", DAY, compensation="none", **settings)
        noisy = noise.perturb(gaussian, Stream(0, "chip"))
        noisy = noisy * ((noisy * gaussian).sum() / noisy.square().sum())
        return 100 * (noisy - gaussian).std().item() / 4.76

    assert without_gain() == pytest.approx(3.96, rel=0.03)
    assert without_gain(converter="dual_pair", factors=[1, 3]) == pytest.approx(2.27, rel=0.03)


def test_the_comparison_of_figures_finds_a_wrong_reference(gaussian):
    wrong = spread("reram-wan-2022", 1.0, gaussian, compensation="none", reference_g_max_us=25.0)
    assert math.isclose(wrong / 4.45, 1.57, rel_tol=0.03)  # what a largest conductance of 25 µS makes of it
