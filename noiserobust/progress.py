"""How far a long run is: a bar on a terminal, a line from time to time in a log."""

from __future__ import annotations

import math
import sys
from typing import Any

from tqdm import tqdm

_EVERY = 30.0  # seconds between lines
_LINE = "{n_fmt} of {total_fmt} {unit}s, {elapsed} elapsed, {remaining} left"


def progress_bar(total: int, unit: str, *, done: int = 0, shown: bool = True) -> Any:
    """Return a tqdm bar on standard error.

    Args:
        total: how many there are.
        unit: of what, one of them.
        done: how many are done before it starts.
        shown: whether there is anything to be seen.
    """
    if not shown or sys.stderr.isatty():
        return tqdm(total=total, initial=done, unit=unit, disable=not shown)
    # Nothing is said of what is done at once.
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        bar_format=_LINE,
        file=_Lines(),
        delay=_EVERY / 2,
        mininterval=_EVERY,
        maxinterval=math.inf,
        miniters=1,
    )


class _Lines:
    """Standard error, on which what would be drawn over and over again is written line by line."""

    def write(self, text: str) -> None:
        if line := text.strip("\r\n\x1b[A "):
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()
