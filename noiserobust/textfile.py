"""Text files of a bounded size: no pipes or devices, which may never end, nor bytes that are no text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from noiserobust.errors import InvalidValueError
from noiserobust.untrusted import open_file

LARGEST = 1 << 29
"""Bytes of a file that is read whole: about five million rows of draws."""

Line = tuple[int, list[str]]
"""A line of a table: its number in the file, and its cells."""


def read_bytes(path: Path, at_most: int = LARGEST) -> bytes:
    """Return the content of a regular file.

    Args:
        path: of the file, or a link to one.
        at_most: how many bytes it may have.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is a folder, a pipe or a device, is larger or cannot be read.
    """
    with open_file(path) as file:
        try:
            content = file.read(at_most + 1)
        except OSError as error:
            raise InvalidValueError(f"Expected {path} to be readable, but got: {error.strerror}") from None
    if len(content) > at_most:
        raise InvalidValueError(f"Expected {path} to have at most {at_most:,} bytes, but it has more")
    return content


def read_text(path: Path, wanted: str, at_most: int = LARGEST) -> str:
    """Return the text of a regular file, without a byte order mark; line ends are as they are.

    Args:
        path: of the file, or a link to one.
        wanted: what is expected of it, for the error: ``"to hold JSON"``.
        at_most: how many bytes it may have.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is a folder, a pipe or a device, is larger, cannot be read or is not text in UTF-8.
    """
    try:
        text = read_bytes(path, at_most).decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("characters with the code 0")
    except InvalidValueError:
        raise
    except ValueError as error:
        raise InvalidValueError(f"Expected {path} {wanted}, but got: {error}") from None
    return text


def read_cells(path: Path, wanted: str, *, lenient: bool = False) -> tuple[list[str], list[Line]]:
    """Return the header of comma-separated values, and their lines with as many cells each as the header has.

    Args:
        path: the file.
        wanted: what is expected of it, for the error.
        lenient: whether spaces after commas and empty lines are no mistake, as in files that people write.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is no text, has no header, a line has more or less cells or a quote never ends.
    """
    text = read_text(path, wanted)
    try:
        return _cells(csv.reader(StringIO(text, newline=""), strict=True, skipinitialspace=lenient), lenient=lenient)
    except (csv.Error, ValueError) as error:
        raise InvalidValueError(f"Expected {path} {wanted}, but got: {error}") from None


def _cells(lines: Iterator[list[str]], *, lenient: bool) -> tuple[list[str], list[Line]]:
    header = next(lines, [])
    if not header:
        raise ValueError("no header")
    rows = []
    for number, cells in enumerate(lines, start=2):
        # A line of one cell may be an empty one.
        cells = cells or ([""] if len(header) == 1 else [])
        if len(cells) == len(header):
            rows.append((number, cells))
        elif cells or not lenient:
            raise ValueError(f"{len(cells)} cells in line {number}, and {len(header)} names in the first line")
    return header, rows
