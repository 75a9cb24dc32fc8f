"""Writing and reading small files so that nobody ever reads half of one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from noiserobust.errors import InvalidValueError, OutputError
from noiserobust.textfile import read_text

_LARGEST_JSON = 1 << 26  # bytes
_DEEPEST = 64


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder and their like inside the block into an :class:`OutputError`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"Expected to be able to write {path}, but got: {error.strerror or error}") from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents, check that files can be written there, and return it.

    Raises:
        OutputError: if it is a file or cannot be created or written to.
    """
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    return path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, make it durable, and give it its name.

    Raises:
        OutputError: if it cannot be written; what stood at ``path`` before is then untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():  # a terminal, a pipe: nothing to be replaced
        with write_errors(path), open(path, "wb", opener=_open_at_once) as file:
            os.set_blocking(file.fileno(), True)
            file.write(data)
        return
    with write_errors(path), replacing(path) as temporary:
        temporary.write_bytes(data)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody reads is an error, and not waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success make it durable and rename it to ``path``.

    On any error the temporary file is removed and what stood at ``path`` before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_left_over(folder: Path) -> None:
    """Remove what a kill has left of :func:`replacing` in a folder that nobody else writes to, and in those within."""
    with write_errors(folder):
        for depth in ("", "*/"):
            for path in folder.glob(f"{depth}.*.tmp"):
                if path.name.split(".")[-2].isdecimal():
                    path.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON, indented, keys in the order given, atomically. NaN is refused."""
    write_atomic(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is not JSON, a name occurs twice in one place, a number is none that we write, or it is
            nested too deep for those who compare and write what was read.
    """
    text = read_text(path, "to hold JSON", at_most=_LARGEST_JSON)
    try:
        content = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        _check_depth(content)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"Expected {path} to hold JSON, but got: {error}") from None
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(text)


def _check_depth(content: object) -> None:
    level = [content]
    for _ in range(_DEEPEST):
        level = [v for x in level if isinstance(x, (dict, list)) for v in (x.values() if isinstance(x, dict) else x)]
    if level:
        raise ValueError(f"lists and objects in each other, more than {_DEEPEST} deep")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits."""
    with path.open("rb") as file:
        return sha256_of(file)


def sha256_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of an open file, from where it stands to its end, as hexadecimal digits."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
