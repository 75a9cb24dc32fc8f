"""Data from a folder of images, one sub-folder a class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from noiserobust.data.arrays import ArrayData, check_memory
from noiserobust.data.resize import ResizeCrop, split_options
from noiserobust.errors import InvalidValueError, MissingFileError, NoiseRobustError
from noiserobust.untrusted import open_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_SPLITS = {"train": ("train",), "test": ("test", "val", "valid")}
# Pillow knows formats that call other programs (EPS); the content decides on the format, not the name.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_CHUNK = 256


def load_imagefolder(path: str | Path, split: str) -> ArrayData:
    """Read ``DIR/<split>/<class>/*`` or, without folders for the splits, ``DIR/<class>/*``.

    Classes are numbered in the order of their names and images taken in the order of theirs, as in torchvision's
    ``ImageFolder``. Hidden folders and files of other kinds than png, jpg, jpeg, bmp, webp are skipped.

    Args:
        path: the folder; ``DIR@size=S`` or ``DIR@size=S,resize=R`` for images of different sizes: each is scaled until
            its shorter side is R pixels (by default S), then the S x S pixels in its middle are taken.
        split: ``train`` or ``test``; ``val`` and ``valid`` are taken for a missing ``test``.

    Returns:
        x: N x 3 x H x W, uint8 RGB; y: class numbers.

    Raises:
        MissingFileError: if the folder does not exist.
        InvalidValueError: if it has no classes, a class has no images, train and test have other classes, an image
            cannot be read or is (without ``@size``) of another size than the first one, or the set does not fit into
            memory.
    """
    folder_name, scale = split_options(str(path))
    root = Path(folder_name)
    if not root.exists():
        raise MissingFileError(f"Expected a data folder {root}, but there is none")
    if not root.is_dir():
        raise InvalidValueError(f"Expected data {root} to be a folder, but it is a file")
    try:
        folder, classes = _find_split(root, split)
        for name in classes:
            _check_name(name, folder)
        files = [list(_images(folder / name)) for name in classes]
    except OSError as error:
        raise InvalidValueError(f"Expected data {root} to be readable, but got: {error}") from error
    for name, members in zip(classes, files, strict=True):
        if not members:
            raise InvalidValueError(
                f"Expected {folder / name} to hold images ({', '.join(EXTENSIONS)}), but there are none"
            )
    labels = [label for label, members in enumerate(files) for _ in members]
    x = torch.from_numpy(_decode([file for members in files for file in members], str(root), scale))
    return ArrayData(x, torch.tensor(labels), f"imagefolder:{path}", tuple(classes))


def _find_split(root: Path, split: str) -> tuple[Path, list[str]]:
    # A folder called `train` holds a split if it has sub-folders; with images right in it, it is a class of trains.
    present = {
        key: next((root / name for name in names if (root / name).is_dir() and _subfolders(root / name)), None)
        for key, names in _SPLITS.items()
    }
    if not any(present.values()):
        classes = _subfolders(root)
        if not classes:
            raise InvalidValueError(f"Expected {root} to hold one folder a class, but it holds no folders")
        return root, classes
    folder = present[split]
    if folder is None:
        names = " or ".join(f"`{name}`" for name in _SPLITS[split])
        raise InvalidValueError(
            f"Expected {root} to hold a folder {names} of classes, but got: {', '.join(_subfolders(root))}"
        )
    classes = _subfolders(folder)
    # A class without examples in one split would silently shift the numbers of all that follow.
    for other in filter(None, present.values()):
        if differing := set(_subfolders(other)) ^ set(classes):
            raise InvalidValueError(
                f"Expected {folder} and {other} to have the same classes, but only one has {sorted(differing)[0]!r}"
            )
    return folder, classes


def _check_name(name: str, folder: Path) -> None:
    # Names of classes are written into results.
    shown = name.encode(errors="backslashreplace").decode()
    if shown != name:
        raise InvalidValueError(f"Expected the names of classes in {folder} to be UTF-8, but got {shown}")


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> Iterator[str]:
    for base, names in sorted(_walk(folder)):
        yield from (os.path.join(base, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS))


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    seen = set()
    for base, _, names in os.walk(folder, followlinks=True):
        found = os.stat(base)
        # Links to folders are followed; two that lead back, or to one place, would give an image again and again.
        if (found.st_dev, found.st_ino) in seen:
            raise InvalidValueError(f"Expected {folder} to hold every folder once, but {base} is a link to one of them")
        seen.add((found.st_dev, found.st_ino))
        yield base, names


def _decode(files: list[str], name: str, scale: ResizeCrop | None) -> NDArray[np.uint8]:
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow only warns below twice its limit of pixels.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        first = _read(files[0], scale)
        height, width, _ = first.shape
        check_memory(len(files) * first.nbytes, name)
        pixels = np.empty((len(files), 3, height, width), dtype=np.uint8)

        def fill(start: int) -> None:
            for index in range(start, min(start + _CHUNK, len(files))):
                pixels[index] = _read(files[index], scale, (width, height), files[0]).transpose(2, 0, 1)

        # Pillow decodes without the interpreter lock. Results are taken in order, so the first bad file is named.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(fill, range(0, len(files), _CHUNK)):
                pass
    return pixels


def _read(
    file: str, scale: ResizeCrop | None, size: tuple[int, int] | None = None, first: str = ""
) -> NDArray[np.uint8]:
    """Return one image, H x W x 3, scaled, or else of ``size`` (width, height) if that is given."""
    from PIL import Image

    # Any exception at all means a bad file: Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
    try:
        with open_file(Path(file), "image") as opened, Image.open(opened, formats=_FORMATS) as image:
            if scale is None and size is not None and image.size != size:
                raise InvalidValueError(
                    f"Expected all images to have one size, but {first} has {size[0]}x{size[1]} and {file} has "
                    f"{image.size[0]}x{image.size[1]}; imagefolder:DIR@size=S scales and crops them to S x S"
                )
            if image.mode in _DEEP_MODES:
                raise InvalidValueError(f"Expected images of 8 bits a channel, but {file} has mode {image.mode!r}")
            rgb = image.convert("RGB")
            return np.asarray(scale(rgb) if scale else rgb)
    except NoiseRobustError:
        raise
    except Exception as error:
        raise InvalidValueError(f"Expected {file} to be a readable image, but got: {error}") from error
