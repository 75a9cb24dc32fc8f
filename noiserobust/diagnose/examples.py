"""The examples that losses and gradients are taken on: the same in each pass, and whole batches of a wanted size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.diagnose import probe
from noiserobust.diagnose.probe import Batch, Gradient, Loss, class_loss, looked_at, loss_and_gradient, loss_of, trained
from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.evaluate.api import make_forward
from noiserobust.evaluate.forward import Data, Forward
from noiserobust.evaluate.metrics import METRICS, Metric, parse_metrics
from noiserobust.rng import Stream

T = TypeVar("T")


def loss_metric(loss: Loss = class_loss) -> Metric:
    """Return the mean loss over examples as a metric of an evaluation.

    Args:
        loss: returns the mean loss of a batch, given outputs and targets; by default the cross-entropy.
    """
    if loss is class_loss:
        return METRICS["loss"]
    return replace(parse_metrics([loss])[0], name="loss", sums=_Sums(loss))


@dataclass(frozen=True)
class _Sums:
    """Sum and count of a mean loss; an object, since other processes have to be sent it."""

    loss: Loss

    def __call__(self, output: Any, target: Any) -> tuple[Any, int]:
        first = next((v for v in (target, output) if isinstance(v, Tensor) and v.ndim), None)
        number = 1 if first is None else len(first)
        return self.loss(output, target) * number, number


def loss_forward(
    data: Data, loss: Loss, normalize: str | Normalize, device: str, batch_size: int | None, precision: str = "fp32"
) -> Forward:
    """Return what runs networks over data of which the loss is wanted.

    Raises:
        InvalidValueError: if an argument is not valid.
    """
    if not callable(loss):
        raise InvalidValueError(f"Expected `loss` to be a function of outputs and targets, but got {loss!r}")
    return make_forward(data, normalize, device, precision, batch_size, [loss_metric(loss)])


def in_batches(
    forward: Forward, data: Data, m: int | None, batches: int | None, seed: int, *, otherwise: int | None = None
) -> Forward:
    """Return what goes over batches of ``m`` examples that are drawn at random, without those that are left over.

    Args:
        forward: over the data.
        data: as they were given: arrays, or a loader, whose own batches are taken as they come.
        m: examples a batch, >= 1; None leaves the batches of a loader as they are.
        batches: how many at most, >= 1; by default all. Of arrays that are left as they are there are none to choose.
        seed: root seed of the order; the same batches for all networks.
        otherwise: examples a batch of arrays if ``m`` is None; by default those are left as they are too.

    Raises:
        InvalidValueError: if an argument is out of range, batches of a loader are asked to be of another size, or
            some of the batches of arrays without their size.
    """
    if m is not None:
        check_integer("m", m, minimum=1)
    if batches is not None:
        check_integer("batches", batches, minimum=1)
    check_integer("seed", seed, minimum=0)
    if isinstance(data, DataLoader):
        if m is not None:
            raise InvalidValueError("Expected `m` to be left out with a DataLoader, which has batches of its own")
        return forward
    m = otherwise if m is None else m
    if m is None:
        if batches is not None:
            raise InvalidValueError(f"Expected `batches` with `m` or a DataLoader only, but got {batches} without")
        return forward
    x, y = _arrays(forward.data)
    if not len(y):
        raise InvalidValueError("Expected `data` to hold at least one example, but it is empty")
    whole = max(len(y) // m, 1)  # too few for one batch are one
    chosen = min(whole, batches or whole) * m
    order = torch.from_numpy(Stream(seed, "diagnose", "batches").permutation(len(y))[:chosen])
    if isinstance(forward.data, ArrayData):
        return replace(forward, data=forward.data.subset(order), batch_size=m)
    return replace(forward, data=DataLoader(TensorDataset(x[order], y[order]), batch_size=m), batch_size=m)


def _arrays(data: ArrayData | DataLoader[Any]) -> tuple[Tensor, ...]:
    """Return arrays as given; those whose targets are no classes are in a loader of ours."""
    if isinstance(data, ArrayData):
        return data.x, data.y
    assert isinstance(data.dataset, TensorDataset)
    return data.dataset.tensors


@dataclass(frozen=True)
class Examples:
    """Batches of data as a placed network takes them.

    Args:
        model: placed for evaluation.
        forward: over the data.
        loss: mean loss of a batch given outputs and targets.
        batches: how many at most.
    """

    model: nn.Module
    forward: Forward
    loss: Loss = class_loss
    batches: int | None = None

    def each(self, work: Callable[[Batch, int], T]) -> list[T]:
        """Return what is found of each batch; torch's global generators are left as they were.

        Args:
            work: is given a batch, inputs and targets on the device, and the number of its examples.

        Raises:
            InvalidValueError: if there is no example.
        """
        return self.numbered(lambda _, batch, n: work(batch, n))

    def numbered(self, work: Callable[[int, Batch, int], T]) -> list[T]:
        """Return what is found of each batch, as :meth:`each` does, given the batch's number too.

        Args:
            work: is given the number of the batch, from 0, the batch, and the number of its examples.

        Raises:
            InvalidValueError: if there is no example.
        """
        # Of equal state in each pass: a loader that shuffles or augments does the same again.
        with Stream(0, "loader").as_torch_default():
            batches = enumerate(islice(self.forward.batches(self.model), self.batches))
            found = [work(i, (x, y), n) for i, (x, y, n) in batches]
        if not found:
            raise InvalidValueError("Expected `data` to hold at least one example, but it is empty")
        return found

    def mean_loss(self) -> tuple[float, int]:
        """Return the mean loss over all examples, each counting the same, and their number."""

        def summed(batch: Batch, n: int) -> tuple[Tensor, int]:
            with torch.no_grad():
                return loss_of(self.model, batch, self.loss).double() * n, n

        found = self.each(summed)
        number = sum(n for _, n in found)
        return float(torch.stack([total for total, _ in found]).sum()) / number, number

    def mean_gradient(self) -> tuple[float, Gradient, int]:
        """Return mean loss, its gradient and the number of examples; added up in float64, batches by their size."""
        parameters = trained(self.model)
        total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]

        def add(batch: Batch, n: int) -> tuple[Tensor, int]:
            value, gradient = loss_and_gradient(self.model, batch, self.loss)
            for sum_, part in zip(total, gradient, strict=True):
                sum_.add_(part, alpha=n)
            return value.double() * n, n

        found = self.each(add)
        number = sum(n for _, n in found)
        mean = tuple((t / number).to(p.dtype) for t, p in zip(total, parameters, strict=True))
        return float(torch.stack([part for part, _ in found]).sum()) / number, mean, number


@contextmanager
def examined(
    model: nn.Module,
    forward: Forward,
    loss: Loss = class_loss,
    batches: int | None = None,
    *,
    own: bool = False,
    batch_statistics: bool = False,
) -> Iterator[Examples]:
    """Yield the data as batches for a model, which is left alone: a copy of it is looked at, unless it is our own.

    The copy is in evaluation mode: normalisation uses its stored statistics, nothing is dropped. With
    ``batch_statistics`` batch norm uses those of each batch, as in training, but in layers that are frozen: those in
    evaluation mode if the model is in training mode; if it is not, those that its ``train`` leaves in evaluation mode.
    Of our own, from a weights file, it is the latter, since a trainer calls ``train``. SyncBatchNorm keeps the stored
    ones, for other processes are not here.

    Raises:
        InvalidValueError: if the model is none, or has no parameter that needs a gradient.
    """
    if not isinstance(model, nn.Module):
        raise InvalidValueError(f"Expected `model` to be a module, but got {type(model).__name__}")
    modes = [layer.training for layer in probe.normalising(model)] if model.training and not own else None
    placed = forward.place(model, own=own)
    trained(placed)
    layers = _in_training(placed, modes) if batch_statistics else []
    with looked_at(placed), probe.batch_statistics(placed, layers) if batch_statistics else nullcontext():
        yield Examples(placed, forward, loss, batches)


def _in_training(model: nn.Module, modes: Sequence[bool] | None) -> list[nn.Module]:
    """Return the normalisation layers that use the statistics of the batch in training.

    Args:
        model: ours, in evaluation mode.
        modes: whether each of the layers is in training mode then; by default as the model's ``train`` has it.
    """
    layers = probe.normalising(model)
    if modes is None:
        model.train()
        modes = [layer.training for layer in layers]
        model.eval()
    return [layer for layer, training in zip(layers, modes, strict=True) if training]


def check_finite(value: float, what: str = "loss") -> float:
    """Return the loss at the clean weights, or what else is there.

    Raises:
        InvalidValueError: if it is no finite number.
    """
    if not math.isfinite(value):
        raise InvalidValueError(
            f"Expected the {what} of the network to be a finite number, but got {value}; are the weights or the data "
            "out of all proportion?"
        )
    return value


def check_perturbed(value: float, where: str, what: str = "loss") -> float:
    """Return the loss at perturbed weights, or what else is there.

    Args:
        value: to look at.
        where: name and value of the perturbation's size, for the error.
        what: it is.

    Raises:
        InvalidValueError: if it is no finite number.
    """
    if not math.isfinite(value):
        raise InvalidValueError(
            f"Expected the {what} to be a finite number at {where}, but got {value}; is it out of all proportion?"
        )
    return value


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of independent values, of shape (n,); NaN of a single one."""
    values = values.double()
    return float(values.std(correction=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
