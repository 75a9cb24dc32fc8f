"""What is recorded of a training, for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noiserobust.errors import InvalidValueError
from noiserobust.results.files import write_errors


class Board:
    """Writes samples as scalars ``split/quantity`` or ``split/quantity/level``.

    Args:
        folder: for the event files.

    Raises:
        InvalidValueError: if TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: F401
        except ImportError:
            raise InvalidValueError(
                "Expected tensorboard to be installed for `record.tensorboard`, but it is not; "
                "pip install 'noiserobust[tensorboard]'"
            ) from None
        self._folder = folder
        self._writer: Any = None

    def write(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a sample.

        Args:
            step: optimizer steps so far; later ones that were written before, by a run that was killed, are forgotten.
            rows: with split, quantity, level and value.
        """
        from torch.utils.tensorboard import SummaryWriter

        with write_errors(self._folder):
            if self._writer is None:
                self._writer = SummaryWriter(str(self._folder), purge_step=step)
            for row in rows:
                level = "" if math.isnan(row["level"]) else f"/{row['level']:g}"
                self._writer.add_scalar(f"{row['split']}/{row['quantity']}{level}", row["value"], step)
            self._writer.flush()
