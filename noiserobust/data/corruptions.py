"""CIFAR-10-C and CIFAR-100-C: the test images of CIFAR, corrupted in 19 ways and 5 severities.

Source: D. Hendrycks, T. Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations",
ICLR 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from noiserobust.data.arrays import ArrayData, check_memory
from noiserobust.data.class_names import CIFAR10, CIFAR100
from noiserobust.data.npy import read_npy
from noiserobust.data.places import data_root, missing_data
from noiserobust.errors import InvalidValueError, did_you_mean
from noiserobust.untrusted import open_file, size_of

SEVERITIES = range(1, 6)


def load_cifar10_c(path: str, split: str) -> ArrayData:
    """Read one corruption of CIFAR-10-C at one severity.

    Args:
        path: ``DIR/CORRUPTION/SEVERITY`` such as ``CIFAR-10-C/fog/3``, where DIR is the folder that holds ``fog.npy``
            and ``labels.npy``; or ``CORRUPTION/SEVERITY`` for DIR ``CIFAR-10-C`` in ``$NOISEROBUST_DATA``, or else
            ``data``.
        split: ``test``.

    Returns:
        x: 10,000 x 3 x 32 x 32, uint8 RGB; y: 0 to 9.

    Raises:
        MissingFileError: if it is not there.
        InvalidValueError: if the path has another form, the split is another one, or a file is damaged.
    """
    return _load("cifar10-c", "CIFAR-10-C", "https://zenodo.org/records/2535967", CIFAR10, path, split)


def load_cifar100_c(path: str, split: str) -> ArrayData:
    """Read one corruption of CIFAR-100-C at one severity, like :func:`load_cifar10_c`; y: 0 to 99."""
    return _load("cifar100-c", "CIFAR-100-C", "https://zenodo.org/records/3555552", CIFAR100, path, split)


def _load(name: str, default: str, url: str, classes: tuple[str, ...], path: str, split: str) -> ArrayData:
    *folders, corruption, severity = ["", *path.rsplit("/", 2)][-3:]
    if not corruption or severity not in map(str, SEVERITIES):
        raise InvalidValueError(
            f"Expected `data` to be {name}:DIR/CORRUPTION/SEVERITY with a severity from 1 to 5, such as "
            f"{name}:{default}/fog/3, but got '{name}:{path}'"
        )
    if split != "test":
        raise InvalidValueError(f"Expected `split` of {name} to be 'test', the only one it has, but got {split!r}")
    folder = Path(folders[0]) if path.count("/") > 1 else data_root(None) / default
    files = [folder / f"{corruption}.npy", folder / "labels.npy"]
    if not all(file.is_file() for file in files):
        known = [file.stem for file in folder.glob("*.npy")]
        how = f"get it from {url}{did_you_mean(corruption, known) if known else ''}"
        raise missing_data(name, folder, [" and ".join(file.name for file in files)], how)
    images, labels = map(_array, files)
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or not len(images) or len(images) % len(SEVERITIES):
        raise InvalidValueError(
            f"Expected {files[0]} to be uint8, 5N x 32 x 32 x 3, but got {images.dtype} of shape {images.shape}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InvalidValueError(
            f"Expected {files[1]} to be {len(images)} integers, one for each image of {files[0].name}, but got "
            f"{labels.dtype} of shape {labels.shape}"
        )
    count = len(images) // len(SEVERITIES)
    rows = slice((int(severity) - 1) * count, int(severity) * count)
    y = labels[rows].astype(np.int64)
    if y.min() < 0 or y.max() >= len(classes):
        raise InvalidValueError(
            f"Expected the labels of {files[1]} to be from 0 to {len(classes) - 1}, but got {y.min()} to {y.max()}"
        )
    x = np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2))
    return ArrayData(torch.from_numpy(x), torch.from_numpy(y), f"{name}:{folder}/{corruption}/{severity}", classes)


def _array(file: Path) -> NDArray[Any]:
    # Any exception at all means damage. Pickled objects are refused.
    with open_file(file, "data") as opened:
        try:
            check_memory(size_of(opened), str(file))
            return read_npy(opened)
        except InvalidValueError:
            raise
        except Exception as error:
            raise InvalidValueError(f"Expected {file} to be a whole .npy file of numbers, but got: {error}") from error
