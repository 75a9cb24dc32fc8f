"""Readers with a fault each, for tests that the harness of malformed files sees it."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiserobust.errors import InvalidValueError


@dataclass
class Reader:
    """As those of the harness, which take seconds to be imported."""

    make: Any
    read: Any
    share: int = 2
    binary: bool = False

    def files(self, folder: Path) -> list[Path]:
        return [folder / "file.csv"]


def _make(folder: Path) -> None:
    (folder / "file.csv").write_text("a,b\n1,2\n")


def _refuse(folder: Path, out: Path) -> None:
    raise InvalidValueError("Expected something else, but got this")


def _wait(folder: Path, out: Path) -> None:
    time.sleep(60)


def _stray(folder: Path, out: Path) -> None:
    (folder.parent / "stray").write_text("")


def _change(folder: Path, out: Path) -> None:
    (out.parent / "beside" / "draws.csv").write_text("mine")


def _own(folder: Path, out: Path) -> None:
    out.write_text("")


READERS = {
    "refuses": Reader(_make, _refuse),
    "reads": Reader(_make, _own),
    "raises": Reader(_make, lambda folder, out: 1 // 0),
    "exits": Reader(_make, lambda folder, out: exit(0)),
    "dies": Reader(_make, lambda folder, out: os._exit(3)),
    "waits": Reader(_make, _wait),
    "strays": Reader(_make, _stray),
    "changes": Reader(_make, _change),
}

OUTPUTS: dict[str, str] = {}
