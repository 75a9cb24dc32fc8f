"""The loss around trained weights, along one direction or over a plane, and its file read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.results.tabular import read_table

LANDSCAPE_FILE = "landscape.csv"

SPLITS = ("train", "test")

LANDSCAPE_DTYPES = {
    "method": "str",
    "train_seed": "int64",
    "weights": "str",
    "split": "str",
    "metric": "str",
    "x": "float64",
    "y": "float64",
    "value": "float64",
    "n_draws": "int64",
}
"""Columns of ``landscape.csv``, in order; one row a point. ``x`` and ``y`` are multiples of the directions, each of
which has the norms of the weights' filters; ``y`` is empty where there is one direction only. ``metric`` is ``loss`` in
nats, ``inf`` where it explodes, or ``accuracy`` in percent; ``n_draws`` noise draws were averaged over, 1 without
noise."""

_CURVE = ["method", "train_seed", "weights", "split", "metric"]


def read_landscape(folder: str | Path) -> pd.DataFrame:
    """Read what ``noiserobust diagnose landscape`` has written.

    Args:
        folder: its ``--out``.

    Returns:
        DataFrame with the columns of :data:`LANDSCAPE_DTYPES`.

    Raises:
        MissingFileError: if there is no ``landscape.csv``, as when the diagnosis was interrupted.
        InvalidValueError: if it has other columns, a value that cannot be one, or the same point twice.
    """
    path = Path(folder) / LANDSCAPE_FILE
    if not path.is_file():
        raise MissingFileError(
            f"Expected {folder} to hold a {LANDSCAPE_FILE}, but there is none; is the diagnosis finished?"
        )
    frame = read_table(path, LANDSCAPE_DTYPES, "the points of a landscape", may_be_empty={"y"})
    other = sorted(set(frame["split"]) - set(SPLITS))
    if other:
        raise InvalidValueError(f"Expected the splits of {path} to be {' or '.join(SPLITS)}, but got {other[0]!r}")
    for column in ("x", "y"):
        if np.isinf(frame[column]).any():
            raise InvalidValueError(f"Expected `{column}` of {path} to be finite numbers, but got others")
    if not ((frame["value"] > -np.inf) & (frame["metric"].ne("accuracy") | np.isfinite(frame["value"]))).all():
        raise InvalidValueError(
            f"Expected `value` of {path} to be finite numbers, or inf where a loss explodes, but got others"
        )
    flat = frame["y"].isna().groupby([frame[c] for c in _CURVE]).mean()
    if ((flat > 0) & (flat < 1)).any():
        raise InvalidValueError(
            f"Expected `y` of {path} to be empty for all points of a landscape or none, but got both"
        )
    twice = frame[frame.duplicated([*_CURVE, "x", "y"])]
    if len(twice):
        row = twice.iloc[0]
        raise InvalidValueError(
            f"Expected the points of {path} to be distinct, but got x = {row['x']:g}, y = {row['y']:g} twice for "
            f"{row['method']!r}, train seed {row['train_seed']}, {row['split']} {row['metric']}"
        )
    return frame
