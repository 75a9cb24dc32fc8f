"""What tests of several packages share."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

BLANK = {
    "svg": b'<svg viewBox="0 0 1 1" xmlns="http://www.w3.org/2000/svg"></svg>',
    "png": b"\x89PNG\r\n\x1a\n",
    "pdf": b"%PDF-1.4\n",
}


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have figures plotted but not laid out and rendered, which is most of the time that a report takes.

    For tests of what else there is in a report; tests of figures are in ``tests/report``.
    """
    leave_unrendered(monkeypatch)


def leave_unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do that until what is patched is undone."""

    def save(self: Figure, file: Any, *, format: str, **how: Any) -> None:
        file.write(BLANK[format])

    monkeypatch.setattr(Figure, "draw_without_rendering", lambda self: None)
    monkeypatch.setattr(Figure, "savefig", save)
