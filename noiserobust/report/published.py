"""Numbers that others have published, to be read beside one's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from noiserobust.errors import InvalidValueError
from noiserobust.report.tables import format_level
from noiserobust.results.schema import CLEAN
from noiserobust.results.tabular import read_table

COLUMNS = {
    **dict.fromkeys(("table", "data", "model", "method", "noise", "level_name"), "str"),
    **dict.fromkeys(("level", "mean", "noise_std", "seed_std"), "float64"),
}
"""The columns of a file of published numbers, and their types."""

PUBLISHED = (
    "As published: mean ± noise std ± seed std, without noise mean ± seed std, as far as they are known; other "
    "networks, data and chips."
)

_GROUP = ["table", "data", "model", "noise", "level_name"]


@dataclass(frozen=True)
class Published:
    """A table as it was published.

    Attributes:
        file: where it was read.
        title: what it is, such as ``Table 1: resnet18 on cifar100``.
        noise: its name; empty for a table without noise.
        rows: text, the head first; a cell reads mean ± noise std ± seed std, without noise mean ± seed std; — is what
            was not published.
    """

    file: Path
    title: str
    noise: str
    rows: tuple[tuple[str, ...], ...]

    @property
    def heading(self) -> str:
        """Title and noise."""
        return f"{self.title}, {self.noise}" if self.noise else self.title


def read_published(files: Sequence[str | Path], noises: Iterable[str]) -> list[Published]:
    """Return the tables of files that are without noise or under one of some noises, in their order.

    Args:
        files: comma-separated values with the columns of :data:`COLUMNS`: ``mean`` and its two standard deviations,
            which may be empty, by method and level; level 0 is without noise, ``t`` is in seconds, ``noise`` is named
            as in the results, or empty for what was measured without. What is alike in table, data, model and noise is
            a table.
        noises: names.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if a file has other columns, a value that is none, two numbers for one cell, or no table
            under one of these noises.
    """
    wanted = {"", *noises}
    found: list[Published] = []
    for path in map(Path, files):
        frame = read_table(path, COLUMNS, "published numbers", may_be_empty={"noise_std", "seed_std"})
        if not (np.isfinite(frame["mean"]) & frame["level"].between(CLEAN, np.inf, inclusive="left")).all():
            raise InvalidValueError(
                f"Expected `mean` of {path} to be finite numbers and `level` finite ones >= 0, but got others"
            )
        twice = frame[frame.duplicated([*_GROUP, "method", "level"])]
        if len(twice):
            row = twice.iloc[0]
            raise InvalidValueError(
                f"Expected {path} to hold one number a cell, but got two of {row['method']} at level {row['level']:g} "
                f"in {_title(row['table'], row['model'], row['data'])}"
            )
        own = [
            _table(path, rows.reset_index(drop=True))
            for _, rows in frame.groupby(_GROUP, sort=False)
            if rows["noise"].iloc[0] in wanted
        ]
        if not own:
            known = ", ".join(sorted(set(frame["noise"]))) or "nothing"
            raise InvalidValueError(
                f"Expected {path} to hold numbers under {' or '.join(sorted(wanted - {''}))}, but got {known}"
            )
        found += own
    return found


def _table(path: Path, rows: pd.DataFrame) -> Published:
    first = rows.iloc[0]
    levels = sorted(rows["level"].unique())
    name = first["level_name"]
    heads = [("" if v == CLEAN else f"{name} = ") + format_level(v, name) for v in levels]
    cells = {}
    for row in rows.to_dict("records"):
        stds = [row["seed_std"]] if row["level"] == CLEAN else [row["noise_std"], row["seed_std"]]
        cells[row["method"], row["level"]] = _cell(row["mean"], stds)
    lines = [(m, *(cells.get((m, v), "—") for v in levels)) for m in dict.fromkeys(rows["method"])]
    title = _title(first["table"], first["model"], first["data"])
    return Published(path, title, str(first["noise"]), (("method", *heads), *lines))


def _title(table: str, model: str, data: str) -> str:
    what = " on ".join(part for part in (model, data) if part)
    return ": ".join(part for part in (f"Table {table}" if table else "", what) if part)


def _cell(mean: float, stds: Sequence[float]) -> str:
    """Write a cell; if only some of the standard deviations were published, what lacks is said."""
    known = stds if any(map(math.isfinite, stds)) else ()
    return " ± ".join([f"{mean:.2f}", *(f"{std:.2f}" if math.isfinite(std) else "—" for std in known)])
