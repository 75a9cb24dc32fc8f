"""Tables for people: files that a spreadsheet or a program opens without running what a name may say."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from typing import Any, Literal

import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(frame: pd.DataFrame) -> str:
    """Return a table as comma-separated values in which no spreadsheet sees a formula.

    Text that begins as one gets an apostrophe in front, as OWASP recommends ("CSV injection").

    >>> to_csv(pd.DataFrame({"method": ["sgd", "=1+1"], "change": [-1.5, 2.0]})).splitlines()
    ['method,change', 'sgd,-1.5', "'=1+1,2.0"]
    """
    safe = frame.copy()
    for name in safe:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = [harmless(value) for value in safe[name]]
    text: str = safe.to_csv(index=False, quoting=quoting(value for name in safe for value in safe[name]))
    return text


def quoting(cells: Iterable[Any]) -> Literal[0, 2]:
    """Return how cells have to be quoted, for a writer of comma-separated values.

    A carriage return that is not quoted would begin a line of its own, and with it perhaps a formula; writers do not
    see it where lines end otherwise.
    """
    returns = any("\r" in cell for cell in cells if isinstance(cell, str))
    return csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL


def harmless(value: Any) -> Any:
    """Return text that no spreadsheet takes for a formula; other values as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as JSON-able rows: NaN is None, and what is infinite the text ``inf`` or ``-inf``."""

    def plain(value: Any) -> Any:
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else str(value)
        return value

    return [{str(k): plain(v) for k, v in row.items()} for row in frame.to_dict("records")]
