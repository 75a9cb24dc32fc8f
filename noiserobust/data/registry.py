"""Data sets by name, from files, or from a user's own function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch.utils.data import DataLoader

from noiserobust.callables import accepted, call, load_callable, names_callable
from noiserobust.data.arrays import ArrayData, from_arrays
from noiserobust.data.digits import load_digits
from noiserobust.data.imagefolder import load_imagefolder
from noiserobust.data.npz import load_npz
from noiserobust.errors import InvalidValueError, MissingFileError, check_choice, did_you_mean, unknown_name

SPLITS = ("train", "test")
DATASETS: Mapping[str, Callable[[str], ArrayData]] = MappingProxyType({"digits": load_digits})
#: What may stand before ``:PATH``.
READERS: Mapping[str, Callable[[str, str], ArrayData]] = MappingProxyType(
    {"npz": load_npz, "imagefolder": load_imagefolder}
)
_FORMS = (*DATASETS, "npz:FILE", "imagefolder:DIR", "package.module:callable", "path/to/file.py:callable")


def load_data(spec: str, split: str) -> ArrayData | DataLoader[Any]:
    """Load one split of a data set.

    Args:
        spec: a name in :data:`DATASETS`, ``npz:FILE``, ``imagefolder:DIR``, ``package.module:callable`` or
            ``path/to/file.py:callable``. A callable gets ``split=...`` if it has such a parameter (without, it
            stands for both splits) and returns ``(x, y)``, arrays or tensors, an :class:`ArrayData` or a DataLoader.
        split: ``train`` or ``test``.

    Raises:
        MissingFileError: if a file or folder does not exist.
        InvalidValueError: if the name is unknown or the data are not what they have to be.
    """
    check_choice("split", split, SPLITS)
    if spec in DATASETS:
        return DATASETS[spec](split)
    kind, _, path = spec.partition(":")
    if kind in READERS:
        if not path:
            raise InvalidValueError(f"Expected `data` to name a path after {kind!r}, but got {spec!r}")
        return READERS[kind](path, split)
    if not names_callable(spec):
        raise unknown_name("data", spec, _FORMS)
    try:
        function = load_callable(spec, "data")
    except MissingFileError:
        if did_you_mean(kind, READERS):
            raise unknown_name("data", spec, _FORMS) from None
        raise
    return _from_callable(function, spec, split)


def default_normalize(spec: str) -> str:
    """Return the ``--normalize`` of a data set for which none was given."""
    return "digits" if spec == "digits" else "none"


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
