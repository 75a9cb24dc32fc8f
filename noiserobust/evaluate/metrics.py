"""What is measured of a network's outputs: sums and counts over batches."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from noiserobust.callables import load_callable, names_callable, source_sha256
from noiserobust.errors import InvalidValueError, unknown_name
from noiserobust.memory import out_of_memory

Sums = tuple[Any, Any]
"""Sum and count of a batch: numbers or tensors of one shape."""


@dataclass(frozen=True)
class Metric:
    """A mean over the examples of a data set, or over whatever it counts.

    Args:
        name: as in the results.
        sums: returns sum and count of a batch, given outputs and targets.
        finish: from the sum and the count of all batches to the value; by default their ratio, and the mean of the
            ratios if they are tensors of several elements (classes, say) of which some were counted.
        classifies: whether it takes checked scores of shape (N, classes) and N integer labels.
        percent: whether it is a percentage.
        each: returns the value of each example, shape (N,), of checked scores and labels, if the metric is their mean.
        code_sha256: of the file or the function in which it is written, if it is a user's.
    """

    name: str
    sums: Callable[[Any, Any], Sums]
    finish: Callable[[Any, Any], Any] | None = None
    classifies: bool = False
    percent: bool = False
    each: Callable[[Tensor, Tensor], Tensor] | None = None
    code_sha256: str | None = None

    def value(self, total: Tensor, count: Tensor) -> float:
        """Return the value for a whole data set.

        Raises:
            InvalidValueError: if it is no finite number.
        """
        total, count = total.cpu(), count.cpu()
        if self.finish is not None:
            found = float(self.finish(total, count))
        else:
            total, count = total.double().flatten(), count.double().flatten()
            found = float((total[count > 0] / count[count > 0]).mean())
        if not math.isfinite(found):
            raise InvalidValueError(
                f"Expected metric {self.name} to be a finite number, but got {found}; is the noise or the data out of "
                "all proportion?"
            )
        return found


def _top(k: int) -> Callable[[Tensor, Tensor], Tensor]:
    def hits(scores: Tensor, labels: Tensor) -> Tensor:
        if scores.shape[1] < k:
            raise InvalidValueError(f"Expected at least {k} classes for top{k}, but the model has {scores.shape[1]}")
        best = scores.argmax(dim=1, keepdim=True) if k == 1 else scores.topk(k, dim=1).indices
        return (best == labels[:, None]).any(dim=1)

    return hits


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(scores.float(), labels.long(), reduction="none").double()


def _percent(total: Tensor, count: Tensor) -> float:
    return 100.0 * float(total) / float(count)


def _share(name: str, hits: Callable[[Tensor, Tensor], Tensor]) -> Metric:
    """Return the percentage of examples that are hits."""

    def sums(scores: Tensor, labels: Tensor) -> Sums:
        return hits(scores, labels).sum(), len(labels)

    def each(scores: Tensor, labels: Tensor) -> Tensor:
        return 100.0 * hits(scores, labels).double()

    return Metric(name, sums, _percent, classifies=True, percent=True, each=each)


METRICS = {
    "accuracy": _share("accuracy", _top(1)),
    "top5": _share("top5_accuracy", _top(5)),
    "loss": Metric("loss", lambda s, y: (_losses(s, y).sum(), len(y)), classifies=True, each=_losses),
}
"""Metrics by name: accuracies in percent, the cross-entropy in nats."""


def parse_metrics(given: object) -> tuple[Metric, ...]:
    """Return metrics from names, ``file.py:callable`` or functions, one or several.

    A function takes the outputs of a batch and its targets and returns sum and count; its attribute ``name`` or its own
    name is that of the metric, and an attribute ``finish``, if it has one, turns the sum and count of all batches into
    the value.

    Raises:
        InvalidValueError: if there is none, one is not known, or two have one name.
    """
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    metrics = [_metric(one) for one in several]
    names = [m.name for m in metrics]
    if not names or len(set(names)) < len(names):
        raise InvalidValueError(
            f"Expected `metrics` to be distinct, at least one, but got {', '.join(names) or 'none'}"
        )
    return tuple(metrics)


def _metric(given: object) -> Metric:
    if isinstance(given, Metric):
        return given
    digest = None
    if isinstance(given, str):
        if given in METRICS:
            return METRICS[given]
        if not names_callable(given):
            raise unknown_name("metrics", given, METRICS)
        digest, given = source_sha256(given), load_callable(given, "metrics")
    if not callable(given):
        raise InvalidValueError(f"Expected `metrics` to be names or functions, but got {given!r}")
    if digest is None:
        digest = _source_sha256(given)
    name = getattr(given, "name", None) or getattr(given, "__name__", type(given).__name__)
    return Metric(str(name), given, getattr(given, "finish", None), code_sha256=digest)


def _wide(value: Any) -> Tensor:
    dtype = torch.float64 if isinstance(value, float) else None
    tensor: Tensor = value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype)
    return tensor.double() if tensor.is_floating_point() else tensor.long()


def _source_sha256(function: Callable[..., Any]) -> str | None:
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):  # typed in, or no function
        return None


def batch_sums(metric: Metric, output: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Return sum and count of a batch as tensors, float64 or int64.

    Raises:
        InvalidValueError: if a user's metric fails or returns something else.
    """
    try:
        total, count = metric.sums(output, target)
        return _wide(total), _wide(count)
    except InvalidValueError:
        raise
    except Exception as error:  # it may fail in any way
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidValueError(
            f"Expected metric {metric.name} to return sum and count of a batch, but it failed: {reason}"
        ) from error
