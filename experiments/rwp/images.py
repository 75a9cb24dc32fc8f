"""Images in a folder, one sub-folder a class, decoded when they are needed: for sets that do not fit into memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from noiserobust.data.imagefolder import EXTENSIONS
from noiserobust.data.resize import ResizeCrop
from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.rng import Stream

Key = tuple[int, Stream | None]
"""Of an example: its number, and where the randomness of its crop comes from; None for the square in its middle."""
Box = tuple[int, int, int, int]

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10


def random_crop(width: int, height: int, stream: Stream) -> Box:
    """Return left, upper, right and lower of a random part of an image, of random area and shape.

    The area is uniform in 8 to 100% of the image's, the logarithm of width by height between those of 3/4 and 4/3, the
    place uniform; after ten that do not fit it is the largest of such a shape in the middle.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6, as in torchvision's
    ``RandomResizedCrop``.
    """
    draw = stream.generator()
    for _ in range(ATTEMPTS):
        area = width * height * draw.uniform(*AREA)
        aspect = math.exp(draw.uniform(*map(math.log, ASPECT)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(draw.integers(0, width - w + 1)), int(draw.integers(0, height - h + 1))
            return left, upper, left + w, upper + h
    w, h = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


class Images(Dataset[tuple[Tensor, int]]):
    """The images of ``FOLDER/<class>/*``; classes and files are numbered in the order of their names.

    Args:
        folder: holds a folder for each class.
        size: side of the squares that are returned.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self.middle = ResizeCrop(size, size * 256 // 224)
        if not folder.is_dir():
            raise MissingFileError(f"Expected a folder of images {folder}, but there is none")
        classes = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
        self.files: list[Path] = []
        self.labels: list[int] = []
        for label, name in enumerate(classes):
            found = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in EXTENSIONS)
            self.files += found
            self.labels += [label] * len(found)
        if not self.files:
            raise InvalidValueError(f"Expected {folder} to hold a folder of images for each class, but it does not")
        self.classes = len(classes)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        """Return an image, 3 x size x size, uint8, and its label.

        With randomness a random part of it is scaled to that size, and mirrored with probability 1/2.
        """
        index, stream = key
        with Image.open(self.files[index]) as opened:
            image = opened.convert("RGB")
        if stream is None:
            image = self.middle(image)
        else:
            box = random_crop(*image.size, stream.child("crop"))
            image = image.crop(box).resize((self.size, self.size), Image.Resampling.BILINEAR)
            if stream.child("flip").generator().integers(2):
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image).transpose(2, 0, 1)), self.labels[index]


class Batches(Sampler[list[Key]]):
    """One share of each batch of an epoch in random order; examples that are left over are left out.

    Args:
        count: of the examples.
        size: of a whole batch.
        stream: of the epoch.
        share: which share of a batch, >= 0.
        shares: how many there are.
    """

    def __init__(self, count: int, size: int, stream: Stream, share: int = 0, shares: int = 1) -> None:
        self.count, self.size, self.stream = count, size, stream
        self.share, self.shares = share, shares

    def __len__(self) -> int:
        return self.count // self.size

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.stream.child("order").permutation(self.count).tolist()
        part = self.size // self.shares
        for step in range(len(self)):
            first = step * self.size + self.share * part
            yield [(index, self.stream.child("augment", index)) for index in order[first : first + part]]
