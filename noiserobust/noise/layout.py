"""A weight as the crossbar sees it: a matrix with one row per filter (output channel)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FilterView:
    """How a weight tensor becomes a matrix of shape ``(filters, inputs)`` and back.

    A filter holds all weights that feed one output channel: dim 0 of Conv and Linear, and by convention of Embedding,
    where it is a token; the output dimension of a transposed convolution, whose weight has shape
    ``(in, out / groups, ...)``. A tensor with fewer than two dimensions (a bias, a normalisation gain) counts as a
    single filter.

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

    def rows(self, weight: Tensor) -> Tensor:
        """Return :meth:`matrix` with the inputs of each filter in any order: a view of the channels-last layout too."""
        if weight.ndim == 4 and not self.transposed and weight.is_contiguous(memory_format=torch.channels_last):
            return weight.permute(0, 2, 3, 1).flatten(1)
        return self.matrix(weight)

    def spread(self, scale: Tensor, shape: torch.Size) -> Tensor:
        """Return one number a filter or a weight in a form that broadcasts to the weight's own ``shape``.

        Args:
            scale: of shape ``(filters, inputs)``, ``(filters, 1)`` or ``(1, 1)``.
            shape: of the weight.
        """
        if scale.numel() == 1:
            return scale.reshape(())
        if scale.shape[1] == 1 and not self.transposed:
            return scale.reshape(-1, *[1] * (len(shape) - 1))
        filters = scale.shape[0]
        return self.restore(scale.expand(filters, shape.numel() // filters), shape)

    def restore(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """Return a matrix made by :meth:`matrix` in the weight's own ``shape``."""
        if len(shape) < 2 or not self.transposed:
            return matrix.reshape(shape)
        grouped = matrix.reshape(self.groups, shape[1], shape[0] // self.groups, *shape[2:])
        return grouped.transpose(1, 2).reshape(shape)


FILTERS = FilterView()
"""The view of Conv, Linear and Embedding weights."""
