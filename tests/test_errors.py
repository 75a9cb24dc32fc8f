import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from noiserobust import errors
from noiserobust.errors import (
    InvalidValueError,
    MissingDependencyError,
    MissingFileError,
    NoiseRobustError,
    OutOfMemoryError,
    OutputError,
    StateError,
    check_choice,
    check_integer,
    check_number,
    did_you_mean,
    unknown_name,
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidValueError, ValueError),
        (MissingFileError, FileNotFoundError),
        (OutputError, OSError),
        (OutOfMemoryError, MemoryError),
        (StateError, RuntimeError),
        (MissingDependencyError, ImportError),
    ],
)
def test_every_error_is_ours_and_of_its_built_in_kind(error, kind):
    assert issubclass(error, NoiseRobustError)
    assert issubclass(error, kind)


def test_no_error_class_lacks_a_built_in_kind():
    classes = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, NoiseRobustError)]
    assert len(classes) == 7
    assert all(len(e.__bases__) == 2 for e in classes if e is not NoiseRobustError)


@pytest.mark.parametrize("value", [0, 1, 2.5, np.float32(0.5), np.int64(3), Fraction(1, 2)])
def test_numbers_of_every_kind_are_taken_as_floats(value):
    number = check_number("x", value)
    assert type(number) is float
    assert number == float(value)


@pytest.mark.parametrize(
    "value",
    [
        *(math.nan, math.inf, -math.inf, True, False, np.bool_(True), "1", b"1", None, 1j, [1], {}, float),
        *(Decimal(1), np.array([1.0]), torch.tensor(1.0), 10**400, -(10**400)),
    ],
    ids=lambda v: str(v)[:20],
)
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(InvalidValueError, match=r"^Expected `x` to be a finite number, but got "):
        check_number("x", value)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "said"),
    [
        ({"minimum": 0}, [0, -0.0, 1e300], [-1e-300, -1], ">= 0"),
        ({"above": 0}, [1e-300, 1], [0, -0.0, -1], "> 0"),
        ({"maximum": 1}, [1, -5], [1.0000000000000002], "<= 1"),
        ({"minimum": 0.5, "maximum": 2}, [0.5, 2], [0.49, 2.01], ">= 0.5 and <= 2"),
        ({"above": 0, "maximum": 1}, [0.1, 1], [0, 1.1], "> 0 and <= 1"),
    ],
)
def test_bounds_are_kept_and_named(bounds, inside, outside, said):
    assert [check_number("x", v, **bounds) for v in inside] == inside
    for value in outside:
        with pytest.raises(InvalidValueError) as caught:
            check_number("x", value, **bounds)
        assert str(caught.value) == f"Expected `x` to be a finite number {said}, but got {value!r}"


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_integers_of_every_kind_are_taken_as_ints(value):
    integer = check_integer("n", value, minimum=3)
    assert type(integer) is int
    assert integer == 3


@pytest.mark.parametrize(
    "value",
    [True, np.bool_(True), 3.0, "3", None, 2, -3, math.nan, int, np.array([3, 4]), torch.tensor(3.5), torch.ones(2)],
    ids=str,
)
def test_what_is_no_integer_in_range_is_refused(value):
    with pytest.raises(InvalidValueError, match=r"^Expected `n` to be an integer >= 3, but got "):
        check_integer("n", value, minimum=3)


def test_a_choice_is_returned_and_the_nearest_one_named():
    assert check_choice("reference", "l2", ("max", "l2")) == "l2"
    with pytest.raises(InvalidValueError) as caught:
        check_choice("reference", "Maxx", ("std", "max"))
    assert str(caught.value) == "Expected `reference` to be one of 'max', 'std', but got 'Maxx'; did you mean 'max'?"


@pytest.mark.parametrize("value", [None, 1, ["max"], {"max": 1}, True])
def test_a_choice_that_is_no_string_is_refused(value):
    with pytest.raises(InvalidValueError, match=r"^Expected `r` to be one of 'max', but got "):
        check_choice("r", value, ["max"])


def test_nothing_near_nothing_named():
    assert did_you_mean("qqqq", ["resnet20", "mlp"]) == ""
    assert did_you_mean("x", []) == ""
    assert did_you_mean("RESNET20", ["resnet20"]) == "; did you mean 'resnet20'?"
    assert str(unknown_name("m", "?", iter(["b", "a"]))) == "Expected `m` to be one of 'a', 'b', but got '?'"
