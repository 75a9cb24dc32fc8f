"""Malformed binary files: what a broken disk, a cut connection and a fuzzer make of a valid one, and who reads them.

The variants of a packed file are made on both sides of the packing: damage that a checksum gives away at once, and
damage below a checksum that is right again.
"""

from __future__ import annotations

import gzip
import io
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import noiserobust as nr
from noiserobust.data.cifar import load_cifar10, load_cifar100
from noiserobust.data.corruptions import load_cifar10_c
from noiserobust.data.idx import load_mnist
from noiserobust.data.imagefolder import load_imagefolder
from noiserobust.data.npz import load_npz
from noiserobust.models.weights import read_weights, write_weights
from noiserobust.train.checkpoint import read_checkpoint, write_checkpoint

#: What ends up in a field that holds a length, an offset or a size: the ends of the integers, and just beside them.
LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 10**12, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def mutations(valid: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yield malformed variants without end, the same ones for the same state of ``rng``.

    Some may happen to be valid: a reader has to read them or raise a :class:`NoiseRobustError`.

    Args:
        valid: content of a valid file.
        rng: what decides.
    """
    while True:
        yield _packed(valid, rng) if rng.random() < 0.5 else _damaged(valid, rng)


def files(path: Path) -> list[Path]:
    """Return the files of what ``write_valid`` wrote, itself or, of a folder, all in it, in the order of names."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _damaged(valid: bytes, rng: random.Random) -> bytes:
    """Return bytes after one to three kinds of damage."""
    content = valid
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(_DAMAGES)(content, rng)
    return content


def _packed(valid: bytes, rng: random.Random) -> bytes:
    """Return a packed file with damage inside the packing, or damage what is not packed."""
    if valid[:2] == b"\x1f\x8b":
        return gzip.compress(_packed(gzip.decompress(valid), rng), 1)
    if valid[257:262] == b"ustar":
        return _tar(valid, rng)
    return _zip(valid, rng) if valid[:4] == b"PK\x03\x04" else _damaged(valid, rng)


def _zip(valid: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in _damaged_member(members, rng):
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _tar(valid: bytes, rng: random.Random) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(valid)) as archive:
        members = [(info.name, archive.extractfile(info).read()) for info in archive if info.isreg()]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in _damaged_member(members, rng):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _damaged_member(members: list[tuple[str, bytes]], rng: random.Random) -> list[tuple[str, bytes]]:
    chosen = rng.randrange(len(members))
    name, content = members[chosen]
    how = rng.random()
    if how < 0.1:
        return members[:chosen] + members[chosen + 1 :]
    if how < 0.2:
        name = rng.choice(("../" + name, "/" + name, name[:-1], name + "x"))
    else:
        content = _damaged(content, rng)
    return [*members[:chosen], (name, content), *members[chosen + 1 :]]


def _truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 32)) if damaged else 0):
        damaged[_position(damaged, rng)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _blown_up(content: bytes, rng: random.Random) -> bytes:
    """Put a length, of any width and order, or one of decimal digits, where there may have been another."""
    damaged = bytearray(content)
    at, length = _position(damaged, rng), rng.choice(LENGTHS)
    digits = [i for i, byte in enumerate(damaged[:4096]) if chr(byte).isdigit()]
    if digits and rng.random() < 0.3:
        at = rng.choice(digits)
        damaged[at : at + 1] = str(length).encode()
        return bytes(damaged)
    width = rng.choice((1, 2, 4, 8))
    field = (length % 256**width).to_bytes(width, rng.choice(("little", "big")))
    damaged[at : at + width] = field
    return bytes(damaged)


def _spliced(content: bytes, rng: random.Random) -> bytes:
    """Put a piece of the file in another place, over what is there or between."""
    start, at = _position(content, rng), _position(content, rng)
    piece = content[start : start + rng.randrange(1, 65)]
    return content[:at] + piece + content[at + rng.choice((0, len(piece))) :]


def _zeroed(content: bytes, rng: random.Random) -> bytes:
    at, length = _position(content, rng), rng.choice((1, 4, 8, 512, len(content)))
    return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]


def _repeated(content: bytes, rng: random.Random) -> bytes:
    at, length = _position(content, rng), rng.choice((1, 8, 512, len(content)))
    return content[:at] + content[at : at + length] * rng.choice((2, 3, 17)) + content[at + length :]


def _left_out(content: bytes, rng: random.Random) -> bytes:
    at = _position(content, rng)
    return content[:at] + content[at + rng.randrange(1, 65) :]


def _foreign(content: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (b"", b"\0" * 64, b"<html>Not found</html>", rng.randbytes(200), content[:64] + rng.randbytes(64))
    )


_DAMAGES = (_truncated, _flipped, _flipped, _blown_up, _blown_up, _spliced, _zeroed, _repeated, _left_out, _foreign)


