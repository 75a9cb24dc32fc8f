"""Work in a few threads, for functions that let go of Python's lock."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any


def in_threads(
    function: Callable[..., None], arguments: Iterable[tuple[Any, ...]], *, threads: int | None = None
) -> None:
    """Call a function with each of the arguments, several at a time; this thread takes part.

    Args:
        function: may be called by any thread.
        arguments: what each call gets.
        threads: how many, >= 1; by default as many as torch would use.
    """
    waiting = deque(arguments)

    def work() -> None:
        while True:
            try:
                given = waiting.popleft()
            except IndexError:
                return
            try:
                function(*given)
            except BaseException:
                waiting.clear()  # the others stop as well
                raise

    helpers = max(min(threads or _threads(), len(waiting)) - 1, 0)
    futures = [_pool().submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        for future in futures:
            if not future.cancel():  # one that has not begun has nothing left to do
                future.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(cores() - 1, 1), thread_name_prefix="noiserobust")


def _threads() -> int:
    torch = sys.modules.get("torch")
    return cores() if torch is None else int(torch.get_num_threads())


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
