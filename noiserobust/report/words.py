"""Enumerations and numbers of things, in words."""

from __future__ import annotations

from collections.abc import Iterable


def listed(items: Iterable[object], limit: int = 12) -> str:
    """Return items as an enumeration, the tail of a long one counted.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    names = [str(i) for i in items]
    if len(names) > limit:
        names = [*names[:limit], f"{len(names) - limit} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def plural(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> plural(1, "draw"), plural(3, "draw")
    ('1 draw', '3 draws')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
