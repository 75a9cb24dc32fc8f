"""What a training has left behind: its configuration, and a row an epoch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from noiserobust.errors import InvalidValueError
from noiserobust.results.files import read_json
from noiserobust.results.schema import MANIFEST_FILE
from noiserobust.results.tabular import read_text_table

METRICS_FILE = "metrics.csv"

_NEEDED = ("epoch", "steps", "train_loss", "held_out_accuracy", "held_out_perturbed_accuracy", "best", "seconds")
_COUNTS = ("epoch", "steps", "passes")


@dataclass(frozen=True)
class TrainingRun:
    """One training.

    Attributes:
        folder: of its train seed.
        method: its name in result tables.
        train_seed: which.
        configuration: all settings, from the manifest.
        metrics: ``metrics.csv``, one row an epoch.
    """

    folder: Path
    method: str
    train_seed: int
    configuration: Mapping[str, Any]
    metrics: pd.DataFrame

    @property
    def sha256(self) -> str:
        """SHA-256 of the configuration, as its weights have it."""
        return configuration_sha256(self.configuration)

    @property
    def passes(self) -> int | None:
        """Forward and backward passes of a batch; None for trainings that did not count them."""
        counted = "passes" in self.metrics and pd.notna(self.metrics["passes"].iloc[-1])
        return int(self.metrics["passes"].iloc[-1]) if counted else None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return float(self.metrics["seconds"].sum())


def configuration_sha256(configuration: Mapping[str, Any]) -> str:
    """Return the SHA-256 by which weights name the configuration they were trained with."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()


def read_trainings(folder: Path) -> list[TrainingRun]:
    """Read a folder that ``noiserobust train`` has written; trainings without a finished epoch are left out.

    Raises:
        InvalidValueError: if a file is damaged.
    """
    manifest = read_json(folder / MANIFEST_FILE)
    configuration = manifest.get("configuration") if isinstance(manifest, dict) else None
    if not isinstance(configuration, dict):
        raise InvalidValueError(f"Expected {folder / MANIFEST_FILE} to hold a configuration, but it has none")
    method = configuration.get("method")
    name = configuration.get("label") or (method.get("name") if isinstance(method, dict) else None) or folder.name
    runs = []
    for path in sorted(folder.glob(f"seed*/{METRICS_FILE}")):  # seed10 before seed2
        seed = path.parent.name.removeprefix("seed")
        if seed.isdecimal():
            metrics = _read(path)
            if len(metrics):
                runs.append(TrainingRun(path.parent, str(name), int(seed), configuration, metrics))
    return sorted(runs, key=lambda run: run.train_seed)


def _read(path: Path) -> pd.DataFrame:
    metrics = read_text_table(path, "to hold the epochs of a training")
    try:
        missing = [c for c in _NEEDED if c not in metrics]
        if missing:
            raise ValueError(f"no column {missing[0]}")
        for name in (c for c in metrics if c != "best"):
            metrics[name] = _numbers(str(name), metrics[name])
        if not metrics["best"].isin(("True", "False")).all():
            raise ValueError("neither True nor False in best")
        metrics["best"] = metrics["best"].eq("True")
        epochs = metrics["epoch"].tolist()
        if epochs != sorted(set(epochs)):
            raise ValueError("epochs that do not follow each other")
    except ValueError as error:
        raise InvalidValueError(f"Expected {path} to hold the epochs of a training, but got: {error}") from None
    return metrics


def _numbers(name: str, cells: pd.Series[Any]) -> pd.Series[Any]:
    """Return text as numbers, of columns that are not ours only if they are some; those that count are finite."""
    known = name in (*_NEEDED, *_COUNTS)
    try:
        numbers = pd.Series([float(cell or "nan") for cell in cells], index=cells.index, dtype="float64")
    except ValueError:
        if known:
            raise
        return cells
    counts = name in _COUNTS and (name != "passes" or numbers.notna().all())
    if counts and ((numbers % 1 != 0) | (numbers.abs() > 1e15)).any():  # not a number too
        raise ValueError(f"no integer in {name}")
    if name in ("train_loss", "seconds") and not numbers.abs().lt(math.inf).all():
        raise ValueError(f"no finite number in {name}")
    whole: pd.Series[Any] = numbers.astype("int64") if counts else numbers
    return whole
