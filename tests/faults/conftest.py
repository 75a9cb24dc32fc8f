"""What tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from commands import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Commands without the time of imports."""
    forks = Forks()
    yield forks
    forks.close()
