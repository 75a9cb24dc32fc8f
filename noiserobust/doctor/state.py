"""How it is with a thing that was tried."""

from __future__ import annotations

from typing import Any

Found = tuple[str, dict[str, Any]]


class State(Exception):
    """How it is with a thing that does not simply work.

    Args:
        state: limited, fails, absent or untried.
        text: why.
        details: in numbers.
    """

    def __init__(self, state: str, text: str, /, **details: Any) -> None:
        super().__init__(text)
        self.state = state
        self.details = details
