"""What a classifier says of a batch, checked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError, NoiseRobustError


def class_scores(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the scores of a batch.

    Args:
        model: a classifier; it may return the scores themselves or an object that has them as ``logits``.
        x: inputs, N x ...
        y: N integer labels.

    Returns:
        Tensor of shape (N, classes).

    Raises:
        InvalidValueError: if the model fails on the inputs, returns something else, or has too few outputs for a label.
    """
    output = _run(model, x)
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(y):
        raise InvalidValueError(
            f"Expected the model to return scores of shape ({len(y)}, classes) for inputs of shape {tuple(x.shape)}, "
            f"but got {kind_of(output)}"
        )
    low, high = (int(y.min()), int(y.max())) if len(y) else (0, 0)
    if low < 0 or high >= output.shape[1]:
        raise InvalidValueError(
            f"Expected the labels of `data` to be in 0..{output.shape[1] - 1}, as the model has {output.shape[1]} "
            f"outputs, but got {low if low < 0 else high}"
        )
    return output


def kind_of(value: Any) -> str:
    """Return what a value is, for errors."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _run(model: nn.Module, x: Tensor) -> Any:
    try:
        return model(x)
    except (NoiseRobustError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's model may fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidValueError(
            f"Expected `data` to fit the model, but a batch of shape {tuple(x.shape)} failed: {reason}"
        ) from error
