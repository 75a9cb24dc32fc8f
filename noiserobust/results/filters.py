"""How large the filters of trained weights are, and the file that says so read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.results.tabular import read_table

FILTERS_FILE = "filters.csv"

FILTERS_DTYPES = {
    "method": "str",
    "train_seed": "int64",
    "weights": "str",
    "layer": "str",
    "filter": "int64",
    "norm": "float64",
}
"""Columns of ``filters.csv``, in order; one row a filter, that is an output channel of a layer. ``norm`` is its l2
norm."""


def read_filters(folder: str | Path) -> pd.DataFrame:
    """Read what ``noiserobust diagnose filters`` has written.

    Args:
        folder: its ``--out``.

    Returns:
        DataFrame with the columns of :data:`FILTERS_DTYPES`.

    Raises:
        MissingFileError: if there is no ``filters.csv``.
        InvalidValueError: if it has other columns, a value that cannot be one, or the same filter twice.
    """
    path = Path(folder) / FILTERS_FILE
    if not path.is_file():
        raise MissingFileError(f"Expected {folder} to hold a {FILTERS_FILE}, but there is none")
    frame = read_table(path, FILTERS_DTYPES, "the norms of filters")
    if not np.isfinite(frame["norm"]).all() or (frame["norm"] < 0).any():
        raise InvalidValueError(f"Expected the norms of {path} to be finite numbers >= 0, but got others")
    twice = frame[frame.duplicated(list(FILTERS_DTYPES)[:-1])]
    if len(twice):
        row = twice.iloc[0]
        raise InvalidValueError(
            f"Expected the filters of {path} to be distinct, but got filter {row['filter']} of {row['layer']} twice "
            f"for {row['method']!r}, train seed {row['train_seed']}"
        )
    return frame