def _position(content: bytes | bytearray, rng: random.Random) -> int:
    """Return a place in the file: half of the time among the first bytes, where headers are, or the last."""
    size = max(1, len(content))
    where = rng.random()
    if where < 0.35:
        return rng.randrange(min(size, 160))
    return size - 1 - rng.randrange(min(size, 160)) if where < 0.5 else rng.randrange(size)


def _state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3).half(), "n": torch.tensor(7)}


def _write_safetensors(path: Path) -> None:
    write_weights(path, _state(), {"train_seed": "3", "method": "sam"})


def _write_pt(path: Path) -> None:
    torch.save({"state_dict": _state(), "epoch": 3, "name": "net"}, path)


def _write_legacy(path: Path) -> None:
    torch.save(_state(), path, _use_new_zipfile_serialization=False)


def _write_checkpoint(path: Path) -> None:
    write_checkpoint(path, {"trainer": {"model": _state(), "step": 3}, "epochs": [{"epoch": 1, "best": True}]})


def _write_chip(path: Path) -> None:
    model = torch.nn.Linear(4, 3)
    nr.DeviceNoise.from_profile("reram-wan-2022").program(model, seed=1).save(path)


def _images(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


def _write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, test_x=_images((3, 4, 4, 3)), test_y=np.arange(3), train_x=np.ones((2, 5)), train_y=np.arange(2))


def _write_npz_packed(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, x=np.linspace(0, 1, 30, dtype=np.float32).reshape(6, 5), y=np.arange(6))


def _idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def _write_mnist(path: Path, packed: bool = False) -> None:
    path.mkdir(parents=True)
    for kind, array in (("images-idx3", _images((4, 28, 28))), ("labels-idx1", _images((4,)))):
        content = _idx(array)
        (path / f"t10k-{kind}-ubyte{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)


def _cifar_records(labels: int) -> bytes:
    return b"".join(bytes([number] * labels) + _images((3072,)).tobytes() for number in range(3))


def _cifar_pickle(key: bytes) -> bytes:
    return pickle.dumps({b"data": _images((3, 3072)), key: [0, 1, 2], b"batch_label": b"testing batch"}, protocol=2)


def _write_cifar(path: Path, name: str, content: bytes) -> None:
    path.mkdir(parents=True)
    (path / name).write_bytes(content)


def _write_cifar_archive(path: Path, name: str, content: bytes) -> None:
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


def _write_corruption(path: Path) -> None:
    path.mkdir(parents=True)
    np.save(path / "fog.npy", _images((10, 32, 32, 3)))
    np.save(path / "labels.npy", np.arange(10))


def _write_images(path: Path) -> None:
    for number, extension in enumerate(("png", "jpg", "bmp", "webp")):
        file = path / f"class{number % 2}" / f"{number}.{extension}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_images((8, 6, 3))).save(file)


#: All readers of binary files: ``write_valid(path)`` writes a valid file or folder, ``read(path)`` reads it as the
#: package does. The key is what the file has to be called: readers go by the ending, so the path is ``folder / key``.
BINARY_READERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "weights.safetensors": (_write_safetensors, read_weights),
    "weights.pt": (_write_pt, read_weights),
    "legacy.pth": (_write_legacy, read_weights),
    "checkpoint.pt": (_write_checkpoint, read_checkpoint),
    "chip": (_write_chip, nr.Chip.load),
    "images.npz": (_write_npz, lambda path: load_npz(path, "test")),
    "features.npz": (_write_npz_packed, lambda path: load_npz(path, "train")),
    "mnist": (_write_mnist, lambda path: load_mnist(path, "test")),
    "mnist-gz": (lambda path: _write_mnist(path, packed=True), lambda path: load_mnist(path, "test")),
    "cifar10-binary": (
        lambda path: _write_cifar(path, "test_batch.bin", _cifar_records(1)),
        lambda path: load_cifar10(path, "test"),
    ),
    "cifar10-python": (
        lambda path: _write_cifar(path, "test_batch", _cifar_pickle(b"labels")),
        lambda path: load_cifar10(path, "test"),
    ),
    "cifar100-python": (
        lambda path: _write_cifar(path, "test", _cifar_pickle(b"fine_labels")),
        lambda path: load_cifar100(path, "test"),
    ),
    "cifar-10-binary.tar.gz": (
        lambda path: _write_cifar_archive(path, "cifar-10-batches-bin/test_batch.bin", _cifar_records(1)),
        lambda path: load_cifar10(path, "test"),
    ),
    "cifar-10-python.tar.gz": (
        lambda path: _write_cifar_archive(path, "cifar-10-batches-py/test_batch", _cifar_pickle(b"labels")),
        lambda path: load_cifar10(path, "test"),
    ),
    "cifar10-c": (_write_corruption, lambda path: load_cifar10_c(f"{path}/fog/3", "test")),
    "imagefolder": (_write_images, lambda path: load_imagefolder(path, "train")),
}
