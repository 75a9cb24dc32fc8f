"""CIFAR-10 and CIFAR-100: 60,000 photographs of 32x32 pixels in 10 or 100 classes, as their author gives them out.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009; the file formats are described on
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from noiserobust.data.arrays import ArrayData, check_memory
from noiserobust.data.class_names import CIFAR10, CIFAR100
from noiserobust.data.download import how_to_get
from noiserobust.data.places import data_root, missing_data
from noiserobust.data.unpickle import load_pickled
from noiserobust.errors import InvalidValueError
from noiserobust.untrusted import open_file, read_at_most, size_of, unpacking

#: Red, green and blue plane of an image, each in rows.
SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_GZIP = b"\x1f\x8b"

Batch = tuple[NDArray[np.uint8], NDArray[Any]]


@dataclass(frozen=True)
class _Form:
    """One of the forms in which a data set is given out.

    Args:
        archive: its file.
        folder: the folder in it, which stays when it is unpacked.
        train: the files of the training images.
        test: the file of the test images.
        parse: from a file's content and name to N x 3072 pixels and N labels.
    """

    archive: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    parse: Callable[[bytes, str], Batch]

    def find(self, root: Path, split: str) -> list[tuple[str, bytes]] | None:
        """Return the names and contents of the split's files, or None if not all are at ``root``."""
        names = self.train if split == "train" else self.test
        for folder in (root / self.folder, root):
            paths = [folder / name for name in names]
            if all(path.is_file() for path in paths):
                check_memory(sum(path.stat().st_size for path in paths), str(folder))
                return [(str(path), _content(path)) for path in paths]
        archive = root if root.is_file() else root / self.archive
        return _unpacked(archive, self.folder, names) if archive.is_file() else None


def load_cifar10(path: str | Path | None, split: str) -> ArrayData:
    """Read CIFAR-10, in its binary or its Python form, packed or unpacked.

    Args:
        path: a folder that holds ``cifar-10-batches-bin``, ``cifar-10-batches-py`` or their ``.tar.gz``, or one of
            these; None for ``$NOISEROBUST_DATA``, or else ``data``. Nothing in a pickle is run.
        split: ``train`` or ``test``.

    Returns:
        x: N x 3 x 32 x 32, uint8 RGB; y: 0 to 9.

    Raises:
        MissingFileError: if it is not there.
        InvalidValueError: if a file is damaged or holds something else.
    """
    return _load("cifar10", CIFAR10, _CIFAR10, path, split)


def load_cifar100(path: str | Path | None, split: str) -> ArrayData:
    """Read CIFAR-100 with its fine labels, like :func:`load_cifar10`.

    Returns:
        x: N x 3 x 32 x 32, uint8 RGB; y: 0 to 99.
    """
    return _load("cifar100", CIFAR100, _CIFAR100, path, split)


def _load(
    name: str, classes: tuple[str, ...], forms: Sequence[_Form], path: str | Path | None, split: str
) -> ArrayData:
    root = data_root(path)
    found = ((form, form.find(root, split)) for form in forms)
    form, files = next(((form, files) for form, files in found if files), (None, None))
    if form is None or files is None:
        raise missing_data(name, root, [n for form in forms for n in (form.folder, form.archive)], how_to_get(name))
    batches = [_checked(form.parse(content, file), len(classes), file) for file, content in files]
    x = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, *SHAPE)
    y = np.concatenate([labels for _, labels in batches]).astype(np.int64)
    return ArrayData(torch.from_numpy(x), torch.from_numpy(y), f"{name}:{root}", classes)


def _checked(batch: Batch, classes: int, file: str) -> Batch:
    pixels, labels = batch
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS or not len(pixels) or labels.shape != pixels.shape[:1]:
        raise InvalidValueError(
            f"Expected {file} to hold N x {_PIXELS} pixels and N labels, but got shapes {pixels.shape} and "
            f"{labels.shape}"
        )
    for label in (labels.min(), labels.max()):
        if not 0 <= label < classes:
            raise InvalidValueError(f"Expected the labels of {file} to be from 0 to {classes - 1}, but got {label}")
    return batch


def _binary(content: bytes, file: str, labels: int) -> Batch:
    """Read records of one or two bytes of labels, of which the last is the fine one, and 3072 pixels."""
    size = labels + _PIXELS
    if not content or len(content) % size:
        raise InvalidValueError(f"Expected {file} to hold whole records of {size} bytes, but got {len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, labels:], records[:, labels - 1]


def _pickled(content: bytes, file: str, key: str) -> Batch:
    loaded = load_pickled(content, file)
    pixels, labels = loaded.get("data"), loaded.get(key)
    if (
        not isinstance(pixels, np.ndarray)
        or not isinstance(labels, list)
        or not all(type(label) is int and abs(label) < 2**31 for label in labels)
    ):
        raise InvalidValueError(
            f"Expected {file} to hold an array 'data' and a list of integers {key!r}, but got {', '.join(loaded)}"
        )
    return pixels, np.array(labels, dtype=np.int64)


def _content(path: Path) -> bytes:
    with open_file(path, "data") as file:
        return file.read(size_of(file))


def _unpacked(archive: Path, folder: str, names: Sequence[str]) -> list[tuple[str, bytes]] | None:
    """Return the named files of a folder in an archive, or None if there is no such folder; writes nothing to disk."""
    contents: dict[str, bytes] = {}
    has_folder = False
    with open_file(archive, "data") as packed:
        try:
            # Names are taken in the order of the file, as a stream: going back would mean to unpack it again, and a
            # damaged archive could send the reader back for ever.
            with tarfile.open(fileobj=_plain(packed, archive), mode="r|") as tar:
                for member in tar:
                    parent, _, name = member.name.removeprefix("./").partition("/")
                    has_folder |= parent == folder
                    if parent == folder and name in names and member.isreg():
                        contents[name] = _member(tar, member, f"{archive}: {name}")
                        if len(contents) == len(names):
                            break
        except InvalidValueError:
            raise
        except Exception as error:  # any at all: of tarfile, zlib, or numbers in headers that make no sense
            raise InvalidValueError(f"Expected {archive} to be a whole .tar.gz file, but got: {error}") from error
    if not has_folder:
        return None
    # A damaged archive can look like one that ends early.
    if missing := [name for name in names if name not in contents]:
        raise InvalidValueError(f"Expected {archive} to be whole, but it lacks {folder}/{missing[0]}")
    return [(f"{archive}: {name}", contents[name]) for name in names]


def _plain(packed: BinaryIO, archive: Path) -> Any:
    is_packed = packed.read(2) == _GZIP
    packed.seek(0)
    return unpacking(packed, str(archive)) if is_packed else packed


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
    check_memory(member.size, name)
    file = None if member.issparse() else tar.extractfile(member)  # what is sparse has holes of any size
    if file is None:
        raise InvalidValueError(f"Expected {name} to be a plain file, but it is a sparse one")
    content = read_at_most(file, member.size)
    if len(content) != member.size:
        raise InvalidValueError(f"Expected {name} to be whole, but it has {len(content)} of {member.size} bytes")
    return bytes(content)


_CIFAR10 = (
    _Form(
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        ("test_batch.bin",),
        partial(_binary, labels=1),
    ),
    _Form(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        partial(_pickled, key="labels"),
    ),
)
_CIFAR100 = (
    _Form("cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), ("test.bin",), partial(_binary, labels=2)),
    _Form("cifar-100-python.tar.gz", "cifar-100-python", ("train",), ("test",), partial(_pickled, key="fine_labels")),
)
