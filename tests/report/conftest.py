from __future__ import annotations

from pathlib import Path

import pytest
from report_folders import make_folder, make_rows


@pytest.fixture
def gaussian(tmp_path: Path) -> Path:
    """One small folder: SGD and SAM, three seeds, four draws."""
    rows = list(make_rows(["SGD", "SAM"], [0, 1, 2], "gaussian", "sigma", (0.0, 0.1, 0.2), 4))
    return make_folder(tmp_path / "gaussian", rows)
