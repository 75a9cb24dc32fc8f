"""Passes over a data set: batches, device, memory layout, what is measured of the outputs."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from noiserobust.data.arrays import ArrayData, from_arrays
from noiserobust.errors import InvalidValueError, OutOfMemoryError
from noiserobust.evaluate.metrics import METRICS, Metric, batch_sums
from noiserobust.evaluate.networks import Network, as_it_is, fastest
from noiserobust.memory import first_line, give_back, out_of_memory
from noiserobust.models.scores import class_scores, kind_of, outputs
from noiserobust.noise.sites import Site
from noiserobust.rng import Stream

_log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

Batch = tuple[Any, Any]
"""Inputs, a tensor or a dictionary of arguments, and targets."""

Around = Callable[[int], AbstractContextManager[Any]]
Data = ArrayData | DataLoader[Any] | tuple[Any, Any]
"""What can be evaluated on: arrays or tensors ``(x, y)``, or a loader of such batches or of dictionaries."""

LABELS = "labels"


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


@dataclass
class Room:
    """How many examples fit into memory at a time, as far as is known.

    Args:
        examples: no more than these; infinite as long as memory has not been short.
    """

    examples: float = math.inf


@dataclass(frozen=True)
class Forward:
    """Runs networks over one data set and measures their outputs.

    Args:
        data: labelled examples; a loader is gone through anew for each pass.
        normalize: from stored values to network inputs.
        device: where to compute.
        precision: ``"fp32"`` (inputs are cast to the weights' own dtype), or ``"bf16"``.
        batch_size: examples a pass through the network, for arrays; by default 100.
        metrics: what is measured.
        at_most: after how many examples a loader is left, at the end of a batch; by default after all.
        room: what is known of memory; shared by the copies that :func:`dataclasses.replace` makes.
    """

    data: ArrayData | DataLoader[Any]
    normalize: Callable[[Tensor], Tensor]
    device: torch.device
    precision: str = "fp32"
    batch_size: int | None = None
    metrics: tuple[Metric, ...] = (METRICS["accuracy"],)
    at_most: int | None = None
    room: Room = field(default_factory=Room, compare=False, repr=False)

    def place(self, model: nn.Module, *, own: bool = False) -> nn.Module:
        """Return a model in evaluation mode, on the device, convolutions channels-last: a copy unless it is our own."""
        placed = (model if own else copy.deepcopy(model)).eval().to(self.device)
        if any(isinstance(m, nn.Conv2d) for m in placed.modules()):
            placed = placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return placed

    def network(self, model: nn.Module, sites: Sequence[Site] = ()) -> Network:
        """Return a placed model as it is run: with sites, the noisy weights, the fastest way; else as it is."""
        if not sites:
            return as_it_is(model, self.precision)
        return self._fitting(lambda: fastest(model, sites, self.precision, self._few))

    def measure(self, network: Network, around: Around | None = None) -> tuple[dict[str, float], int]:
        """Return the value of each metric by name, and the number of examples.

        Where memory is short, batches are halved until they fit, and stay so.

        Args:
            network: from :meth:`network`.
            around: returns a context for the pass of each batch, counted from 0; the results then depend on the size of
                batches, which stays as it is.

        Raises:
            InvalidValueError: if the data do not fit the model, or the model's outputs a metric.
            OutOfMemoryError: if not even one example fits into memory.
        """
        return self._fitting(lambda: self._measured(network, around), may_halve=around is None)

    def _measured(self, network: Network, around: Around | None) -> tuple[dict[str, float], int]:
        sums: list[tuple[Tensor, Tensor]] = []
        undefined, examples = torch.zeros((), dtype=torch.int64, device=self.device), 0
        classifies = any(metric.classifies for metric in self.metrics)
        with torch.inference_mode(), network.precision(), self._same_randomness():
            for number, (x, y) in enumerate(self._stored_batches()):
                with around(number) if around else nullcontext():
                    output = outputs(network, self._prepared(x, network.dtype))
                if classifies:
                    scores = class_scores(output, y)
                    undefined += scores.isnan().any(dim=1).sum()
                target = _to(y, self.device)
                found = [batch_sums(m, scores if m.classifies else output, target) for m in self.metrics]
                # The metrics' sums stay on the device: nothing waits for it before the end.
                sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, found, strict=True)] if sums else found
                examples += _length(x, y)
                if self.at_most is not None and examples >= self.at_most:
                    break
        if not examples:
            raise InvalidValueError("Expected `data` to hold at least one example, but it is empty")
        _check_defined(undefined, examples)
        return {m.name: m.value(*s) for m, s in zip(self.metrics, sums, strict=True)}, examples

    def each(self, network: Network, value: Callable[[Tensor, Tensor], Tensor], examples: Tensor) -> Tensor:
        """Return a value of each of some examples of arrays, in their order, on the CPU.

        Args:
            network: from :meth:`network`; of classes.
            value: returns the values of a batch, shape (N, ...), given scores (N, classes) and labels (N,).
            examples: which of the data.

        Raises:
            InvalidValueError: if the data do not fit the model, or a value is not finite.
            OutOfMemoryError: if not even one of them fits into memory.
        """
        return self._fitting(lambda: self._each(network, value, examples))

    def _each(self, network: Network, value: Callable[[Tensor, Tensor], Tensor], examples: Tensor) -> Tensor:
        assert isinstance(self.data, ArrayData)
        everything = torch.equal(examples, torch.arange(len(self.data)))  # not copied
        chosen = self if everything else replace(self, data=self.data.subset(examples))
        found, undefined = [], torch.zeros((), dtype=torch.int64, device=self.device)
        with torch.inference_mode(), network.precision():
            for x, y in chosen._stored_batches():
                scores = class_scores(outputs(network, self._prepared(x, network.dtype)), y)
                undefined += scores.isnan().any(dim=1).sum()
                found.append(value(scores, y.to(self.device)))
        _check_defined(undefined, len(examples))
        values = torch.cat(found).cpu()
        if not values.isfinite().all():
            raise InvalidValueError(
                f"Expected {', '.join(m.name for m in self.metrics)} to be a finite number for each example, but got "
                f"{values[~values.isfinite()][0]}; is the noise or the data out of all proportion?"
            )
        return values

    def batches(self, model: nn.Module) -> Iterator[tuple[Any, Any, int]]:
        """Yield inputs as a placed model takes them, targets on the device, and the number of examples of each batch.

        A loader that shuffles draws from torch's global generator.
        """
        dtype = as_it_is(model, "fp32").dtype
        for x, y in self._stored_batches():
            yield self._prepared(x, dtype), _to(y, self.device), _length(x, y)

    def prepared(self, x: Tensor, model: nn.Module) -> Any:
        """Return stored inputs as a placed model takes them."""
        return self._prepared(x, as_it_is(model, "fp32").dtype)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which passes of a placed model have the precision."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def describe_data(self) -> dict[str, Any]:
        """Return the SHA-256 and the number of the examples; goes through a loader once."""
        if not isinstance(self.data, DataLoader):
            return {"sha256": self.data.sha256(), "n_examples": len(self.data)}
        digest, total = hashlib.sha256(), 0
        with self._same_randomness():
            for x, y in self._stored_batches():
                total += _length(x, y)
                for tensor in (*_tensors(x), *_tensors(y)):
                    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
                    digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return {"sha256": digest.hexdigest(), "n_examples": total}

    @property
    def _at_a_time(self) -> int:
        """Examples a pass, of arrays."""
        return int(min(self.batch_size or 100, self.room.examples))

    def _fitting(self, run: Callable[[], ResultT], *, may_halve: bool = True) -> ResultT:
        """Return what a function returns; where memory is short for it, it is run again with batches half as large."""
        while True:
            try:
                return run()
            except Exception as error:
                if not out_of_memory(error):
                    raise
                short = first_line(error)
            # Here, where the error and the tensors of its frames are gone.
            give_back()
            self._halve(short, may_halve)

    def _halve(self, short: str, may_halve: bool) -> None:
        if isinstance(self.data, DataLoader):
            raise OutOfMemoryError(
                f"Expected a batch of the loader to fit into the memory of {self.device}, but got: {short}; give the "
                "DataLoader a smaller `batch_size`"
            )
        size = self._at_a_time
        if not may_halve or size == 1:
            what = "one example at a time" if size == 1 else f"`batch_size` {size}, on which the results depend,"
            raise OutOfMemoryError(f"Expected {what} to fit into the memory of {self.device}, but got: {short}")
        self.room.examples = size // 2
        _log.warning(
            "memory of %s is short for batches of %d, going on with %d: %s", self.device, size, size // 2, short
        )

    def _few(self, dtype: torch.dtype) -> list[Any]:
        """Return batches of the first inputs, on the device."""
        with self._same_randomness():
            x, _ = next(iter(self._stored_batches()))
        most = self._at_a_time
        return [self._prepared(_first(x, n), dtype) for n in (min(32, most), min(3, most))]

    def _same_randomness(self) -> AbstractContextManager[Any]:
        # A loader that shuffles or augments has to do the same for every chip, or comparisons are not paired.
        return Stream(0, "loader").as_torch_default() if isinstance(self.data, DataLoader) else nullcontext()

    def _prepared(self, x: Any, dtype: torch.dtype) -> Any:
        if isinstance(x, Mapping):
            if str(self.normalize) != "none":
                raise InvalidValueError(
                    f"Expected `normalize` to be none for batches that are dictionaries, but got {self.normalize}"
                )
            moved = {name: _to(value, self.device) for name, value in x.items()}
            return {n: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in moved.items()}
        x = x.to(self.device, non_blocking=True)
        if x.is_floating_point() or x.dtype == torch.uint8:  # other integers are tokens
            x = self.normalize(x).to(dtype)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def _stored_batches(self) -> Iterable[Batch]:
        if isinstance(self.data, DataLoader):
            return map(_pair, self.data)
        size = self._at_a_time  # split, not indexed: views cost nothing
        return zip(self.data.x.split(size), self.data.y.split(size), strict=True)


def as_data(
    data: Data, metrics: Sequence[Metric] = (METRICS["accuracy"],), batch_size: int | None = None
) -> ArrayData | DataLoader[Any]:
    """Return what can be evaluated on as checked arrays or a loader.

    Args:
        data: arrays, or a loader.
        metrics: what will be measured: where nothing is classified, targets may be anything.
        batch_size: of the loader of such targets.

    Raises:
        InvalidValueError: if it is neither.
    """
    if isinstance(data, (ArrayData, DataLoader)):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        x, y = data
        if not any(m.classifies for m in metrics) and all(isinstance(v, (Tensor, np.ndarray)) and v.ndim for v in data):
            x, y = torch.as_tensor(x), torch.as_tensor(y)
            if len(x) != len(y):
                raise InvalidValueError(f"Expected as many targets as inputs in `data`, but got {len(y)} and {len(x)}")
            return DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=batch_size or 100)
        return from_arrays(x, y, "data")
    raise InvalidValueError(f"Expected `data` to be (x, y) or a DataLoader, but got {type(data).__name__}")


def _check_defined(undefined: Tensor, examples: int) -> None:
    if undefined:
        raise InvalidValueError(
            f"Expected the model's scores to be numbers, but they are NaN for {undefined.item()} of {examples} "
            "examples; is the noise or the data out of all proportion?"
        )


def _pair(batch: Any) -> Batch:
    if isinstance(batch, Mapping) and any(isinstance(value, Tensor) for value in batch.values()):
        # What a network of a library takes by name; its labels are the target, without them all of it is.
        return {name: value for name, value in batch.items() if name != LABELS}, batch.get(LABELS, batch)
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(b, Tensor) for b in batch):
        raise InvalidValueError(
            f"Expected the batches of `data` to be pairs of tensors (x, y) or dictionaries, but got {kind_of(batch)}"
        )
    return batch[0], batch[1]


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _to(part, device) for name, part in value.items()}
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _tensors(value: Any) -> list[Tensor]:
    values = [value[name] for name in sorted(value)] if isinstance(value, Mapping) else [value]
    return [v for v in values if isinstance(v, Tensor)]


def _first(value: Any, number: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _first(part, number) for name, part in value.items()}
    return value[:number] if isinstance(value, Tensor) and value.ndim else value


def _length(x: Any, y: Any) -> int:
    """Return the number of examples: the length of a target, or that of most tensors in a dictionary."""
    if isinstance(y, Tensor) and y.ndim:
        return len(y)
    lengths = [len(tensor) for tensor in _tensors(x) if tensor.ndim]
    return max(set(lengths), key=lengths.count) if lengths else 1
