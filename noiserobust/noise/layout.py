"""A weight as the crossbar sees it: a matrix with one row per filter (output channel)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FilterView:
    """How a weight tensor becomes a matrix of shape ``(filters, inputs)`` and back.

    A filter holds all weights that feed one output channel: dim 0 of Conv, Linear and Embedding; the output dimension
    of a transposed convolution, whose weight has shape ``(in, out / groups, ...)``. A tensor with fewer than two
    dimensions (a bias, a normalisation gain) counts as a single filter.

    Args:
        transposed: the weight belongs to a transposed convolution.
        groups: its number of groups; only matters if ``transposed``.
    """

    transposed: bool = False
    groups: int = 1

    def matrix(self, weight: Tensor) -> Tensor:
        """Return ``weight`` as a matrix of shape ``(filters, inputs)``; a view where possible."""
        if weight.ndim < 2:
            return weight.reshape(1, -1)
        if not self.transposed:
            return weight.flatten(1)
        grouped = weight.unflatten(0, (self.groups, -1))  # groups, in / groups, out / groups, ...
        matrix: Tensor = grouped.transpose(1, 2).flatten(0, 1).flatten(1)
        return matrix

    def restore(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """Return a matrix made by :meth:`matrix` in the weight's own ``shape``."""
        if len(shape) < 2 or not self.transposed:
            return matrix.reshape(shape)
        grouped = matrix.reshape(self.groups, shape[1], shape[0] // self.groups, *shape[2:])
        return grouped.transpose(1, 2).reshape(shape)


FILTERS = FilterView()
"""The view of Conv, Linear and Embedding weights."""
