"""What all tests of hostile files share: an end to reading that takes for ever."""

import signal

import pytest

SECONDS = 60


@pytest.fixture(autouse=True)
def _no_hang():
    def end(*_):
        raise TimeoutError(f"reading took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def untouched(tmp_path):
    """Return a folder for hostile files; nothing may have appeared beside or above it in the end."""
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    yield folder
    assert [p.name for p in tmp_path.iterdir()] == ["outer"]
    assert [p.name for p in (tmp_path / "outer").iterdir()] == ["inner"]
