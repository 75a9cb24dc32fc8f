"""Properties of a device as functions of its conductance, written as plain data in profiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from noiserobust.errors import InvalidValueError, check_number, did_you_mean

Check = Callable[[str, object], Any]
"""Returns a checked value of a profile, given its name and what was given for it."""

Span = tuple[float, float]

LARGEST = 1e9
"""Of any number in a profile: what is computed from them is finite in float32."""

_SMALLEST = 1e-7  # of the largest conductance, below which logarithms stay what they are


class Conductance:
    """Conductances of devices, in the units in which curves take them.

    Args:
        us: in µS, a tensor of any shape.
        g_max_us: the largest that weights are mapped to, in µS.
    """

    def __init__(self, us: Tensor, g_max_us: float) -> None:
        self.us = us
        self.g_max_us = g_max_us

    @cached_property
    def relative(self) -> Tensor:
        """In units of the largest."""
        return self.us / self.g_max_us

    @cached_property
    def log(self) -> Tensor:
        """Natural logarithm of the relative conductance."""
        return self.relative.clamp(min=_SMALLEST).log_()


class Curve(ABC):
    """A number for each conductance."""

    @abstractmethod
    def __call__(self, g: Conductance) -> Tensor:
        """Return the numbers, of a shape that broadcasts to that of the conductances; new memory."""


@dataclass(frozen=True)
class Formula(Curve):
    """A formula with coefficients, within limits.

    Args:
        form: a key of :data:`FORMS`.
        coefficients: of the formula.
        minimum: smallest value, or None.
        maximum: largest value, or None.
    """

    form: str
    coefficients: tuple[Any, ...]
    minimum: float | None = None
    maximum: float | None = None

    def __call__(self, g: Conductance) -> Tensor:
        """Return the numbers; see :class:`Curve`."""
        values = FORMS[self.form](g, *self.coefficients)
        if self.minimum is None and self.maximum is None:
            return values
        return values.clamp_(self.minimum, self.maximum)


@dataclass(frozen=True)
class Pieces(Curve):
    """One curve below a relative conductance, another from there on."""

    below: float
    lower: Curve
    upper: Curve

    def __call__(self, g: Conductance) -> Tensor:
        """Return the numbers; see :class:`Curve`."""
        return torch.where(g.relative < self.below, self.lower(g), self.upper(g))


def parse_curve(name: str, value: object) -> Curve:
    """Return the curve that plain data stand for.

    Args:
        name: what the curve is called in errors.
        value: a number; a formula such as ``{polynomial: [1, 2], min: 0, max: 5}``; or a list of two formulas, of
            which the first has a ``below``: the relative conductance at which the second takes over.

            ============================ ====================================================================
            ``polynomial: [a, b, ...]``  ``a + b x + c x^2 + ...``, with x = g / g_max
            ``polynomial_us: [a, ...]``  the same of g in µS
            ``log: [a, b]``              ``a ln x + b``
            ``power: [a, p]``            ``a x^p``; a negative p needs a ``max``
            ``table_us: [[g, a], ...]``  ``a`` at g in µS, ascending; linear in between, constant outside
            ============================ ====================================================================

    Raises:
        InvalidValueError: if they stand for none.
    """
    if isinstance(value, list):
        if len(value) != 2 or not all(isinstance(piece, dict) for piece in value) or "below" not in value[0]:
            raise InvalidValueError(
                f"Expected `{name}` to be a number, a formula or two formulas, the first with a `below`, but got "
                f"{value!r}"
            )
        first = dict(value[0])
        below = check_number(f"{name}.below", first.pop("below"), above=0, maximum=1)
        return Pieces(below, parse_curve(name, first), parse_curve(name, value[1]))
    if not isinstance(value, dict):
        return Formula("constant", (_number(name, value),))
    return _parse_formula(name, value)


def extremes(curve: Curve, g_min_us: float, g_max_us: float) -> tuple[float, float]:
    """Return the smallest and the largest value of a curve between two conductances; NaN if it has none somewhere."""
    values = curve(Conductance(torch.linspace(g_min_us, g_max_us, 1001), g_max_us))
    return float(values.min()), float(values.max())


def tables(curve: Curve, low_us: float, high_us: float) -> Iterator[tuple[Span, float, float]]:
    """Yield, for each table of a curve, from where to where it holds numbers and is asked for them, in µS."""
    if isinstance(curve, Pieces):
        middle = min(max(curve.below * high_us, low_us), high_us)
        yield from tables(curve.lower, low_us, middle)
        yield from tables(curve.upper, middle, high_us)
    elif isinstance(curve, Formula) and curve.form == "table_us":
        yield (curve.coefficients[0][0], curve.coefficients[-1][0]), low_us, high_us


def _parse_formula(name: str, value: Mapping[Any, Any]) -> Curve:
    keys = ["polynomial", "polynomial_us", "log", "power", "table_us", "min", "max"]
    for key in value:
        if key not in keys:
            near = did_you_mean(str(key), keys)
            raise InvalidValueError(f"Expected the keys of `{name}` to be {', '.join(keys)}, but got {key!r}{near}")
    forms = [key for key in value if key not in ("min", "max")]
    if len(forms) != 1:
        raise InvalidValueError(f"Expected `{name}` to have one formula, but got {', '.join(forms) or 'none'}")
    form = forms[0]
    coefficients = _coefficients(f"{name}.{form}", form, value[form])
    limits = [_number(f"{name}.{key}", value[key]) if key in value else None for key in ("min", "max")]
    if None not in limits and limits[0] > limits[1]:  # type: ignore[operator]
        raise InvalidValueError(f"Expected `{name}` to have a `min` that is not above its `max`, but got {value!r}")
    if form == "power" and coefficients[1] < 0 and limits[1] is None:
        raise InvalidValueError(f"Expected `{name}` to have a `max`, as its power is negative, but it has none")
    return Formula(form, coefficients, *limits)


def _coefficients(name: str, form: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidValueError(f"Expected `{name}` to be a list of numbers, but got {value!r}")
    if form == "table_us":
        return _table(name, value)
    numbers = tuple(_number(name, v) for v in value)
    if form in ("log", "power") and len(numbers) != 2:
        raise InvalidValueError(f"Expected `{name}` to be two numbers, but got {value!r}")
    return numbers


def _table(name: str, rows: Sequence[object]) -> tuple[tuple[float, float], ...]:
    table = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 2:
            raise InvalidValueError(f"Expected `{name}` to be a list of pairs [g, value], but got {row!r}")
        table.append((check_number(name, row[0], minimum=0, maximum=LARGEST), _number(name, row[1])))
    if len(table) < 2 or any(a[0] >= b[0] for a, b in pairwise(table)):
        raise InvalidValueError(f"Expected `{name}` to hold at least two conductances, ascending, but got {rows!r}")
    return tuple(table)


def _number(name: str, value: object) -> float:
    number = check_number(name, value)
    if abs(number) > LARGEST:
        raise InvalidValueError(f"Expected `{name}` to be at most {LARGEST:g} in magnitude, but got {value!r}")
    return number


def _constant(g: Conductance, value: float) -> Tensor:
    return g.us.new_full((), value)


def _polynomial(g: Conductance, *coefficients: float) -> Tensor:
    return _horner(g.relative, coefficients)


def _polynomial_us(g: Conductance, *coefficients: float) -> Tensor:
    return _horner(g.us, coefficients)


def _horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    values = torch.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        values.mul_(x).add_(coefficient)
    return values


def _log(g: Conductance, slope: float, offset: float) -> Tensor:
    return (g.log * slope).add_(offset)


def _power(g: Conductance, factor: float, exponent: float) -> Tensor:
    # Faster than `pow`, and the logarithm is at hand.
    return (g.log * exponent).exp_().mul_(factor)


def _interpolated(g: Conductance, *table: tuple[float, float]) -> Tensor:
    at, value = (g.us.new_tensor(column) for column in zip(*table, strict=True))
    right = torch.bucketize(g.us.contiguous(), at).clamp_(1, len(at) - 1)
    share = ((g.us - at[right - 1]) / (at[right] - at[right - 1])).clamp_(0, 1)
    return torch.lerp(value[right - 1], value[right], share)


FORMS: dict[str, Callable[..., Tensor]] = {
    "constant": _constant,
    "polynomial": _polynomial,
    "polynomial_us": _polynomial_us,
    "log": _log,
    "power": _power,
    "table_us": _interpolated,
}
"""Formulas by the name they have in a profile."""
