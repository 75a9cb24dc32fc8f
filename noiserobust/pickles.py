"""Following a pickle without making anything of it, to know what it takes before it is run.

A pickle is a program for a stack machine. Even one that makes nothing but tuples can take for ever: a tuple of twice
the tuple before, sixty times, is 200 bytes long, and its hash that of 2^60 parts; one in another in another, a million
times, overflows the stack; a place a billion places on in the memo takes memory for all of them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from pickle import UnpicklingError
from typing import BinaryIO, NamedTuple

_MOST_DEEP = 200
_MOST_SHARED = 10**6  # and as many again for each of
_PER_INSTRUCTION = 100
_MEMO = 2**20  # places, beside one an instruction
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}


class _Weight(NamedTuple):
    """What it takes to hash an object: its parts, all counted as often as they occur, and how deep they are nested."""

    parts: int = 1
    depth: int = 1


def check_pickle(content: BinaryIO | bytes) -> None:
    """Refuse a pickle that is damaged, or that takes much more time or memory than its length suggests.

    Args:
        content: the pickle; of a file, from where it stands to the end of the pickle.

    Raises:
        UnpicklingError: if it is.
    """
    try:
        _follow(content)
    except UnpicklingError:
        raise
    except Exception as error:  # instructions that are none, lengths beyond the end, nothing there to take
        raise UnpicklingError(str(error) or "a damaged pickle") from error


def _follow(content: BinaryIO | bytes) -> None:
    stack: list[_Weight | None] = []  # None is a mark
    memo: dict[int, _Weight] = {}
    shared = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if name.endswith("GET") or name == "DUP":
            weight = _top(stack) if name == "DUP" else memo[int(argument)]  # type: ignore[arg-type]
            stack.append(weight)
            shared += weight.parts
            if shared > _MOST_SHARED + _PER_INSTRUCTION * count:
                raise UnpicklingError("objects that contain one another many times over")
        elif name.endswith("PUT") or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else int(argument)  # type: ignore[arg-type]
            if place > _MEMO + count:
                raise UnpicklingError(f"an object remembered in place {place:,}")
            memo[place] = _top(stack)
        elif name == "MARK":
            stack.append(None)
        elif name == "POP" and stack[-1] is None:
            stack.pop()
        else:
            taken = list(_taken(opcode, stack))
            weight = _Weight()
            if name in _TUPLES:
                weight = _Weight(1 + sum(w.parts for w in taken), 1 + max((w.depth for w in taken), default=0))
                if weight.depth > _MOST_DEEP:
                    raise UnpicklingError("tuples nested too deeply")
            stack += [weight] * len(opcode.stack_after)


def _top(stack: list[_Weight | None]) -> _Weight:
    weight = stack[-1]
    if weight is None:
        raise UnpicklingError("a mark in place of an object")
    return weight


def _taken(opcode: pickletools.OpcodeInfo, stack: list[_Weight | None]) -> Iterator[_Weight]:
    """Take what an instruction takes from the stack."""
    number = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        while (weight := stack.pop()) is not None:
            yield weight
        number = opcode.stack_before.index(pickletools.markobject)
    for _ in range(number):
        yield _top(stack)
        stack.pop()
