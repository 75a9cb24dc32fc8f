"""How far a long run is: a bar on a terminal, a line from time to time in a log."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from noiserobust.log import quiet

_EVERY = 30.0  # seconds between lines
_LINE = "{n_fmt} of {total_fmt} {unit}s, {elapsed} elapsed, {remaining} left"

if TYPE_CHECKING:
    _Tqdm = tqdm[Any]
else:
    _Tqdm = tqdm


class Bar(_Tqdm):
    """A tqdm bar whose times are not those of the clock on the wall, which may be set while it is shown."""

    _time = property(lambda self: time.monotonic, lambda self, clock: None)


def progress_bar(total: int, unit: str, *, done: int = 0, shown: bool = True) -> Any:
    """Return a tqdm bar on standard error.

    Args:
        total: how many there are.
        unit: of what, one of them.
        done: how many are done before it starts.
        shown: whether there is anything to be seen; there is not where the command line has to be quiet.
    """
    shown = shown and not quiet()
    if not shown or sys.stderr.isatty():
        return Bar(total=total, initial=done, unit=unit, disable=not shown)
    # Nothing is said of what is done at once.
    return Bar(
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


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(0.26), duration(42), duration(200), duration(7500), duration(200000)
    ('0.3 s', '42 s', '3 min 20 s', '2 h 5 min', '2 d 8 h')
    """
    if seconds < 60:
        return f"{seconds:.1g} s" if seconds < 1 else f"{seconds:.0f} s"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    first = next(i for i, (length, _) in enumerate(units) if seconds >= length)
    (large, name), (small, part) = units[first], units[first + 1]
    count, rest = divmod(round(seconds / small) * small, large)
    return f"{count:.0f} {name} {rest // small:.0f} {part}" if rest else f"{count:.0f} {name}"
