"""Formulas of profiles against NumPy, and converters there and back."""

import math

import numpy as np
import pytest
import torch

from noiserobust.errors import InvalidValueError
from noiserobust.noise.converters import CONVERTERS, BitSlices, NPair, SingleDevice, SinglePair
from noiserobust.noise.curves import Conductance, extremes, parse_curve

G_MAX = 25.0
US = torch.cat([torch.tensor([0.0, 1e-9]), torch.linspace(0.01, G_MAX, 200)]).double()


def plain(value, g):
    """Return what plain data mean at a conductance in µS, from their description."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, list):
        return plain(
            {k: v for k, v in value[0].items() if k != "below"} if g / G_MAX < value[0]["below"] else value[1], g
        )
    x = g / G_MAX
    (form,) = set(value) - {"min", "max"}
    a = value[form]
    if form.startswith("polynomial"):
        found = sum(c * (x if form == "polynomial" else g) ** i for i, c in enumerate(a))
    elif form == "log":
        found = a[0] * math.log(max(x, 1e-7)) + a[1]
    elif form == "power":
        found = a[0] * max(x, 1e-7) ** a[1]
    else:
        found = np.interp(g, *zip(*a, strict=True))
    return min(max(found, value.get("min", -math.inf)), value.get("max", math.inf))


@pytest.mark.parametrize(
    "value",
    [
        0.3,
        {"polynomial": [0.26348, 1.9650, -1.1731]},
        {"polynomial": [2.0]},
        {"polynomial_us": [0.1, 0.02], "max": 0.4},
        {"log": [-0.0155, 0.0244], "min": 0.049, "max": 0.1},
        {"log": [-0.5, 0.0]},
        {"power": [0.0088, -0.65], "max": 0.2},
        {"power": [2.0, 1.5]},
        {"table_us": [[0.0, 1.0], [5.0, 3.0], [25.0, 2.0]]},
        [{"below": 0.3, "log": [-0.01, 0.0], "max": 0.04}, {"polynomial": [0.01, 0.02, -0.01]}],
        [{"below": 1, "polynomial": [1.0]}, {"polynomial": [2.0]}],
    ],
    ids=str,
)
def test_a_formula_is_what_it_says(value):
    found = parse_curve("c", value)(Conductance(US, G_MAX)).expand_as(US)
    expected = torch.tensor([plain(value, g) for g in US.tolist()], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    ends = expected.min().item(), expected.max().item()
    assert extremes(parse_curve("c", value), 0, G_MAX) == pytest.approx(ends, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "Expected `c` to be a finite number, but got None"),
        (True, "Expected `c` to be a finite number"),
        (
            [{"below": 2, "polynomial": [1]}, {"polynomial": [1]}],
            "Expected `c.below` to be .* <= 1",
        ),
        ([{"polynomial": [1]}], "two formulas, the first with a `below`"),
        ({"polynomial": [1, "2"]}, "Expected `c.polynomial` to be a finite number, but got '2'"),
        ({"polynomial": 3}, "Expected `c.polynomial` to be a list of numbers, but got 3"),
        ({"table_us": [[0, 1]]}, "at least two conductances, ascending"),
        ({"table_us": [[5, 1], [2, 1]]}, "at least two conductances, ascending"),
        ({"table_us": [[-1, 1], [2, 1]]}, "Expected `c.table_us` to be a finite number >= 0.*, but got -1"),
    ],
    ids=str,
)
def test_what_is_no_formula_is_refused(value, said):
    with pytest.raises(InvalidValueError, match=said):
        parse_curve("c", value)


CASES = {
    "single_pair": SinglePair(25.0, 0.0),
    "single_pair with a smallest": SinglePair(25.0, 3.0),
    "single_device": SingleDevice(88.2, 9.0),
    "n_pair": NPair(25.0, 1.0, (0.5, 1.0, 3.0)),
    "dual_pair": NPair(25.0, 0.0, (1.0, 3.0)),
    "bit_slices": BitSlices(25.0, 2.0, 2, 4),
}


@pytest.mark.parametrize("converter", CASES.values(), ids=CASES)
def test_weights_come_back_from_conductances_within_range(converter):
    lowest = -1.0 if converter.bipolar else 0.0
    weights = torch.linspace(lowest, 1, 501).reshape(3, 167)
    conductances = converter.to_conductances(weights)
    assert conductances.shape == (converter.devices, 3, 167)
    assert conductances.min() >= converter.g_min_us - 1e-4
    assert conductances.max() <= converter.g_max_us + 1e-4
    step = 1 / 255 if isinstance(converter, BitSlices) else 0
    assert (converter.to_weights(conductances) - weights).abs().max() <= step / 2 + 1e-5


def test_a_pair_is_used_where_those_before_it_are_exhausted():
    conductances = NPair(25.0, 0.0, (1.0, 3.0)).to_conductances(torch.tensor([0.1, 0.25, 0.4, 1.0, -0.4]))
    expected = torch.tensor([[10.0, 25, 25, 25, 0], [0, 0, 0, 0, 25], [0, 0, 5, 25, 0], [0, 0, 0, 0, 5]])
    torch.testing.assert_close(conductances, expected)


def test_a_slice_holds_its_bits():
    # 0.8 of 15 is 12, binary 1100: the lower two bits are 0, the upper two 3 of 3.
    conductances = BitSlices(30.0, 0.0, 2, 2).to_conductances(torch.tensor([0.8, -0.4, 1.0]))
    expected = torch.tensor([[0.0, 0, 30], [0, 20, 0], [30, 0, 30], [0, 10, 0]])
    torch.testing.assert_close(conductances, expected)


@pytest.mark.parametrize("name", CONVERTERS)
def test_the_smallest_conductance_is_below_the_largest(name):
    kind, checks = CONVERTERS[name]
    rest = {"factors": (1.0, 2.0), "bits": 2, "slices": 2}
    with pytest.raises(InvalidValueError, match="Expected `g_min_us` to be below g_max_us = 5, but got 5"):
        kind(5.0, 5.0, **{key: rest[key] for key in checks if key in rest})
