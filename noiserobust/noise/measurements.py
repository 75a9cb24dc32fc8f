"""Measured conductances, read from CSV files in whatever units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noiserobust.errors import InvalidValueError, check_choice, did_you_mean
from noiserobust.results.files import sha256
from noiserobust.textfile import read_cells
from noiserobust.times import SECONDS, parse_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

MICROSIEMENS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Units of conductance; by these names in headers and flags."""

_LARGEST = 1e12  # of any number, in its unit
_Column = list[tuple[int, str]]
"""The number of each line of the file with its cell."""

_COLUMNS = ("target", "measured", "time", "device")


@dataclass(frozen=True)
class Measurements:
    """Observations of programmed devices, arrays of one length.

    Args:
        target_us: conductance that was to be programmed, float64, µS, >= 0.
        measured_us: conductance that was read, float64, µS.
        time_s: since the end of programming, float64, s, > 0.
        device: which device it was, or None if they are not told apart.
        source: name of the file.
        sha256: of the file.
    """

    target_us: NDArray[np.float64]
    measured_us: NDArray[np.float64]
    time_s: NDArray[np.float64]
    device: NDArray[Any] | None
    source: str
    sha256: str


def read_measurements(path: Path, unit: str | None = None, time_unit: str | None = None) -> Measurements:
    """Read a CSV file with a header.

    Columns are ``target``, ``measured``, ``time`` and, if devices are told apart, ``device``. The first three may
    carry their unit, ``target_us``, ``measured_ns``, ``time_h``; without one, ``unit`` and ``time_unit`` say it. Times
    may also be text such as ``1h``.

    Args:
        path: the file.
        unit: of conductances in columns that do not say it: ``s``, ``ms``, ``us`` or ``ns``.
        time_unit: of times: ``s``, ``min``, ``h``, ``d``, ...

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if a column or a unit is missing or unknown, or a number is none or out of range.
    """
    header, lines = read_cells(path, "to be a CSV file with a header", lenient=True)
    lines = [(number, cells) for number, cells in lines if len(header) == 1 or any(cells)]
    found: dict[str, tuple[_Column, str]] = {}
    for column in header:
        name, _, own = column.strip().lower().partition("_")
        if name not in _COLUMNS or name in found:
            near = did_you_mean(name, _COLUMNS)
            raise InvalidValueError(
                f"Expected the columns of {path} to be target, measured, time and device, each once, but got "
                f"{column!r}{near}"
            )
        place = len(found)
        found[name] = ([(number, cells[place]) for number, cells in lines], own)
    if missing := [name for name in _COLUMNS[:3] if name not in found]:
        raise InvalidValueError(
            f"Expected {path} to have the columns target, measured and time, separated by commas, but {missing[0]} is "
            f"missing from {', '.join(header)!r}"
        )
    if not lines:
        raise InvalidValueError(f"Expected {path} to hold measurements, but it has a header only")
    target, measured = (_conductances(path, found[name][0], name, found[name][1] or unit) for name in _COLUMNS[:2])
    if (target < 0).any():
        raise InvalidValueError(f"Expected targets in {path} to be >= 0, but got {target.min():g} µS")
    times = _times(path, found["time"][0], found["time"][1] or time_unit)
    device = None
    if "device" in found:
        for line, text in found["device"][0]:
            if not text:
                raise InvalidValueError(f"Expected device in line {line} of {path} to be a name, but got nothing")
        device = np.array([text for _, text in found["device"][0]], dtype=str)
    return Measurements(target, measured, times, device, path.name, sha256(path))


def _conductances(path: Path, column: _Column, name: str, unit: str | None) -> NDArray[np.float64]:
    if unit is None:
        raise InvalidValueError(
            f"Expected the unit of {name} in {path} in its header, such as {name}_us, or by `--unit`, but got none"
        )
    factor = MICROSIEMENS[check_choice(f"unit of {name}", unit, MICROSIEMENS)]
    return np.array([_number(path, line, name, text) for line, text in column]) * factor


def _times(path: Path, column: _Column, unit: str | None) -> NDArray[np.float64]:
    """Return times; a number has the unit of the column, a text such as ``1h`` its own."""
    factor = None if unit is None else SECONDS[check_choice("unit of time", unit, SECONDS)]

    def seconds(line: int, text: str) -> float:
        if text.strip()[-1:].isalpha() and "inf" not in text and "nan" not in text.lower():
            try:
                return parse_time(text)
            except InvalidValueError:
                raise InvalidValueError(
                    f"Expected time in line {line} of {path} to be a time such as 1s, 1h or 1d, but got {text!r}"
                ) from None
        number = _number(path, line, "time", text)
        if factor is None:
            raise InvalidValueError(
                f"Expected the unit of time in {path} in its header, such as time_s, or by `--time-unit`, but got none"
            )
        if number <= 0:
            raise InvalidValueError(
                f"Expected time in line {line} of {path} to be > 0, since programming, but got {number:g}"
            )
        return number * factor

    return np.array([seconds(line, text) for line, text in column])


def _number(path: Path, line: int, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) > _LARGEST:
        got = repr(text) if text else "nothing"
        raise InvalidValueError(f"Expected {name} in line {line} of {path} to be a finite number, but got {got}")
    return number
