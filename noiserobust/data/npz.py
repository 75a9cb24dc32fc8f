"""Data from a NumPy archive."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiserobust.data.arrays import ArrayData, check_memory, from_arrays
from noiserobust.data.npy import PythonObjectsError, read_npy
from noiserobust.errors import InvalidValueError, NoiseRobustError
from noiserobust.untrusted import check_expansion, open_file, size_of

Array = NDArray[Any]


def load_npz(path: str | Path, split: str) -> ArrayData:
    """Read the arrays ``{split}_x`` and ``{split}_y`` of an ``.npz`` file, or ``x`` and ``y`` if these are missing.

    Args:
        path: the file. ``x``: uint8 images N x H x W x C or N x H x W (grey), float images N x C x H x W, or
            features N x F of either; ``y``: N integer labels. Nothing pickled is loaded.
        split: ``train`` or ``test``.

    Returns:
        Images as N x C x H x W, uint8 or float32.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is no file, damaged, too large, or its arrays are missing or not as described.
    """
    path = Path(path)
    with open_file(path, "data") as opened:
        try:
            with zipfile.ZipFile(opened) as archive:
                found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                key_x, key_y = _keys(found, path, split)
                size = found[key_x].file_size + found[key_y].file_size
                check_memory(size, str(path))
                check_expansion(size, size_of(opened), f"data {path}")
                x, y = (_array(archive, found[key], key, path) for key in (key_x, key_y))
        except NoiseRobustError:
            raise
        except Exception as error:
            raise InvalidValueError(f"Expected data {path} to be a whole .npz file, but got: {error}") from error
    return from_arrays(_channels_first(x, f"{path}: {key_x}"), y, f"npz:{path}")


def _keys(found: Mapping[str, object], path: Path, split: str) -> tuple[str, str]:
    for prefix in (f"{split}_", ""):
        x, y = f"{prefix}x", f"{prefix}y"
        if x in found and y in found:
            return x, y
    listed = ", ".join(map(repr, sorted(found))) or "nothing"
    raise InvalidValueError(
        f"Expected data {path} to hold the arrays '{split}_x' and '{split}_y', or 'x' and 'y', but got {listed}"
    )


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str, path: Path) -> Array:
    # Any exception at all means damage: of zip, of zlib, of NumPy's header, or a size that cannot be.
    try:
        with archive.open(member) as file:
            return read_npy(file)
    except PythonObjectsError as error:
        raise InvalidValueError(f"Expected array {key!r} of {path} to hold numbers, but it holds {error}") from None
    except Exception as error:
        raise InvalidValueError(f"Expected array {key!r} of {path} to be undamaged, but got: {error}") from error


def _channels_first(x: Array, name: str) -> Array:
    if x.dtype.kind != "f" and x.dtype != np.uint8:
        raise InvalidValueError(f"Expected {name} to be uint8 or floating, but got {x.dtype}")
    if x.ndim == 2 or (x.ndim == 4 and x.dtype != np.uint8):
        return x
    if x.ndim == 3 and x.dtype == np.uint8:
        return x[:, None]
    if x.ndim == 4:
        if x.shape[-1] > 4 >= x.shape[1]:
            raise InvalidValueError(
                f"Expected {name} to be N x H x W x C (NHWC) as it is uint8, but shape {x.shape} looks like NCHW"
            )
        return np.moveaxis(x, -1, 1)
    raise InvalidValueError(
        f"Expected {name} to have 2 dimensions (features), 3 (grey uint8 images) or 4 (images), but got shape {x.shape}"
    )
