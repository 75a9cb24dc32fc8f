"""Files from strangers: opened only if they are files, and unpacked only as far as is plausible."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from noiserobust.errors import InvalidValueError, MissingFileError

#: What is unpacked may be as large as this, or as many times as large as the packed file, whichever is more. Weights
#: and photographs shrink by less than half, drawings and zeros by more; a bomb of a few KB is to grow to many GB.
EXPANSION, FLOOR = 100, 2**30
_CHUNK = 1 << 20


def open_file(path: Path, what: str = "") -> BinaryIO:
    """Open a file for reading; never wait for the other end of a pipe, never read from a device.

    Args:
        path: the file, or a link to it.
        what: what it holds, as errors call it: ``weights``, ``data``; by default nothing is said of it.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is a folder, a pipe or a device, cannot be read, or has a name that is not UTF-8 and
            could not be written into results.
    """
    shown = str(path).encode(errors="backslashreplace").decode()
    named = f"{what} {shown}".lstrip()
    if shown != str(path):
        raise InvalidValueError(f"Expected the name of {named} to be UTF-8, but it is not")
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - it is the caller's
    except FileNotFoundError:
        raise MissingFileError(f"Expected a {f'{what} file'.lstrip()} {path}, but there is none") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if isinstance(error, IsADirectoryError) or os.path.isdir(path):
            raise InvalidValueError(f"Expected {named} to be a file, but it is a folder") from None
        reason = getattr(error, "strerror", None) or error
        raise InvalidValueError(f"Expected {named} to be readable, but got: {reason}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InvalidValueError(f"Expected {named} to be a file, but it is a pipe or a device")
    return file


def size_of(file: IO[Any]) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def version_of(file: IO[Any] | Path) -> tuple[int, ...]:
    """Return what changes when a file is written to, or another one gets its name."""
    found = os.stat(file) if isinstance(file, Path) else os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Readable(Protocol):
    """What bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""


def read_at_most(file: Readable, size: int) -> bytearray:
    """Read up to ``size`` bytes; the memory taken is that of what is there, not of what is asked for."""
    content = bytearray()
    while len(content) < size and (chunk := file.read(min(_CHUNK, size - len(content)))):
        content += chunk
    return content


def check_expansion(unpacked: int, packed: int, name: str) -> None:
    """Refuse a packed file that is (or says that it is) much larger when unpacked, before it takes memory.

    Args:
        unpacked: bytes.
        packed: bytes.
        name: of the file, for errors.

    Raises:
        InvalidValueError: if it is larger than :data:`FLOOR` and :data:`EXPANSION` times what is packed.
    """
    if unpacked > max(FLOOR, EXPANSION * packed):
        raise InvalidValueError(
            f"Expected {name} to unpack to at most {EXPANSION} times its {packed:,} bytes, but that takes "
            f"{unpacked / 2**30:,.1f} GiB or more; store what is meant unpacked"
        )


def unpacking(file: BinaryIO, name: str) -> Readable:
    """Return what gives the content of a gzip file, and an error when it becomes implausibly much.

    Args:
        file: opened to be read.
        name: of the file, for errors.
    """
    return _Bounded(gzip.GzipFile(fileobj=file), size_of(file), name)


class _Bounded:
    def __init__(self, file: Readable, packed: int, name: str) -> None:
        self._file, self._packed, self._name = file, packed, name
        self._given = 0

    def read(self, size: int, /) -> bytes:
        content = self._file.read(size)
        self._given += len(content)
        check_expansion(self._given, self._packed, self._name)
        return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
