"""Times since programming, written as people write them: ``1s``, ``30min``, ``1h``, ``1d``, ``1y``."""

from __future__ import annotations

import re

from noiserobust.errors import InvalidValueError, check_number

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "mo": 2629800.0, "y": 31557600.0}
"""Length of each unit in seconds; a year has 365.25 days, a month is a twelfth of it."""

_PATTERN = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_time(value: str | float) -> float:
    """Return a time in seconds, > 0.

    Args:
        value: a number of seconds, or a string of a number and a unit (``s min h d w mo y``; seconds if left out).

    Raises:
        InvalidValueError: if it is neither, or not a finite time > 0.

    >>> parse_time("1d"), parse_time("90 min"), parse_time(20)
    (86400.0, 5400.0, 20.0)
    """
    if isinstance(value, str):
        match = _PATTERN.fullmatch(value)
        unit = (match.group(2).lower() or "s") if match else ""
        try:
            seconds = float(match.group(1)) * SECONDS[unit] if match else None
        except (KeyError, ValueError):
            seconds = None
        if seconds is None:
            raise InvalidValueError(f"Expected `t` to be a time such as 1s, 30min, 1h, 1d or 1y, but got {value!r}")
        value = seconds
    return check_number("t", value, above=0)


def write_time(seconds: float) -> str | float:
    """Return a time as people write it in files, ``1d``, or the number of seconds if that says it more exactly."""
    text = format_time(seconds).replace(" ", "")
    return text if parse_time(text) == seconds else seconds


def round_time(seconds: float) -> str:
    """Return a time with two significant digits, in the largest unit of which it is at least one.

    >>> round_time(5_234_567), round_time(0.5)
    ('2 mo', '0.5 s')
    """
    units = sorted(((length, unit) for unit, length in SECONDS.items() if unit != "w"), reverse=True)
    length, unit = next(((length, unit) for length, unit in units if seconds >= length), (1.0, "s"))
    return f"{float(f'{seconds / length:.2g}'):g} {unit}"


def format_time(seconds: float) -> str:
    """Return a time in the largest unit in which it has at most three significant digits, or else in seconds.

    >>> format_time(1), format_time(86400), format_time(86400_000), format_time(31557600), format_time(5400)
    ('1 s', '1 d', '1000 d', '1 y', '1.5 h')
    """
    for unit, length in sorted(SECONDS.items(), key=lambda item: -item[1]):
        if unit == "w":
            continue
        number = seconds / length
        if number >= 1 and abs(number - float(f"{number:.3g}")) < 1e-9 * number:
            return f"{float(f'{number:.3g}'):.15g} {unit}"
    return f"{seconds:g} s"
