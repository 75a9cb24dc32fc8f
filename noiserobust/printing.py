"""What reaches the terminal: text that can be seen. Names come from files that anybody may have written."""

from __future__ import annotations

from io import TextIOBase
from typing import TextIO

_LONGEST = 2000  # characters of an error: what was given may be a whole file

# Control characters, some of which move the cursor or rename the window, and those that turn the direction of writing.
_CODES = [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CODES if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    r"""Return a text in which control characters are written out, but for line breaks and tabs.

    >>> print(visible("a\x1b[31mb"))
    a\x1b[31mb
    """
    return text.translate(_VISIBLE)


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def error_line(error: Exception) -> str:
    """Return what is said of an error: one line of a bearable length that can be seen."""
    text = visible(one_line(str(error)))
    left = len(text) - _LONGEST
    return text if left <= 0 else f"{text[: _LONGEST - 500]} [... {left:,} characters ...] {text[-500:]}"


class Visible(TextIOBase):
    """Standard output in which control characters are written out.

    Args:
        stream: where it goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        self._stream.write(visible(text))
        return len(text)

    def flush(self) -> None:
        """Write what is still buffered."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return its number."""
        return self._stream.fileno()
