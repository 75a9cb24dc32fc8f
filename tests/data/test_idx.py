"""MNIST and Fashion-MNIST in IDX files written here byte by byte."""

import gzip
import struct

import numpy as np
import pytest
import torch

from noiserobust.data import arrays
from noiserobust.data.registry import load_data
from noiserobust.errors import InvalidValueError, MissingFileError

IMAGES = [
    bytes((number * 50 + row * 28 + column) % 256 for row in range(28) for column in range(28)) for number in (0, 1, 2)
]
LABELS = bytes([7, 0, 9])
FOLDERS = {"mnist": ("mnist", "MNIST/raw"), "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw")}


def idx3(images, rows=28, columns=28):
    return struct.pack(">IIII", 0x803, len(images), rows, columns) + b"".join(images)


def idx1(labels):
    return struct.pack(">II", 0x801, len(labels)) + labels


def write(folder, images, labels, prefix="t10k", packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("place", [0, 1])
def test_the_pixels_that_were_written(tmp_path, monkeypatch, name, packed, place):
    folder = tmp_path / FOLDERS[name][place]
    write(folder, idx3(IMAGES[:2]), idx1(LABELS[:2]), "train", packed)
    write(folder, idx3(IMAGES), idx1(LABELS), "t10k", packed)
    monkeypatch.setenv("NOISEROBUST_DATA", str(tmp_path))
    for spec in (name, f"{name}:{tmp_path}", f"{name}:{folder}"):
        data = load_data(spec, "test")
        expected = np.fromfunction(lambda n, c, r, k: (n * 50 + r * 28 + k) % 256, (3, 1, 28, 28), dtype=int)
        assert np.array_equal(data.x.numpy(), expected)
        assert data.x.dtype == torch.uint8
        assert data.y.tolist() == [7, 0, 9]
        assert data.classes[9] == {"mnist": "9", "fashion-mnist": "Ankle boot"}[name]
        assert len(load_data(spec, "train")) == 2


def test_nobody_takes_one_set_for_the_other(tmp_path, monkeypatch):
    # The files have the same names, so those right in the common folder could be either.
    write(tmp_path, idx3(IMAGES), idx1(LABELS))
    monkeypatch.setenv("NOISEROBUST_DATA", str(tmp_path))
    for name in FOLDERS:
        with pytest.raises(
            MissingFileError, match=f"to hold all of {name} as {name}/t10k-.*, but it does not; .*--down"
        ):
            load_data(name, "test")
        assert len(load_data(f"{name}:{tmp_path}", "test")) == 3
    with pytest.raises(MissingFileError, match=r"mnist/train-\*-ubyte\.gz or MNIST/raw/train-"):
        load_data("mnist", "train")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx3(IMAGES)[:-1], idx1(LABELS), r"images-idx3-ubyte.* to hold 3 x 28 x 28 = 2352 bytes .*, but got 2351"),
        (idx3(IMAGES) + b"x", idx1(LABELS), r"images-idx3-ubyte.* = 2352 bytes after its header, but got more"),
        (idx3(IMAGES)[:10], idx1(LABELS), r"images-idx3-ubyte.* to be a whole IDX file, but it ends in the header"),
        (b"", idx1(LABELS), r"images-idx3-ubyte.* begins with 0x$"),
        (idx1(LABELS), idx1(LABELS), r"IDX file of 3-dimensional unsigned bytes \(0x00000803\), but .* 0x00000801"),
        (idx3(IMAGES), idx3(IMAGES), r"labels-idx1-ubyte.* \(0x00000801\), but it begins with 0x00000803"),
        (b"\0\0\x0d\x03" + idx3(IMAGES)[4:], idx1(LABELS), "begins with 0x00000d03"),
        (idx3(IMAGES), idx1(LABELS[:2]), r"as many images as labels, but got 3 and 2"),
        (idx3(IMAGES), idx1(b"\0\x0a\0"), r"labels of .*labels-idx1-ubyte.* to be from 0 to 9, but got 10"),
        (idx3([]), idx1(b""), r"none of them 0, but got shape \(0, 1, 28, 28\)"),
        (struct.pack(">IIII", 0x803, *[2**32 - 1] * 3), idx1(LABELS), "GiB of memory"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_files(tmp_path, images, labels, message, packed):
    write(tmp_path, images, labels, packed=packed)
    with pytest.raises(InvalidValueError, match=message):
        load_data(f"mnist:{tmp_path}", "test")


def test_damaged_packing(tmp_path, monkeypatch):
    write(tmp_path, idx3(IMAGES), idx1(LABELS))
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for content in (whole[:-20], whole[:5], b"text", whole[:40] + bytes(9) + whole[49:]):
        file.write_bytes(content)
        with pytest.raises(
            InvalidValueError, match=r"t10k-images-idx3-ubyte\.gz to be a whole, readable file, but got"
        ):
            load_data(f"mnist:{tmp_path}", "test")
    # A small file that unpacks to more than it says is not unpacked.
    file.write_bytes(gzip.compress(idx3(IMAGES) + bytes(10**6)))
    with pytest.raises(InvalidValueError, match="but got more"):
        load_data(f"mnist:{tmp_path}", "test")
    monkeypatch.setattr(arrays, "MEMORY_LIMIT", 2351)
    with pytest.raises(InvalidValueError, match="GiB of memory"):
        load_data(f"mnist:{tmp_path}", "test")
