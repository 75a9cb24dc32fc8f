"""Tables of known columns, read from comma-separated values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from noiserobust.errors import InvalidValueError
from noiserobust.textfile import read_cells


def read_table(
    path: Path, dtypes: dict[str, str], what: str, *, may_be_empty: set[str] | frozenset[str] = frozenset()
) -> pd.DataFrame:
    """Read comma-separated values that have to have the columns ``dtypes``.

    Args:
        path: a file that exists.
        dtypes: the columns, in order, and their types.
        what: the file holds, for the error.
        may_be_empty: columns of numbers in which a cell may be empty.

    Raises:
        InvalidValueError: if the file has other columns, or a value that is not of its column's type.
    """
    try:
        text = read_text_table(path, f"to hold {what}")
        if list(text) != list(dtypes):
            raise ValueError(f"the columns {', '.join(map(str, text))}")
        frame: pd.DataFrame = pd.DataFrame({name: _column(text[name], kind) for name, kind in dtypes.items()})
        frame = frame.astype(dtypes)
        lacking = [c for c in dtypes if c not in may_be_empty and frame[c].isna().any()]
        if lacking:
            raise ValueError(f"no number in {lacking[0]}")
    except InvalidValueError:
        raise
    except (ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise InvalidValueError(f"Expected {path} to hold {what}, but got: {reason}") from None
    return frame


def read_text_table(path: Path, wanted: str) -> pd.DataFrame:
    """Read comma-separated values as text: a method may be called 007, a layer NA.

    Args:
        path: the file.
        wanted: what is expected of it, for the error.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is not a table, or two columns have one name.
    """
    header, lines = read_cells(path, wanted)
    if len(set(header)) < len(header):
        raise InvalidValueError(f"Expected {path} {wanted}, but got: two columns of one name")
    frame: pd.DataFrame = pd.DataFrame([cells for _, cells in lines], columns=header, dtype=object)
    return frame


def _column(cells: pd.Series[Any], kind: str) -> list[Any]:
    """Return text as values of a kind; an empty number is NaN."""
    casts: dict[str, Callable[[str], Any]] = {
        "float64": lambda cell: float(cell or "nan"),
        "int64": lambda cell: _integer(str(cells.name), cell),
    }
    return [casts.get(kind, str)(cell) for cell in cells]


def _integer(name: str, cell: str) -> int:
    number = float(cell)
    if number % 1:  # not a number too
        raise ValueError(f"no integer in {name}")
    return int(cell) if cell.strip("+-").isdecimal() else int(number)
