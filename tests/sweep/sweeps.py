"""Small sweeps for tests."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from noiserobust.cli.sweep import read as read  # as the command line does

GRID: dict[str, Any] = {
    "base": {
        "model": "digits-mlp",
        "data": "digits",
        "epochs": 2,
        "batch_size": 64,
        "optimizer": {"lr": 0.05},
        "select": {"draws": 1},
    },
    "grid": [{"method.name": "sgd"}, {"method": {"name": "rwp", "noise.level": [0.1, 0.2]}}],
    "seeds": [0, 1],
    "evaluate": {"gaussian": {"noise": "gaussian", "levels": [0, 0.1], "draws": 2}},
}


def written(path: Path, **changes: Any) -> Path:
    """Write the file of a small sweep; changes replace top-level keys, None removes them."""
    content = copy.deepcopy(GRID) | changes
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return path


def tables(out: Path) -> dict[str, bytes]:
    """Return the tables of all sweeps of a folder."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.glob("*/*.csv"))}
