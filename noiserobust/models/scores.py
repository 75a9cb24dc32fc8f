"""What a classifier says of a batch, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from noiserobust.errors import InvalidValueError, NoiseRobustError
from noiserobust.memory import out_of_memory


def class_scores(output: Any, y: Any) -> Tensor:
    """Return the scores of a batch, checked.

    Args:
        output: of a classifier: the scores themselves or an object that has them as ``logits``.
        y: labels.

    Returns:
        Tensor of shape (N, classes).

    Raises:
        InvalidValueError: if the output is something else, the labels are not N integers, or there are too few outputs
            for a label.
    """
    if not isinstance(y, Tensor) or y.ndim != 1 or y.dtype == torch.bool or y.is_floating_point() or y.is_complex():
        got = f"{kind_of(y)}, {y.dtype}" if isinstance(y, Tensor) else kind_of(y)
        wanted = f"shape ({len(y)},)" if isinstance(y, Tensor) and y.ndim else "one dimension"
        raise InvalidValueError(f"Expected the labels of `data` to be integers of {wanted}, but got {got}")
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(y):
        raise InvalidValueError(
            f"Expected the model to return scores of shape ({len(y)}, classes), but got {kind_of(output)}"
        )
    low, high = (int(y.min()), int(y.max())) if len(y) else (0, 0)
    if low < 0 or high >= output.shape[1]:
        raise InvalidValueError(
            f"Expected the labels of `data` to be in 0..{output.shape[1] - 1}, as the model has {output.shape[1]} "
            f"outputs, but got {low if low < 0 else high}"
        )
    return output


def outputs(model: Callable[[Any], Any], x: Any) -> Any:
    """Return what a model makes of a batch of inputs.

    Raises:
        InvalidValueError: if it fails on them.
    """
    try:
        return model(x)
    except NoiseRobustError:
        raise
    except Exception as error:  # a user's model may fail in any way
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        of = f"of shape {tuple(x.shape)} " if isinstance(x, Tensor) else ""
        raise InvalidValueError(f"Expected `data` to fit the model, but a batch {of}failed: {reason}") from error


def kind_of(value: Any) -> str:
    """Return what a value is, for errors."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
