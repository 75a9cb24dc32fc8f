"""The state of an unfinished training on disk."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from noiserobust.errors import InvalidValueError
from noiserobust.results.files import write_atomic

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
        with ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch does not look at the checksums itself
                raise not_a_checkpoint(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, BadZipFile, pickle.UnpicklingError) as error:
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
