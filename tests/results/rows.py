"""Rows of draws for the tests of results."""

from __future__ import annotations

from typing import Any


def row(train_seed: int = 0, level: float = 0.1, draw: int = 0, value: float = 90.0, **more: Any) -> dict[str, Any]:
    """Return one row of ``draws.csv``."""
    return {
        "method": "sgd",
        "train_seed": train_seed,
        "weights": f"seed{train_seed}.safetensors",
        "noise": "gaussian",
        "level_name": "sigma",
        "level": level,
        "draw": draw,
        "metric": "accuracy",
        "value": value,
        "n_examples": 797,
        **more,
    }
