from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from report_folders import make_folder, make_rows


@pytest.fixture
def gaussian(tmp_path: Path) -> Path:
    """One small folder: SGD and SAM, three seeds, four draws."""
    rows = list(make_rows(["SGD", "SAM"], [0, 1, 2], "gaussian", "sigma", (0.0, 0.1, 0.2), 4))
    return make_folder(tmp_path / "gaussian", rows)


# Of a module, not of the session: while it is open, tests that run an event loop of their own would fail.
@pytest.fixture(scope="module")
def open_page() -> Iterator[browser.OpenPage]:
    """Opens pages in Chromium; see :class:`browser.OpenPage`."""
    reason = browser.missing()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"Expected a browser for the tests of the report, but {reason}")
    if reason:
        pytest.skip(reason)
    with browser.browser() as opener:
        yield opener
