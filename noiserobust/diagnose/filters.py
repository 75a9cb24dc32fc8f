"""How large the filters of a network are: what max-scaled and filter-norm noise is scaled by."""

from __future__ import annotations

import pandas as pd
import torch
from torch import nn

from noiserobust.errors import InvalidValueError
from noiserobust.noise.sites import Select, find_sites
from noiserobust.results.filters import FILTERS_DTYPES

_KEYS = ["method", "train_seed", "weights", "layer"]
_COLUMNS = [name for name in FILTERS_DTYPES if name not in _KEYS[:3]]


def filter_norms(model: nn.Module, select: Select | None = None) -> pd.DataFrame:
    """Return the Euclidean norm of each filter of the weights that live in the crossbar.

    Args:
        model: left unchanged.
        select: which weights, as in :func:`noiserobust.find_sites`.

    Returns:
        One row a filter (an output channel; of a transposed convolution too), in the order of the model; columns
        ``layer, filter, norm``. Tied weights are there once.

    Raises:
        InvalidValueError: if no weight is selected.
    """
    parts = []
    for site in find_sites(model, select):
        norms = torch.linalg.vector_norm(site.view.matrix(site.weight()), dim=1, dtype=torch.float64).cpu().numpy()
        parts.append(pd.DataFrame({"layer": site.name, "filter": range(len(norms)), "norm": norms}))
    table: pd.DataFrame = pd.concat(parts, ignore_index=True)[_COLUMNS].astype({c: FILTERS_DTYPES[c] for c in _COLUMNS})
    return table


def filter_variation(norms: pd.DataFrame) -> pd.DataFrame:
    """Return how much the norms of filters vary within a layer.

    Args:
        norms: from :func:`filter_norms`, or with the columns of ``filters.csv``.

    Returns:
        One row a layer (of each of the weights, if there are several), in the order given; beside its names
        ``n_filters, mean, std, coefficient_of_variation``: the standard deviation is that of the filters there are (the
        divisor is their number), the coefficient of variation std / mean; NaN of a layer that is all zero.

    Raises:
        InvalidValueError: if a column is missing.
    """
    missing = [name for name in _COLUMNS if name not in norms]
    if missing:
        raise InvalidValueError(f"Expected `norms` to have columns {', '.join(_COLUMNS)}, but {missing[0]} is missing")
    groups = norms.groupby([name for name in _KEYS if name in norms], sort=False)["norm"]
    table = pd.DataFrame({"n_filters": groups.size(), "mean": groups.mean(), "std": groups.std(ddof=0)})
    table["coefficient_of_variation"] = table["std"] / table["mean"].where(table["mean"] > 0)
    variation: pd.DataFrame = table.reset_index()
    return variation
