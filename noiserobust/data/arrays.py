"""Labelled data held as two tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from noiserobust.errors import InvalidValueError, check_number
from noiserobust.rng import Stream

#: Data sets are held in memory as a whole; larger ones (16 GiB) are refused before they are read.
MEMORY_LIMIT = 16 * 2**30
_CHUNK = 4096


@dataclass(frozen=True, eq=False, repr=False)
class ArrayData:
    """Inputs and their labels.

    Args:
        x: N x C x H x W images or N x F features, uint8 (0 to 255) or float32 (finite), N, C, ... >= 1.
        y: N labels >= 0, int64.
        name: where the data come from, for errors and reports.
        classes: names of the labels 0, 1, ..., if known.

    Raises:
        InvalidValueError: if any of this does not hold.
    """

    x: Tensor
    y: Tensor
    name: str
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        x, y, name = self.x, self.y, self.name
        for key, value in (("x", x), ("y", y)):
            if not isinstance(value, Tensor):
                raise InvalidValueError(f"Expected `{key}` of {name} to be a tensor, but got {type(value).__name__}")
        if x.ndim not in (2, 4) or 0 in x.shape:
            raise InvalidValueError(
                f"Expected `x` of {name} to be N x C x H x W images or N x F features, none of them 0, "
                f"but got shape {tuple(x.shape)}"
            )
        if x.dtype not in (torch.uint8, torch.float32):
            raise InvalidValueError(f"Expected `x` of {name} to be uint8 or float32, but got {x.dtype}")
        if y.dtype != torch.int64 or y.shape != x.shape[:1]:
            raise InvalidValueError(
                f"Expected `y` of {name} to be {len(x)} labels (one for each x) of dtype int64, "
                f"but got shape {tuple(y.shape)}, {y.dtype}"
            )
        if x.is_floating_point() and not all(bool(torch.isfinite(part).all()) for part in torch.split(x, _CHUNK)):
            raise InvalidValueError(f"Expected `x` of {name} to be finite, but it holds NaN or infinity")
        if int(y.min()) < 0:
            raise InvalidValueError(f"Expected `y` of {name} to be labels >= 0, but got {int(y.min())}")
        if self.classes is not None and int(y.max()) >= len(self.classes):
            raise InvalidValueError(
                f"Expected `y` of {name} to be below its {len(self.classes)} classes, but got {int(y.max())}"
            )

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"ArrayData(name={self.name!r}, x={tuple(self.x.shape)} {self.x.dtype}, classes={self.classes})"

    def sha256(self) -> str:
        """Return the SHA-256 over dtype, shape and values of ``x`` and ``y``, the same for every memory layout."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.y):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
            # In parts, so that another layout costs no second copy of everything.
            for part in torch.split(tensor, _CHUNK):
                digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def subset(self, indices: Sequence[int] | Tensor) -> ArrayData:
        """Return the examples at ``indices`` (integers, 0 <= i < N), in that order.

        Raises:
            InvalidValueError: if an index is out of range or there are none.
        """
        try:
            chosen = torch.as_tensor(indices, device=self.y.device)
        except (TypeError, ValueError, RuntimeError):
            chosen = torch.empty(0)
        if (
            chosen.ndim != 1
            or not len(chosen)
            or chosen.is_floating_point()
            or chosen.dtype == torch.bool
            or int(chosen.min()) < 0
            or int(chosen.max()) >= len(self)
        ):
            raise InvalidValueError(
                f"Expected `indices` to be integers from 0 to {len(self) - 1}, at least one, but got {indices!r}"
            )
        return ArrayData(self.x[chosen], self.y[chosen], self.name, self.classes)

    def split(self, fraction: float, stream: Stream) -> tuple[ArrayData, ArrayData]:
        """Split off a random part in which the classes are represented as in the whole.

        Args:
            fraction: share of the part to hold out, 0 < fraction < 1; it gets ``round(fraction * N)`` examples, and of
                each class its share, rounded up or down.
            stream: the same stream gives the same split.

        Returns:
            The rest and the part held out, both in the original order.

        Raises:
            InvalidValueError: if the fraction is out of range or leaves a part empty.
        """
        check_number("fraction", fraction, above=0)
        count = round(fraction * len(self))
        if not 0 < count < len(self):
            raise InvalidValueError(
                f"Expected the fraction of {self.name} ({len(self)} examples) that is held out to leave both parts "
                f"non-empty, but got {fraction!r}"
            )
        labels = self.y.cpu().numpy()
        classes, sizes = np.unique(labels, return_counts=True)
        # Largest remainders: every class gets its share rounded down, those that lost most one more.
        shares = sizes * (count / len(self))
        quotas = np.floor(shares).astype(np.int64)
        quotas[np.argsort(quotas - shares, kind="stable")[: count - quotas.sum()]] += 1
        held = np.zeros(len(self), dtype=bool)
        for label, quota in zip(classes.tolist(), quotas.tolist(), strict=True):
            members = np.flatnonzero(labels == label)
            held[members[stream.child(label).permutation(len(members))[:quota]]] = True
        return (
            self.subset(torch.from_numpy(np.flatnonzero(~held))),
            self.subset(torch.from_numpy(np.flatnonzero(held))),
        )


def from_arrays(x: object, y: object, name: str) -> ArrayData:
    """Build :class:`ArrayData` from NumPy arrays or tensors of any float and any integer dtype.

    Raises:
        InvalidValueError: if they are something else, or do not make an :class:`ArrayData`.
    """
    inputs, labels = _tensor("x", x, name), _tensor("y", y, name)
    if inputs.is_floating_point():
        inputs = inputs.float()
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InvalidValueError(f"Expected `y` of {name} to be integer labels, but got {labels.dtype}")
    return ArrayData(inputs, labels.long(), name)


def check_memory(size: int, name: str) -> None:
    """Refuse data that need more than :data:`MEMORY_LIMIT` bytes.

    Raises:
        InvalidValueError: if ``size`` (bytes) is larger.
    """
    if size > MEMORY_LIMIT:
        raise InvalidValueError(
            f"Expected {name} to fit into {MEMORY_LIMIT / 2**30:g} GiB of memory, but it needs {size / 2**30:.1f} GiB; "
            "pass a callable that returns a DataLoader instead"
        )


def _tensor(key: str, value: object, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        try:
            # torch takes neither negative strides nor foreign byte orders nor read-only memory
            # without a warning.
            native = np.require(value, value.dtype.newbyteorder("="), ["C", "W"])
            return torch.from_numpy(native)
        except TypeError:
            pass
    got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise InvalidValueError(f"Expected `{key}` of {name} to be an array of numbers or a tensor, but got {got}")
