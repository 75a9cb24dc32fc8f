"""Data sets by name, from files, or from a user's own function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from torch.utils.data import DataLoader

from noiserobust.callables import accepted, call, load_callable, names_callable
from noiserobust.config import SPLITS
from noiserobust.data.arrays import ArrayData, from_arrays
from noiserobust.data.cifar import load_cifar10, load_cifar100
from noiserobust.data.corruptions import load_cifar10_c, load_cifar100_c
from noiserobust.data.digits import load_digits
from noiserobust.data.download import SOURCES, fetch
from noiserobust.data.idx import load_fashion_mnist, load_mnist
from noiserobust.data.imagefolder import load_imagefolder
from noiserobust.data.npz import load_npz
from noiserobust.data.places import data_root
from noiserobust.errors import (
    InvalidValueError,
    MissingFileError,
    NoiseRobustError,
    check_choice,
    did_you_mean,
    unknown_name,
)

_PAPERS: dict[str, Callable[[str | None, str], ArrayData]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
}
#: What is known by name alone; the data sets of papers are then looked for in ``$NOISEROBUST_DATA`` or ``data``.
DATASETS: Mapping[str, Callable[[str], ArrayData]] = MappingProxyType(
    {"digits": load_digits, **{name: partial(load, None) for name, load in _PAPERS.items()}}
)
#: What may stand before ``:PATH``.
READERS: Mapping[str, Callable[[str, str], ArrayData]] = MappingProxyType(
    {
        **_PAPERS,
        "cifar10-c": load_cifar10_c,
        "cifar100-c": load_cifar100_c,
        "npz": load_npz,
        "imagefolder": load_imagefolder,
    }
)
_FORMS = (
    *DATASETS,
    *(f"{name}:PATH" for name in _PAPERS),
    *(f"{name}:DIR/CORRUPTION/SEVERITY" for name in ("cifar10-c", "cifar100-c")),
    *("npz:FILE", "imagefolder:DIR", "package.module:callable", "path/to/file.py:callable"),
)


def load_data(spec: str, split: str, *, download: bool = False) -> ArrayData | DataLoader[Any]:
    """Load one split of a data set.

    Args:
        spec: ``digits``; ``cifar10``, ``cifar100``, ``mnist`` or ``fashion-mnist``, alone or with ``:PATH``;
            ``cifar10-c:DIR/CORRUPTION/SEVERITY`` or ``cifar100-c:...``; ``npz:FILE``; ``imagefolder:DIR``;
            ``package.module:callable`` or ``path/to/file.py:callable``. A callable gets ``split=...`` if it has such a
            parameter (without, it stands for both splits) and returns ``(x, y)``, arrays or tensors, an
            :class:`ArrayData` or a DataLoader.
        split: ``train`` or ``test``.
        download: fetch a data set of :data:`noiserobust.data.download.SOURCES` if it is not where it is looked
            for, or its archive there is damaged.

    Raises:
        MissingFileError: if a file or folder does not exist, or cannot be downloaded.
        InvalidValueError: if the name is unknown or the data are not what they have to be.
        OutputError: if what is downloaded cannot be written.

    >>> load_data("digits", "test").x.shape
    torch.Size([797, 1, 8, 8])
    """
    check_choice("split", split, SPLITS)
    kind, colon, path = spec.partition(":")
    if kind in READERS and (colon or kind not in DATASETS):
        if not path:
            raise InvalidValueError(f"Expected `data` to name a path after {kind!r}, but got {spec!r}")
        return _load(partial(READERS[kind], path), kind, path, split, download)
    if spec in DATASETS:
        return _load(DATASETS[spec], spec, None, split, download)
    if not names_callable(spec):
        raise unknown_name("data", spec, _FORMS)
    try:
        function = load_callable(spec, "data")
    except MissingFileError:
        if not kind.endswith(".py") and did_you_mean(kind, READERS):
            raise unknown_name("data", spec, _FORMS) from None
        raise
    return _from_callable(function, spec, split)


def default_normalize(spec: str) -> str:
    """Return the ``--normalize`` of a data set for which none was given."""
    kind = spec.partition(":")[0].removesuffix("-c")
    return kind if kind in _PAPERS or spec == "digits" else "none"


def _load(load: Callable[[str], ArrayData], name: str, path: str | None, split: str, download: bool) -> ArrayData:
    try:
        try:
            return load(split)
        except (MissingFileError, InvalidValueError) as error:
            if not download or not _can_replace(name, path, error):
                raise
        fetch(name, data_root(path))
        return load(split)
    except NoiseRobustError:
        raise
    except OSError as error:
        raise InvalidValueError(f"Expected data {path or name} to be readable, but got: {error}") from error


def _can_replace(name: str, path: str | None, error: Exception) -> bool:
    """Return whether downloading could help: what is missing is fetched, and of what is damaged only the archives."""
    # A path that is to be an archive cannot become the folder it is put in.
    if name not in SOURCES or (path or "").endswith(".gz"):
        return False
    files = [data_root(path) / file for file in SOURCES[name].files]
    return isinstance(error, MissingFileError) or any(file.is_file() for file in files)


def _from_callable(function: Callable[..., Any], spec: str, split: str) -> ArrayData | DataLoader[Any]:
    parameters = accepted(function) or {}
    takes_split = "split" in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    result = call(function, spec, "data", **({"split": split} if takes_split else {}))
    if isinstance(result, (ArrayData, DataLoader)):
        return result
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        got = f"{len(result)} values" if isinstance(result, (tuple, list)) else type(result).__name__
        raise InvalidValueError(f"Expected data {spec!r} to return (x, y) or a DataLoader, but got {got}")
    return from_arrays(result[0], result[1], spec)
