"""Forward passes over a data set: batches, device, precision, memory layout."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from noiserobust.data.arrays import ArrayData, from_arrays
from noiserobust.errors import InvalidValueError
from noiserobust.models.scores import class_scores, kind_of
from noiserobust.rng import Stream

Batch = tuple[Tensor, Tensor]
Around = Callable[[int], AbstractContextManager[Any]]
Data = ArrayData | DataLoader[Any] | tuple[Any, Any]
"""What can be evaluated on: arrays or tensors ``(x, y)``, or a loader of such batches."""


def pick_device(name: str) -> torch.device:
    """Return a device by name; ``"auto"`` is the first CUDA device if there is one, else the CPU.

    Raises:
        InvalidValueError: if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise NotImplementedError("it holds no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidValueError(
            f"Expected `device` to be auto, cpu or a device of this machine, but got {name!r}: {reason}"
        ) from None
    return device


@dataclass(frozen=True)
class Forward:
    """Runs models over one data set and counts right answers.

    Args:
        data: labelled examples; a loader is gone through anew for each pass.
        normalize: from stored values to network inputs.
        device: where to compute.
        precision: ``"fp32"`` (inputs are cast to the weights' own dtype), or ``"bf16"`` for autocast.
        batch_size: examples a pass through the network, for arrays; by default 100 on a CPU, where small batches stay
            in cache, and 1000 elsewhere.
    """

    data: ArrayData | DataLoader[Any]
    normalize: Callable[[Tensor], Tensor]
    device: torch.device
    precision: str = "fp32"
    batch_size: int | None = None

    def place(self, model: nn.Module) -> nn.Module:
        """Return a copy of a model in evaluation mode, on the device, convolutions channels-last."""
        placed = copy.deepcopy(model).eval().to(self.device)
        if any(isinstance(m, nn.Conv2d) for m in placed.modules()):
            placed = placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return placed

    def accuracy(self, model: nn.Module, around: Around = lambda batch: nullcontext()) -> tuple[float, int]:
        """Return the percentage of right answers of a placed model and the number of examples.

        Args:
            model: from :meth:`place`.
            around: returns a context for the pass of each batch, counted from 0.

        Raises:
            InvalidValueError: if the data do not fit the model.
        """
        right, undefined = torch.zeros((2,), dtype=torch.int64, device=self.device)
        total = 0
        dtype = _dtype(model)
        with torch.inference_mode(), self.autocast(), self._same_randomness():
            for number, (x, y) in enumerate(self._stored_batches()):
                # Labels are stored on the CPU: checking them waits for no device.
                with around(number):
                    output = class_scores(model, self._prepared(x, dtype), y)
                undefined += output.isnan().any(dim=1).sum()
                right += (output.argmax(dim=1) == y.to(self.device, non_blocking=True)).sum()
                total += len(y)
        if not total:
            raise InvalidValueError("Expected `data` to hold at least one example, but it is empty")
        if undefined:
            raise InvalidValueError(
                f"Expected the model's scores to be numbers, but they are NaN for {undefined.item()} of {total} "
                "examples; is the noise or the data out of all proportion?"
            )
        return 100.0 * right.item() / total, total

    def prepared(self, x: Tensor, model: nn.Module) -> Tensor:
        """Return stored inputs as a placed model takes them."""
        return self._prepared(x, _dtype(model))

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which passes have the precision."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def describe_data(self) -> dict[str, Any]:
        """Return the SHA-256 and the number of the examples; goes through a loader once."""
        if not isinstance(self.data, DataLoader):
            return {"sha256": self.data.sha256(), "n_examples": len(self.data)}
        digest, total = hashlib.sha256(), 0
        with self._same_randomness():
            for batch in self._stored_batches():
                total += len(batch[1])
                for tensor in batch:
                    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
                    digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return {"sha256": digest.hexdigest(), "n_examples": total}

    def _same_randomness(self) -> AbstractContextManager[Any]:
        # A loader that shuffles or augments has to do the same for every chip, or comparisons are not paired.
        return Stream(0, "loader").as_torch_default() if isinstance(self.data, DataLoader) else nullcontext()

    def _prepared(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        x = x.to(self.device, non_blocking=True)
        if x.is_floating_point() or x.dtype == torch.uint8:  # other integers are tokens
            x = self.normalize(x).to(dtype)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def _stored_batches(self) -> Iterable[Batch]:
        if isinstance(self.data, DataLoader):
            return map(_pair, self.data)
        # Split, not indexed: views cost nothing.
        size = self.batch_size or (100 if self.device.type == "cpu" else 1000)
        return zip(self.data.x.split(size), self.data.y.split(size), strict=True)


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def as_data(data: Data) -> ArrayData | DataLoader[Any]:
    """Return what can be evaluated on as checked arrays or a loader.

    Raises:
        InvalidValueError: if it is neither.
    """
    if isinstance(data, (ArrayData, DataLoader)):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return from_arrays(data[0], data[1], "data")
    raise InvalidValueError(f"Expected `data` to be (x, y) or a DataLoader, but got {type(data).__name__}")


def _pair(batch: Any) -> Batch:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(b, Tensor) for b in batch):
        got = kind_of(batch)
        raise InvalidValueError(f"Expected the batches of `data` to be pairs of tensors (x, y), but got {got}")
    x, y = batch
    if y.ndim != 1 or y.dtype == torch.bool or y.is_floating_point() or y.is_complex():
        raise InvalidValueError(
            f"Expected the labels of `data` to be integers of shape ({len(x)},), but got {kind_of(y)}, {y.dtype}"
        )
    return x, y
