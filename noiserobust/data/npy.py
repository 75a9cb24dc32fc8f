"""Arrays in NumPy's format, of which no more memory is taken than there are bytes."""

from __future__ import annotations

import math
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from noiserobust.untrusted import read_at_most


class PythonObjectsError(ValueError):
    """An array holds Python objects, which only unpickling would give."""


def read_npy(file: IO[bytes]) -> NDArray[Any]:
    """Read an array that is all the rest of a file.

    Args:
        file: at the beginning of the array's header.

    Raises:
        PythonObjectsError: if it holds Python objects.
        Exception: any other, if it is damaged, shorter or longer than its header says.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"format {version}, which is for records and not for numbers")
    if dtype.hasobject:
        raise PythonObjectsError("Python objects, which are not loaded")
    size = math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape):
        raise ValueError(f"shape {shape}")
    content = read_at_most(file, size + 1)  # one more: at its end a zip archive compares the checksum
    if len(content) != size:
        raise ValueError(
            f"{'more' if len(content) > size else len(content)} bytes in place of {size}, for {dtype} of shape {shape}"
        )
    array: NDArray[Any] = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
    return array
