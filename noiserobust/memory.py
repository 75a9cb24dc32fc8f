"""Short of memory: how it is told, and what can be given back before a smaller piece is tried."""

from __future__ import annotations

import gc
import sys

from noiserobust.errors import NoiseRobustError

# Of torch's allocators, of the libraries below it, and of C++.
_SAID = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "bad_alloc",
    "bad allocation",
    # cuDNN, for whose working memory there was no room with any of its ways to compute a convolution
    "unable to find an engine",
    "Unable to find a valid cuDNN algorithm",
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory was short, the machine's or a GPU's.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    """
    if isinstance(error, NoiseRobustError):  # what we say ourselves is said for good
        return False
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def first_line(error: BaseException) -> str:
    """Return what an error says first: allocators go on with statistics and advice."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def give_back() -> None:
    """Give back what an attempt has left: call it where its error, which holds its tensors, is gone."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
