"""MNIST and Fashion-MNIST: 70,000 grey images of 28x28 pixels in 10 classes, in the IDX format.

Source: Y. LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the IEEE, 1998;
H. Xiao et al., "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", arXiv:1708.07747.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from noiserobust.data.arrays import ArrayData, check_memory
from noiserobust.data.class_names import FASHION_MNIST, MNIST
from noiserobust.data.download import how_to_get
from noiserobust.data.places import data_root, missing_data
from noiserobust.errors import InvalidValueError
from noiserobust.untrusted import open_file, read_at_most, unpacking

_PREFIX = {"train": "train", "test": "t10k"}
_UINT8 = 0x08


def load_mnist(path: str | Path | None, split: str) -> ArrayData:
    """Read the handwritten digits of MNIST.

    Args:
        path: a folder that holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte``
            and ``t10k-labels-idx1-ubyte``, each with or without ``.gz``, itself or in ``mnist`` or ``MNIST/raw``; None
            for ``$NOISEROBUST_DATA``, or else ``data``, which have to hold them in one of these two.
        split: ``train`` or ``test``.

    Returns:
        x: N x 1 x 28 x 28, uint8; y: 0 to 9.

    Raises:
        MissingFileError: if they are not there.
        InvalidValueError: if a file is damaged or holds something else.
    """
    return _load("mnist", MNIST, ("mnist", "MNIST/raw"), path, split)


def load_fashion_mnist(path: str | Path | None, split: str) -> ArrayData:
    """Read the clothes of Fashion-MNIST, like :func:`load_mnist`, in ``fashion-mnist`` or ``FashionMNIST/raw``."""
    return _load("fashion-mnist", FASHION_MNIST, ("fashion-mnist", "FashionMNIST/raw"), path, split)


def _load(
    name: str, classes: tuple[str, ...], folders: Sequence[str], path: str | Path | None, split: str
) -> ArrayData:
    root = data_root(path)
    names = [f"{_PREFIX[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    # The files of both sets have the same names: right in a folder they are only what somebody says they are.
    places = [root, *(root / f for f in folders)] if path else [root / f for f in folders]
    found = (paths for place in places if (paths := _find(place, names)))
    if not (files := next(found, None)):
        forms = [f"{folder}/{_PREFIX[split]}-*-ubyte.gz" for folder in folders]
        raise missing_data(name, root, forms, how_to_get(name))
    images, labels = (read_idx(file, ndim) for file, ndim in zip(files, (3, 1), strict=True))
    if len(images) != len(labels):
        raise InvalidValueError(
            f"Expected {files[0]} and {files[1]} to hold as many images as labels, but got {len(images)} and "
            f"{len(labels)}"
        )
    if labels.size and labels.max() >= len(classes):
        raise InvalidValueError(
            f"Expected the labels of {files[1]} to be from 0 to {len(classes) - 1}, but got {labels.max()}"
        )
    x = torch.from_numpy(images)[:, None]
    return ArrayData(x, torch.from_numpy(labels.astype(np.int64)), f"{name}:{root}", classes)


def _find(folder: Path, names: Sequence[str]) -> list[Path] | None:
    paths = [next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None) for name in names]
    found = [path for path in paths if path]
    return found if len(found) == len(names) else None


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, packed if its name ends in ``.gz``.

    The format: two zero bytes, the code 8 of unsigned bytes, the number of dimensions, each dimension as four
    bytes, the highest first, then the values in rows.

    Args:
        path: the file.
        ndim: how many dimensions it has to have.

    Raises:
        InvalidValueError: if it is damaged, of another type or number of dimensions, too long or too short, or does not
            fit into memory.
    """
    with open_file(path, "data") as packed:
        file = unpacking(packed, str(path)) if path.suffix == ".gz" else packed
        try:
            head = read_at_most(file, 4 + 4 * ndim)
            magic = bytes((0, 0, _UINT8, ndim))
            if head[:4] != magic:
                raise InvalidValueError(
                    f"Expected {path} to be an IDX file of {ndim}-dimensional unsigned bytes (0x{magic.hex()}), "
                    f"but it begins with 0x{head[:4].hex()}"
                )
            if len(head) < 4 + 4 * ndim:
                raise InvalidValueError(f"Expected {path} to be a whole IDX file, but it ends in the header")
            shape = tuple(int(size) for size in np.frombuffer(head, ">u4", offset=4))
            size = math.prod(shape)
            check_memory(size, str(path))
            content = read_at_most(file, size + 1)  # one more, to notice what should not be there
        except InvalidValueError:
            raise
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidValueError(f"Expected {path} to be a whole, readable file, but got: {error}") from error
    if len(content) != size:
        raise InvalidValueError(
            f"Expected {path} to hold {' x '.join(map(str, shape))} = {size} bytes after its header, but got "
            f"{'more' if len(content) > size else len(content)}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
