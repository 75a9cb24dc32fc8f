"""Which layers a network cannot bear noise on: what a diagnosis has found, and its files read again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.results.tabular import read_text_table

SENSITIVITY_FILE, DIGITAL_FILE = "sensitivity.csv", "digital.csv"

SENSITIVITY_DTYPES = {
    "method": "str",
    "noise": "str",
    "level_name": "str",
    "level": "float64",
    "metric": "str",
    "condition": "str",
    "layer": "str",
    "n_weights": "int64",
    "mean": "float64",
    "noise_std": "float64",
    "seed_std": "float64",
    "n_seeds": "int64",
    "n_draws": "int64",
    "ci_low": "float64",
    "ci_high": "float64",
    "ci_level": "float64",
    "change": "float64",
    "change_low": "float64",
    "change_high": "float64",
}
"""Columns of ``sensitivity.csv``, in order; one row a (method, condition, layer). ``layer`` is empty for ``clean`` and
``all``, of which ``n_weights`` is the number of weights in all layers. ``change`` is the mean over train seeds of the
paired change against ``clean`` (of ``all`` and ``only``) or ``all`` (of ``except``), with its Student-t interval. Empty
cells are quantities that cannot be estimated."""

DIGITAL_DTYPES = {
    "method": "str",
    "step": "int64",
    "kind": "str",
    "layer": "str",
    "digital": "str",
    "digital_share": "float64",
    "mean": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n_draws": "int64",
    "seed": "int64",
    "reached": "bool",
    "wanted": "float64",
}
"""Columns of ``digital.csv``, in order; one row a (method, step). ``digital`` names the layers, joined by spaces, that
are digital in that step and ``digital_share`` is their share of the weights in all layers. ``add`` makes ``layer``
digital; ``drop`` tries to give it back to the crossbar, which holds if the wanted mean is ``reached`` nevertheless;
``verify`` evaluates the layers that were chosen on other chips, of root seed ``seed``."""

CONDITIONS, KINDS = ("clean", "all", "only", "except"), ("add", "drop", "verify")

_MAY_BE_EMPTY = {"noise_std", "seed_std", "ci_low", "ci_high", "change", "change_low", "change_high"}


@dataclass(frozen=True)
class Sensitivity:
    """How sensitive layers are.

    Args:
        layers: one row a (method, condition, layer), with the columns of ``sensitivity.csv``.
        digital: one row a (method, step) of the search for layers to keep digital, with the columns of
            ``digital.csv``; None if there was no search.
    """

    layers: pd.DataFrame
    digital: pd.DataFrame | None = None


def read_sensitivity(folder: str | Path) -> Sensitivity:
    """Read what ``noiserobust diagnose sensitivity`` has written.

    Args:
        folder: its ``--out``.

    Raises:
        MissingFileError: if there is no ``sensitivity.csv``, as when the diagnosis was interrupted.
        InvalidValueError: if a file has other columns or a value that cannot be one.
    """
    path = Path(folder) / SENSITIVITY_FILE
    if not path.is_file():
        raise MissingFileError(
            f"Expected {folder} to hold a {SENSITIVITY_FILE}, but there is none; is the diagnosis finished?"
        )
    layers = _read(path, SENSITIVITY_DTYPES, {"condition": CONDITIONS})
    _check_layers(layers, path)
    digital = Path(folder) / DIGITAL_FILE
    return Sensitivity(layers, _read(digital, DIGITAL_DTYPES, {"kind": KINDS}) if digital.exists() else None)


def _read(path: Path, dtypes: dict[str, str], choices: dict[str, Sequence[str]]) -> pd.DataFrame:
    text = read_text_table(path, "to be comma-separated values")
    if list(text) != list(dtypes):
        raise InvalidValueError(
            f"Expected {path} to have the columns {', '.join(dtypes)}, but got {', '.join(map(str, text)) or 'none'}"
        )
    columns = {name: _column(path, text[name], kind, choices.get(name)) for name, kind in dtypes.items()}
    frame: pd.DataFrame = pd.DataFrame(columns).astype(dtypes)
    return frame


def _column(path: Path, cells: pd.Series[str], kind: str, choices: Sequence[str] | None) -> list[Any]:
    wanted = {"int64": "an integer", "float64": "a finite number", "bool": "True or False"}.get(kind, "text")
    values: list[Any] = []
    for line, cell in enumerate(cells, start=2):
        try:
            values.append(_value(cell, kind, empty=cells.name in _MAY_BE_EMPTY))
        except ValueError:
            values.append(None)
        if values[-1] is None or (choices and cell not in choices):
            expected = f"one of {', '.join(choices)}" if choices else wanted
            raise InvalidValueError(
                f"Expected `{cells.name}` in line {line} of {path} to be {expected}, but got {cell!r}"
            )
    return values


def _value(cell: str, kind: str, *, empty: bool) -> Any:
    if kind == "str":
        return cell
    if kind == "bool":
        return {"True": True, "False": False}.get(cell)
    if kind == "int64":
        return int(cell)
    value = math.nan if empty and not cell else float(cell)
    return value if math.isfinite(value) or not cell else None


def _check_layers(frame: pd.DataFrame, path: Path) -> None:
    """Raise unless each method has each condition once, and with the same layers as every other."""
    key = ["method", "condition", "layer"]
    if frame.empty:
        raise InvalidValueError(f"Expected {path} to have at least one row, but got none")
    if (twice := frame.duplicated(key)).any():
        named = ", ".join(f"{name} {value!r}" for name, value in frame.loc[twice, key].iloc[0].items())
        raise InvalidValueError(f"Expected {path} to have one row a (method, condition, layer), but got two of {named}")
    layers = set(frame["layer"]) - {""}
    if not layers:
        raise InvalidValueError(f"Expected {path} to have at least one layer, but got none")
    for method, own in frame.groupby("method", sort=False):
        for condition in CONDITIONS:
            found = set(own.loc[own["condition"] == condition, "layer"])
            expected = layers if condition in ("only", "except") else {""}
            if found != expected:
                odd = sorted(found ^ expected)[0]
                raise InvalidValueError(
                    f"Expected {path} to have the same layers for each method and condition, but {method!r} "
                    f"{'lacks' if odd in expected else 'has'} {condition!r} with layer {odd!r}"
                )


def ranking(frame: pd.DataFrame) -> list[str]:
    """Return the layers, the one first that is most worth keeping digital.

    Args:
        frame: with the columns of ``sensitivity.csv``.
    """
    gains = frame[frame["condition"] == "except"].groupby("layer", sort=False)["change"].mean()
    return [str(layer) for layer in gains.sort_values(ascending=False, kind="stable").index]
