"""Reading NumPy arrays and plain values from a pickle without running anything it asks for.

A pickle is a program. This one is run with stand-ins in place of NumPy's functions: they only note what they are given,
and every other function or class is refused. Arrays are then made from the notes, by the rules of this module.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiserobust.errors import InvalidValueError
from noiserobust.pickles import check_pickle


def load_pickled(content: bytes, name: str) -> dict[str, Any]:
    """Read a pickled dictionary of plain values and of uint8 arrays, written by Python 2 or 3 (protocols 0 to 4).

    Args:
        content: the pickle.
        name: of the file, for errors.

    Returns:
        The dictionary with strings as keys; strings of Python 2 among its values are bytes.

    Raises:
        InvalidValueError: if it holds anything else, or is damaged.
    """
    try:
        check_pickle(content)
        loaded = _Unpickler(content, name).load()
        if not isinstance(loaded, dict):
            raise TypeError(f"a pickled {type(loaded).__name__}")
        return {
            key.decode("latin1") if isinstance(key, bytes) else str(key): _array(value)
            if isinstance(value, _Array)
            else value
            for key, value in loaded.items()
        }
    except InvalidValueError:
        raise
    except Exception as error:  # any at all: pickles are programs, and these are their bugs
        raise InvalidValueError(f"Expected {name} to be a whole pickled dictionary, but got: {error}") from error


class _Noted:
    """Notes what it is made with and the state it is given."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Noted):
    """Stands for ``numpy.core.multiarray._reconstruct(...)``."""


class _Dtype(_Noted):
    """Stands for ``numpy.dtype(...)``."""


class _Kind(_Noted):
    """Stands for the class ``numpy.ndarray``, which is an argument only."""


class _Bytes(_Noted):
    """Stands for ``_codecs.encode(...)`` and becomes the bytes; a function could be given a state that would stay."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        # How Python 3 writes bytes for Python 2; another encoding would load a codec.
        if encoding != "latin1":
            raise ValueError(f"bytes in the encoding {encoding!r}")
        return text.encode("latin1")


_KNOWN: Mapping[tuple[str, str], Any] = MappingProxyType(
    {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Kind,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _Bytes,
    }
)


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise InvalidValueError(
                f"Expected {self._name} to hold plain values and NumPy arrays, but it asks for {module}.{name}, "
                "which is never run"
            )
        return _KNOWN[module, name]


def _array(noted: _Array) -> NDArray[np.uint8]:
    _, shape, dtype, fortran, content = noted.state
    code = dtype.arguments[0]
    if code not in ("u1", b"u1"):
        raise TypeError(f"an array of {code!r} in place of bytes (u1)")
    if not isinstance(content, bytes) or math.prod(shape) != len(content):
        raise ValueError(f"an array of shape {shape} with {len(content)} bytes")
    array: NDArray[np.uint8] = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")
    return array
