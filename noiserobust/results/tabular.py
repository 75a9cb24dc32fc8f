"""Tables of known columns, read from comma-separated values."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from noiserobust.errors import InvalidValueError


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
        # Text as text: a method may be called 007, a layer NA.
        text = dict.fromkeys((c for c, kind in dtypes.items() if kind == "str"), str)
        empty = {c: [""] for c in may_be_empty}
        frame: pd.DataFrame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty, encoding="utf-8")
        if list(frame) != list(dtypes):
            raise ValueError(f"the columns {', '.join(map(str, frame))}")
        for column in (c for c, kind in dtypes.items() if kind == "int64"):
            if (pd.to_numeric(frame[column]) % 1 != 0).any():
                raise ValueError(f"no integer in {column}")
        frame = frame.astype(dtypes)
        lacking = [c for c in dtypes if c not in may_be_empty and frame[c].isna().any()]
        if lacking:
            raise ValueError(f"no number in {lacking[0]}")
    except (OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise InvalidValueError(f"Expected {path} to hold {what}, but got: {reason}") from None
    return frame
