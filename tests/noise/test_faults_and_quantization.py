"""Stuck weights, dead lines, rounded weights, and noises made of others."""

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import noiserobust as nr
from noiserobust.errors import InvalidValueError
from noiserobust.noise.faults import KINDS
from noiserobust.noise.layout import FilterView
from noiserobust.noise.registry import build_noise

STREAM = nr.Stream(0, "chip", "w")


def weights(*shape, seed=0, dtype=torch.float32):
    return torch.from_numpy(nr.Stream(seed, "weights").normal(shape)).to(dtype)


# -------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_of_faults_is_p_and_more_include_the_fewer(kind):
    weight = weights(600, 400)
    noise = nr.Faults(0.1, kind=kind, tile=(8, 8))
    few, many = (noise.at(p).perturb(weight, STREAM) != weight for p in (0.1, 0.4))
    assert few.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert many.float().mean().item() == pytest.approx(0.4, abs=0.01)
    assert (many | ~few).all()
    assert torch.equal(noise.at(0).perturb(weight, STREAM), weight)
    assert (noise.at(1).perturb(weight, STREAM) != weight).all()
    other = noise.perturb(weight, nr.Stream(1, "chip", "w")) != weight
    assert not torch.equal(other, few)


def test_stuck_weights_are_zero_or_the_largest_of_their_group_of_either_sign():
    weight = weights(40, 50)
    assert set(nr.Faults(1.0).perturb(weight, STREAM).unique().tolist()) == {0.0}
    for granularity, largest in (("tensor", weight.abs().amax()), ("filter", weight.abs().amax(1, keepdim=True))):
        stuck = nr.Faults(1.0, kind="stuck-max", granularity=granularity).perturb(weight, STREAM)
        assert torch.equal(stuck.abs(), largest.expand_as(weight))
        assert (stuck > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_dead_lines_are_inputs_and_outputs_of_a_tile():
    weight = weights(7, 10).abs() + 1
    columns = nr.Faults(0.5, kind="dead-columns", tile=(4, 3)).perturb(weight, STREAM) == 0
    rows = nr.Faults(0.5, kind="dead-rows", tile=(4, 3)).perturb(weight, STREAM) == 0
    for part in columns.split(4, dim=1):  # a column: one filter, the inputs of one tile
        assert ((part.sum(1) == 0) | (part.sum(1) == part.shape[1])).all()
    for part in rows.split(3, dim=0):  # a row: one input, the filters of one tile
        assert ((part.sum(0) == 0) | (part.sum(0) == part.shape[0])).all()
    assert not torch.equal(columns[:, :4].any(1), columns[:, 4:8].any(1))
    assert not torch.equal(rows[:3].any(0), rows[3:6].any(0))


def test_faults_follow_the_filters_of_a_transposed_convolution():
    weight, view = weights(4, 3, 2, 2), FilterView(transposed=True, groups=2)
    noise = nr.Faults(0.5, kind="dead-columns")
    assert torch.equal(view.matrix(noise.perturb(weight, STREAM, view)), noise.perturb(view.matrix(weight), STREAM))


# -------------------------------------------------------------------------------------------------------- quantisation


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("granularity", ["filter", "tensor", "tile", "column"])
def test_weights_are_rounded_to_the_nearest_level(bits, granularity):
    weight = weights(6, 9, dtype=torch.float64)
    noisy = nr.Quantization(bits, granularity=granularity, tile=(4, 3)).perturb(weight, STREAM)
    scale = nr.GaussianNoise(1.0, granularity=granularity, tile=(4, 3))
    unit = scale.perturb(weight, STREAM) - weight
    largest = unit / torch.from_numpy(STREAM.normal((6, 9))).double()  # what one sigma is: the largest of the group
    levels = torch.linspace(-1, 1, 2**bits - 1, dtype=torch.float64)
    expected = levels[((weight / largest)[..., None] - levels).abs().argmin(-1)] * largest
    torch.testing.assert_close(noisy, expected, rtol=1e-6, atol=1e-9)
    assert len((noisy[0] / largest[0]).unique()) <= 2**bits - 1


def test_rounding_twice_changes_nothing_and_level_0_is_none():
    weight = torch.cat([weights(5, 7), torch.zeros(1, 7)])
    noise = nr.Quantization(4)
    once = noise.perturb(weight, STREAM)
    assert torch.equal(noise.perturb(once, STREAM), once)
    assert torch.equal(once[-1], weight[-1])
    assert torch.equal(noise.at(0).perturb(weight, STREAM), weight)
    half = noise.weakened(0.5).perturb(weight, STREAM)
    torch.testing.assert_close(half, (weight + once) / 2)


# ------------------------------------------------------------------------------------------------------------- compose


PARTS = (nr.Quantization(4), nr.GaussianNoise(0.1), nr.GaussianNoise(0.1))


def test_noises_come_one_after_the_other_with_numbers_of_their_own():
    weight = weights(30, 40)
    expected = weight
    for i, part in enumerate(PARTS):
        expected = part.perturb(expected, nr.Stream(0, "chip", "part", i, "w"))
    assert torch.equal(nr.Compose(PARTS).perturb(weight, STREAM), expected)
    errors = [n.perturb(weight, nr.Stream(0, "chip", "part", i, "w")) - weight for i, n in enumerate(PARTS)]
    assert abs(np.corrcoef(errors[1].flatten(), errors[2].flatten())[0, 1]) < 0.1


def test_the_level_is_that_of_the_varied_noise():
    noise = nr.Compose(PARTS, vary=1)
    assert (noise.level_name, noise.level) == ("sigma", 0.1)
    assert noise.at(0.3).noises == (PARTS[0], nr.GaussianNoise(0.3), PARTS[2])
    assert noise.name == "quantization(bits=4)+gaussian+gaussian(sigma=0.1)"
    assert noise.describe() == noise.at(0.3).describe() != nr.Compose(PARTS).describe()
    assert noise.weakened(0.5).noises[1] == nr.GaussianNoise(0.05)
    assert hash(noise) == hash(nr.Compose(list(PARTS), vary=1))
    weight = weights(3, 4)
    assert torch.equal(noise.at(0).perturb(weight, STREAM), weight)  # level 0 is the clean reference


def test_a_composed_noise_is_trained_with_and_evaluated():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, y = torch.randn(30, 12), torch.arange(30) % 3
    noise = nr.Compose([nr.DeviceNoise.from_profile("pcm-hermes-2"), nr.Faults(0.05), nr.Quantization(6)])
    draws = nr.evaluate([model], (x, y), noise=noise, levels=["clean", "1s", "1y"], draws=2).draws
    assert draws.level.tolist() == [0, 1, 1, 31557600, 31557600]
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.RWP(noise), model)

    def closure():
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    losses = [opt.step(closure).item() for _ in range(30)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_composed_noises_are_built_from_files(tmp_path):
    content = {
        "compose": [
            {"noise": "reram-wan-2022", "level": "1d", "granularity": "filter"},
            {"noise": "stuck-zero", "level": 0.02},
            {"noise": "quantization", "level": 4},
        ]
    }
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(content))
    wan = nr.DeviceNoise.from_profile("reram-wan-2022", "2d", granularity="filter")
    expected = nr.Compose([wan, nr.Faults(0.02), nr.Quantization(4)])
    assert build_noise(str(tmp_path / "n.yaml"), "2d") == expected
    for kind in KINDS:
        assert build_noise(kind, 0.1) == nr.Faults(0.1, kind=kind)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nr.Faults(1.1), "Expected `p` to be a finite number >= 0 and <= 1, but got 1.1"),
        (lambda: nr.Faults(0.1, kind="stuck-one"), "Expected `kind` to be one of"),
        (lambda: nr.Faults(0.1).with_settings(kind="x"), "setting of stuck-zero noise"),
        (lambda: nr.Quantization(1), "Expected `bits` to be 0 or an integer from 2 to 24, but got 1"),
        (lambda: nr.Quantization(2.5), "Expected `bits` to be 0 or an integer"),
        (lambda: nr.Quantization(25), "Expected `bits` to be a finite number >= 0 and <= 24"),
        (lambda: nr.Quantization(4, granularity="row"), "Expected `granularity`"),
        (lambda: nr.Compose([]), "Expected `noises` to be noises, at least one, but got"),
        (lambda: nr.Compose([0.1]), "Expected `noises` to be noises"),
        (lambda: nr.Compose(PARTS, vary=3), "Expected `vary` to be below 3"),
    ],
)
def test_arguments_are_checked(make, said):
    with pytest.raises(InvalidValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("compose: []", "Expected `noises` to be noises, at least one"),
        ("compose: 3", "Expected `compose` to be a list of mappings"),
        ("compose: [{noise: gausian}]", "did you mean 'gaussian'"),
        ("compose: [{noise: gaussian, sigma: 1}]", "setting of gaussian noise"),
        ("{compose: [{noise: gaussian}], level: 3}", "Expected `compose` to stand alone, but got 'level'"),
        ("compose: [{noise: n.yaml}]", "Expected `profile` to have|Expected the keys of `profile`"),
    ],
)
def test_files_are_checked(content, said, tmp_path):
    path = tmp_path / "n.yaml"
    path.write_text(content)
    with pytest.raises(InvalidValueError, match=said):
        build_noise(str(path))
