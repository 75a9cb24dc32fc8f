"""Weights and data by name for a diagnosis, and the folder it writes to: weights that are done are not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from torch import nn

from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.api import make_forward
from noiserobust.evaluate.files import TEST, resolve_data, resolve_weights
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.plan import Subject
from noiserobust.progress import progress_bar
from noiserobust.results.files import make_folder, write_atomic
from noiserobust.results.manifest import environment
from noiserobust.results.store import ResultFolder
from noiserobust.results.tabular import read_text_table

PARTS = "parts"
"""Folder for the tables of single weights, within that for the results."""

KEY_DTYPES = {"method": "str", "train_seed": "int64", "weights": "str"}
"""The columns in front of those of a table, which tell one of the weights from another."""


@dataclass(frozen=True)
class DiagnoseConfig:
    """What the command line says of weights and data.

    Args:
        model: registered name, package.module:callable or path/to/file.py:callable.
        weights: weights files; each is one train seed.
        data: name of the data set.
        split: of the data set, ``test`` or ``train``.
        model_args: keyword arguments of the model.
        normalize: by default what the weights were trained with, or what the data set has.
        method: name of the method in the results; by default what the weights file says, else ``model``.
        device: where to compute.
        batch_size: examples a pass through the network.
        examples: how many examples of the split are used, the first of a fixed random order; by default all.
        seed: root seed of all random numbers.
    """

    model: str
    weights: Sequence[Path]
    data: str = ""
    split: str = TEST
    model_args: Mapping[str, Any] = field(default_factory=dict)
    normalize: str | None = None
    method: str | None = None
    device: str = "auto"
    batch_size: int | None = None
    examples: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Diagnosed:
    """What a diagnosis is of.

    Args:
        model: which all weights files share.
        subjects: the weights.
        forward: over the data, for their loss.
        configuration: everything that determines results so far, JSON-able.
    """

    model: nn.Module
    subjects: list[Subject]
    forward: Forward
    configuration: dict[str, Any]


def resolve_diagnosed(config: DiagnoseConfig, *, download: bool = False) -> Diagnosed:
    """Return weights and data by name; nothing is written.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    found = resolve_weights(config.model, config.weights, config.model_args, config.method, config.normalize)
    data, said = resolve_data(config.data, config.split, config.examples, config.seed, download=download)
    forward = make_forward(data, found.normalize, config.device, "fp32", config.batch_size, "loss")
    configuration = {
        **found.described,
        "data": {**forward.describe_data(), **said},
        "normalize": str(forward.normalize),
        "seed": config.seed,
    }
    return Diagnosed(found.model, found.subjects, forward, configuration)


@contextmanager
def diagnosis_folder(out: Path, kind: str, configuration: Mapping[str, Any], device: object) -> Iterator[ResultFolder]:
    """Hold the folder of a diagnosis for the time of the block.

    Raises:
        InvalidValueError: if it holds results of another kind or configuration.
        OutputError: if it cannot be written to, or another process is writing to it.
    """
    with ResultFolder(out, kind, configuration, environment({"device": str(device)})) as folder:
        yield folder


def by_weights(
    folder: ResultFolder,
    name: str,
    subjects: Sequence[Subject],
    work: Callable[[Subject], pd.DataFrame],
    dtypes: Mapping[str, str],
    *,
    progress: bool = False,
) -> pd.DataFrame:
    """Return a table of all weights; those that the folder holds already are not computed again.

    Args:
        folder: of the diagnosis.
        name: of the table.
        subjects: the weights.
        work: returns the table of one of them.
        dtypes: its columns and their types.
        progress: whether to show progress.

    Raises:
        InvalidValueError: if the table of weights that are done is damaged.
        OutputError: if the folder cannot be written to.
    """
    parts = make_folder(folder.path / PARTS)
    frames = []
    with progress_bar(len(subjects), "weights file", shown=progress) as bar:
        for subject in subjects:
            path = parts / f"{name}-{quote(subject.method, safe='')}-{subject.train_seed}.csv"
            if not path.exists():
                write_atomic(path, work(subject).to_csv(index=False))
            part = _read(path, dtypes)
            key = {name: [getattr(subject, name)] * len(part) for name in KEY_DTYPES}
            frames.append(pd.concat([pd.DataFrame(key), part], axis="columns"))
            bar.update()
    whole: pd.DataFrame = pd.concat(frames, ignore_index=True).astype({**KEY_DTYPES, **dtypes})
    return whole


def _read(path: Path, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Read a table of ours to the last bit; its numbers may be NaN."""
    casts: dict[str, Callable[[str], Any]] = {"float64": lambda cell: float(cell or "nan"), "int64": int}
    try:
        # As text: pandas has rounded numbers in other ways in other versions.
        text = read_text_table(path, "to be what was written there")
        if list(text) != list(dtypes):
            raise ValueError(f"the columns {', '.join(map(str, text))}")
        columns = {name: list(map(casts.get(kind, str), text[name])) for name, kind in dtypes.items()}
        frame: pd.DataFrame = pd.DataFrame(columns).astype(dict(dtypes))
    except InvalidValueError:
        raise
    except (ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise InvalidValueError(f"Expected {path} to be what was written there, but got: {reason}") from None
    return frame
