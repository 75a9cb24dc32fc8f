"""Products of settings: what a sweep's file says, as settings of single trainings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from itertools import product
from typing import Any

from noiserobust.errors import InvalidValueError

Point = dict[str, Any]
"""What sets one training apart: values by dotted key, in the order in which they are set."""

_MOST = 100_000  # points of a product: ten lists of ten would fill the memory first

_SPEAK_FOR_THEMSELVES = ("method.name", "model", "method.noise.name", "method.noise.level", "method.rho")


def expand(grid: Any) -> list[Point]:
    """Return the points of a grid: a mapping is a product, a list of mappings one product after the other.

    A list is a list of alternatives, anything else the only one. Mappings outside of lists are nested names:
    ``{method: {rho: [0.1, 0.2]}}`` is ``{method.rho: [0.1, 0.2]}``. A mapping within a list is an alternative as a
    whole. A setting that is a list itself stands in a list: ``method.level_range: [[0, 0.2]]``.

    >>> expand({"method": {"name": "sam", "rho": [0.1, 0.2]}})
    [{'method.name': 'sam', 'method.rho': 0.1}, {'method.name': 'sam', 'method.rho': 0.2}]

    Raises:
        InvalidValueError: if it is something else, or a list has nothing in it.
    """
    blocks = grid if isinstance(grid, list) else [grid]
    points = []
    for block in blocks:
        if not isinstance(block, dict):
            raise InvalidValueError(
                f"Expected `grid` to be settings, `name: [value, ...]`, or a list of such, but got {block!r}"
            )
        axes: dict[str, list[Any]] = {}
        for name, values in _axes(block):
            _check_apart(name, axes)
            axes[name] = values
        if math.prod(map(len, axes.values())) > _MOST:
            raise InvalidValueError(f"Expected `grid` to have at most {_MOST:,} points, but its lists make more")
        points += [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    if not points:
        raise InvalidValueError(f"Expected `grid` to have a point at least, but got {grid!r}")
    return points


def _check_apart(name: str, others: Iterable[str]) -> None:
    """Raise if a setting is another one, or one of its settings: which of the two counts would be a matter of order."""
    for other in others:
        if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
            raise InvalidValueError(f"Expected a block of `grid` to say a setting once, but got {other!r} and {name!r}")


def _axes(block: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    for name, value in block.items():
        if not isinstance(name, str) or not name:
            raise InvalidValueError(f"Expected `grid` to have names as keys, but got {name!r}")
        if isinstance(value, dict):
            yield from _axes(value, f"{prefix}{name}.")
            continue
        if value == []:
            raise InvalidValueError(f"Expected `{prefix}{name}` of `grid` to have alternatives, but got none")
        yield f"{prefix}{name}", value if isinstance(value, list) else [value]


def applied(base: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """Return settings with those of a point in place of theirs; ``base`` is left as it is.

    >>> applied({"method": {"name": "rwp"}}, {"method.noise.level": 0.2})
    {'method': {'name': 'rwp', 'noise': {'level': 0.2}}}

    Raises:
        InvalidValueError: if a dotted key goes through something that has no settings.
    """
    settings: dict[str, Any] = {key: deepcopy(value) for key, value in base.items() if "." not in key}
    for key, value in [*((k, v) for k, v in base.items() if "." in k), *point.items()]:
        *path, last = key.split(".")
        inner = settings
        for name in path:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise InvalidValueError(f"Expected `{name}` to have settings of its own for {key!r}, but got {inner!r}")
        inner[last] = deepcopy(value)
    return settings


def label_of(point: Point, method: str) -> str:
    """Return a name for tables: what sets a training apart, in the order of the grid.

    Args:
        point: of the grid.
        method: its method, named first if the grid does not.

    >>> label_of({"method.name": "rwp", "method.noise.level": 0.2, "optimizer.lr": 0.1}, "rwp")
    'rwp 0.2 lr=0.1'
    """
    words = [] if {"method", "method.name"} & point.keys() else [method]
    for key, value in point.items():
        if isinstance(value, dict):
            words.append(in_words(value))
        elif key in _SPEAK_FOR_THEMSELVES or key.endswith("schedule.name"):
            words.append(str(value))
        else:
            words.append(f"{key.rpartition('.')[2]}={in_words(value)}")
    return " ".join(words)


def in_words(value: Any) -> str:
    """Return a value of a setting, which may be several, as a few words.

    >>> in_words({"name": "quadratic", "fraction": 0.7}), in_words([0, 0.2])
    ('quadratic 0.7', '0-0.2')
    """
    if isinstance(value, dict):
        return " ".join(map(in_words, value.values()))
    return "-".join(map(in_words, value)) if isinstance(value, list) else str(value)
