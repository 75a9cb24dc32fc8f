"""What tests of several packages share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from matplotlib.figure import Figure

BLANK = {
    "svg": b'<svg viewBox="0 0 1 1" xmlns="http://www.w3.org/2000/svg"></svg>',
    "png": b"\x89PNG\r\n\x1a\n",
    "pdf": b"%PDF-1.4\n",
}


@contextlib.contextmanager
def nothing_rendered() -> Iterator[None]:
    """Have figures plotted but not laid out and rendered, which is most of the time that a report takes."""

    def save(self: Figure, file: Any, *, format: str, **how: Any) -> None:
        file.write(BLANK[format])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "draw_without_rendering", lambda self: None)
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture
def unrendered() -> Iterator[None]:
    """Render no figures: for tests of what else there is in a report; tests of figures are in ``tests/report``."""
    with nothing_rendered():
        yield


@pytest.fixture(scope="session")
def rendering_nothing() -> Callable[[], AbstractContextManager[None]]:
    """Return what renders no figures for a while, for fixtures that several tests share."""
    return nothing_rendered
