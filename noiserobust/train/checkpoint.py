"""The state of an unfinished training on disk."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from noiserobust.errors import InvalidValueError
from noiserobust.models.formats import read_pickle
from noiserobust.results.files import write_atomic
from noiserobust.untrusted import open_file

CHECKPOINT_FILE = ".checkpoint.pt"


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, text and containers of them; whole or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    buffer = BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`write_checkpoint` wrote, without running anything in it.

    Raises:
        InvalidValueError: if it is something else.
    """
    try:
        with open_file(path, "checkpoint") as file:
            state = read_pickle(file, path)
    except (InvalidValueError, OSError) as error:
        raise not_a_checkpoint(path) from error
    if not isinstance(state, dict) or not {"trainer", "epochs"} <= state.keys():
        raise not_a_checkpoint(path)
    return state


def not_a_checkpoint(path: Path) -> InvalidValueError:
    """Return the error for a file that holds no state of a training."""
    return InvalidValueError(
        f"Expected {path} to hold the state of this training, but it does not, or is damaged; remove it to train the "
        "seed anew"
    )
