from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from report_folders import PCM, make_folder, make_rich, make_rows

from noiserobust.report import Report, write_report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count tests of the report that takes twenty seconds among the slow ones."""
    for item in items:
        if "rich" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def gaussian(tmp_path: Path) -> Path:
    """One small folder: SGD and SAM, three seeds, four draws."""
    rows = list(make_rows(["SGD", "SAM"], [0, 1, 2], "gaussian", "sigma", (0.0, 0.1, 0.2), 4))
    return make_folder(tmp_path / "gaussian", rows)


# Of a session, for they take seconds; tests only read them.
@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report of two noises, one of them drift."""
    base = tmp_path_factory.mktemp("full")
    trained = (["SGD", "SAM"], [0, 1, 2])
    make_folder(base / "runs" / "g", list(make_rows(*trained, "gaussian", "sigma", (0.0, 0.1, 0.2), 3)))
    make_folder(base / "runs" / "p", list(make_rows(*trained, *PCM, 3)))
    return write_report([base / "runs"], base / "out")


@pytest.fixture(scope="session")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report of all that there can be on a page: see :func:`report_folders.make_rich`."""
    base = make_rich(tmp_path_factory.mktemp("rich"))
    return write_report([base / "results", base / "runs"], base / "out", spec=75, target=["0.2", "1d"], baseline="SGD")


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
