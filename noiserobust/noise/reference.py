"""What a noise level is a fraction of: a statistic of the weights, over a filter, a tensor or a crossbar tile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from noiserobust.errors import InvalidValueError, check_integer

REFERENCES = ("max", "l2", "std", "sqrt-max", "absolute", "weight")
GRANULARITIES = ("filter", "tensor", "tile", "column")

Tile = tuple[int, int]
Statistic = Callable[[Tensor], Tensor]
"""From a matrix to one number for each of its rows, of shape ``(rows, 1)``."""

_STATISTICS: dict[str, Statistic] = {
    "max": lambda w: w.abs().amax(dim=1, keepdim=True),
    "l2": lambda w: torch.linalg.vector_norm(w, dim=1, keepdim=True),
    "std": lambda w: w.std(dim=1, correction=0, keepdim=True),
    "sqrt-max": lambda w: w.abs().amax(dim=1, keepdim=True).sqrt(),
}


def check_tile(tile: object) -> Tile:
    """Return ``(rows, columns)`` of a crossbar tile if both are integers >= 1.

    Raises:
        InvalidValueError: if they are not.
    """
    if not isinstance(tile, (tuple, list)) or len(tile) != 2:
        raise InvalidValueError(f"Expected `tile` to be (rows, columns), but got {tile!r}")
    return check_integer("tile rows", tile[0], minimum=1), check_integer("tile columns", tile[1], minimum=1)


def group_name(granularity: str, tile: Tile) -> str:
    """Return what a granularity is called in the name of a noise: with the size of the tile if that matters."""
    rows, columns = tile
    return granularity + {"tile": f"{rows}x{columns}", "column": f"{rows}"}.get(granularity, "")


def reference_scale(matrix: Tensor, reference: str, granularity: str, tile: Tile) -> Tensor:
    """Return what the level is a fraction of, for each weight.

    Args:
        matrix: weights of shape ``(filters, inputs)``, floating point.
        reference: ``"max"`` (largest magnitude), ``"l2"`` (Euclidean norm) or ``"std"`` (population standard
            deviation) of the group, ``"sqrt-max"`` (square root of its largest magnitude), ``"weight"`` (each weight's
            own magnitude) or ``"absolute"`` (1).
        granularity: the group: ``"filter"`` (a row), ``"tensor"`` (all), ``"tile"`` (a block of at most ``rows`` inputs
            by ``columns`` filters) or ``"column"`` (at most ``rows`` inputs of one filter). Without effect on
            ``"weight"`` and ``"absolute"``.
        tile: ``(rows, columns)`` of a crossbar tile; rows take inputs, columns take filters.

    Returns:
        Tensor >= 0 that broadcasts to the shape of ``matrix``, same dtype.
    """
    if reference == "absolute":
        return matrix.new_ones(1, 1)
    if reference == "weight":
        return matrix.abs()
    return per_group(matrix, _STATISTICS[reference], granularity, tile)


def per_group(matrix: Tensor, statistic: Statistic, granularity: str, tile: Tile) -> Tensor:
    """Return a statistic of the group that each weight belongs to.

    Args:
        matrix: weights of shape ``(filters, inputs)``.
        statistic: from a matrix to one number for each of its rows, of shape ``(rows, 1)``.
        granularity: the group, as for :func:`reference_scale`.
        tile: as for :func:`reference_scale`.

    Returns:
        Tensor that broadcasts to the shape of ``matrix``.
    """
    if granularity == "filter":
        return statistic(matrix)
    if granularity == "tensor":
        return statistic(matrix.reshape(1, -1))
    rows, columns = (min(size, 1 << 31) for size in tile)  # larger than any weight
    result = torch.empty_like(matrix)
    for source, target in zip(matrix.split(rows, dim=1), result.split(rows, dim=1), strict=True):
        if granularity == "column":
            target.copy_(statistic(source))
            continue
        for block, out in zip(source.split(columns, dim=0), target.split(columns, dim=0), strict=True):
            out.copy_(statistic(block.reshape(1, -1)))
    return result
