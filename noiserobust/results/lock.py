"""One writer at a time: a lock on a folder that the system takes back when its holder ends, however it ends."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from pathlib import Path

from noiserobust.errors import OutputError
from noiserobust.results.files import write_errors

LOCK_FILE = ".lock"


class InUseError(OutputError):
    """Another process is writing to the folder."""


class FolderLock:
    """Exclusive use of a folder, until :meth:`release`, garbage collection or the end of the process.

    The empty file ``.lock`` stays: were it removed, two processes could each hold a lock on a file of that name. Where
    the system has no such locks (Windows, some network file systems) nothing is locked.

    Args:
        folder: an existing folder.

    Raises:
        InUseError: if another process, or another object of this one, holds the lock.
        OutputError: if ``.lock`` cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_FILE
        with write_errors(path):
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._release = weakref.finalize(self, _release, file, os.getpid())
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock

            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            self.release()
            raise InUseError(
                f"Expected `out` to be used by one process at a time, but another is writing to {folder}"
            ) from None
        except (ImportError, OSError):  # Windows, or a file system without locks
            pass

    def release(self) -> None:
        """Let others use the folder; a second call does nothing."""
        self._release()


def in_use(folder: Path) -> bool:
    """Return whether a process holds the lock on a folder, which this looks at without taking it."""
    try:
        from fcntl import LOCK_NB, LOCK_SH, flock

        file = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except (ImportError, OSError):
        return False
    try:
        flock(file, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _release(file: int, owner: int) -> None:
    # Forked workers share the lock: one that ends must not give it away, and one that lives on must not keep it.
    if os.getpid() == owner:
        with suppress(ImportError, OSError):
            from fcntl import LOCK_UN, flock

            flock(file, LOCK_UN)
    os.close(file)
