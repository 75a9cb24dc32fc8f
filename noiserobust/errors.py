"""Errors of one kind and one voice: ``Expected X to be ..., but got ...``.

Every error a user can cause is a :class:`NoiseRobustError`. Each subclass also inherits the built-in error of its
kind, so ``except ValueError`` and ``except FileNotFoundError`` keep working.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable
from numbers import Real


class NoiseRobustError(Exception):
    """Base of every error that bad input, a bad file or a bad environment can cause."""


class InvalidValueError(NoiseRobustError, ValueError):
    """An argument, a configuration value or the content of a file is not what it has to be."""


class MissingFileError(NoiseRobustError, FileNotFoundError):
    """A file or folder that should be read does not exist."""


class OutputError(NoiseRobustError, OSError):
    """Results cannot be written where they were asked for."""


class StateError(NoiseRobustError, RuntimeError):
    """A call came at a moment at which it makes no sense."""


class OutOfMemoryError(NoiseRobustError, MemoryError):
    """Memory is too small, however little is done at a time."""


class MissingDependencyError(NoiseRobustError, ImportError):
    """An optional package is needed and not installed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to ``name``, or an empty string.

    >>> did_you_mean("resnt20", ["resnet18", "resnet20"])
    "; did you mean 'resnet20'?"
    """
    names = {k.lower(): k for k in known if isinstance(k, str)}
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def unknown_name(what: str, name: str, known: Iterable[str]) -> InvalidValueError:
    """Build the error for a name that is not registered, naming the nearest known one.

    >>> print(unknown_name("model", "resnt20", ["resnet20", "mlp"]))
    Expected `model` to be one of 'mlp', 'resnet20', but got 'resnt20'; did you mean 'resnet20'?
    """
    names = sorted(known)
    listed = ", ".join(repr(n) for n in names)
    return InvalidValueError(f"Expected `{what}` to be one of {listed}, but got {name!r}{did_you_mean(name, names)}")


def check_number(
    name: str,
    value: object,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
) -> float:
    """Return ``value`` as a float if it is a finite real number within the bounds.

    Args:
        name: what the number is called in the error.
        value: the candidate; booleans and strings are no numbers.
        minimum: smallest value allowed.
        above: value that has to be exceeded.
        maximum: largest value allowed.

    Raises:
        InvalidValueError: if it is anything else.

    >>> check_number("sigma", -1, minimum=0)
    Traceback (most recent call last):
    ...
    noiserobust.errors.InvalidValueError: Expected `sigma` to be a finite number >= 0, but got -1
    """
    bounds = [f">= {minimum:g}"] if minimum is not None else []
    bounds += [f"> {above:g}"] if above is not None else []
    bounds += [f"<= {maximum:g}"] if maximum is not None else []
    try:
        number = float(value) if not isinstance(value, bool) and isinstance(value, Real) else math.nan
    except OverflowError:  # an int too large for a float
        number = math.inf
    if (
        not math.isfinite(number)
        or (minimum is not None and number < minimum)
        or (above is not None and number <= above)
        or (maximum is not None and number > maximum)
    ):
        wanted = " ".join(["a finite number", " and ".join(bounds)]).strip()
        raise InvalidValueError(f"Expected `{name}` to be {wanted}, but got {value!r}")
    return number


def check_integer(name: str, value: object, *, minimum: int) -> int:
    """Return ``value`` as an int if it is an integer ``>= minimum``; booleans are no integers.

    Raises:
        InvalidValueError: if it is anything else.
    """
    try:
        # `operator.index` admits NumPy integers and refuses floats.
        integer = minimum - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        integer = minimum - 1
    if integer < minimum:
        raise InvalidValueError(f"Expected `{name}` to be an integer >= {minimum}, but got {value!r}")
    return integer


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of the strings ``choices``.

    Raises:
        InvalidValueError: if it is not, naming the nearest choice.
    """
    allowed = list(choices)
    if not isinstance(value, str):
        listed = ", ".join(repr(c) for c in sorted(allowed))
        raise InvalidValueError(f"Expected `{name}` to be one of {listed}, but got {value!r}")
    if value not in allowed:
        raise unknown_name(name, value, allowed)
    return value
