"""Being asked to end: Ctrl-C, the end of a terminal, and a system that wants its machine back are one thing to us."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKING = [n for name in ("SIGINT", "SIGTERM", "SIGHUP") if (n := getattr(signal, name, None)) is not None]
_BY_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)

_asked: list[int] = []  # the signals, since they are handled


class Ended(KeyboardInterrupt):
    """A signal has asked this process to end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status, as shells have it."""
        return 128 + self.number

    @property
    def said(self) -> str:
        """What has happened, in a word."""
        return "interrupted" if self.number == signal.SIGINT else "terminated"


@contextmanager
def endings() -> Iterator[None]:
    """Let the signals that ask for an end raise :class:`Ended` inside the block; a second one ends at once.

    Signals that somebody else handles or ignores, as `nohup` does, stay as they are, and so do all of them in a thread.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: h for n in _ASKING if (h := signal.getsignal(n)) in _BY_DEFAULT}

    def end(number: int, frame: FrameType | None) -> None:
        _asked.append(number)
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        if _is_importing(frame):  # where what is raised may be swallowed, or end in C++; there is nothing to tidy up
            os.write(2, f"noiserobust: {Ended(number).said}\n".encode())
            os._exit(Ended(number).status)
        raise Ended(number)

    unraisable = sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, Ended):  # which is heeded later
            unraisable(what)

    try:
        if before:
            sys.unraisablehook = dropped
        for number in before:
            signal.signal(number, end)
        yield
    except Exception as error:
        if _asked:  # callbacks of libraries make another error of it
            raise Ended(_asked[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            sys.unraisablehook = unraisable
            _asked.clear()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
        frame = frame.f_back
    return frame is not None


def heed() -> None:
    """Raise :class:`Ended` if a signal has asked for an end, and what was raised then got lost, as it may in a callback
    of a library; to be called between one piece of work and the next.
    """
    if _asked:
        raise Ended(_asked[0])


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, and never reach the processes that are started in it: it is given to
    all that a terminal runs, and who has started processes ends them.
    """
    mask = getattr(signal, "pthread_sigmask", None)
    if mask is None:
        yield
        return
    before = mask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        mask(signal.SIG_SETMASK, before)
