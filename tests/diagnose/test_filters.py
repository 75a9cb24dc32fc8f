"""Norms of filters against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from quadratics import left_alone
from torch import nn

import noiserobust as nr
from noiserobust.results.filters import FILTERS_DTYPES


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolutions = nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ConvTranspose2d(6, 4, 2, groups=2)
        return nn.Sequential(*convolutions, nn.Linear(5, 3))


def test_norms_are_those_of_output_channels():
    model = network()
    with left_alone(model):
        table = nr.diagnose.filter_norms(model)
    first, transposed, last = (model[i].weight.detach().double() for i in (0, 2, 3))
    wanted = {
        "0.weight": [first[k].norm() for k in range(6)],
        # Of shape (in, out / groups, ...): channel 2 g + k is fed by the inputs of group g.
        "2.weight": [transposed[3 * g : 3 * g + 3, k].norm() for g in range(2) for k in range(2)],
        "3.weight": [last[k].norm() for k in range(3)],
    }
    assert list(dict.fromkeys(table["layer"])) == list(wanted)
    for layer, own in table.groupby("layer"):
        assert list(own["filter"]) == list(range(len(wanted[layer])))
        np.testing.assert_allclose(own["norm"], wanted[layer], rtol=1e-9)
    assert table.dtypes.to_dict() == {c: pd.Series(dtype=k).dtype for c, k in list(FILTERS_DTYPES.items())[3:]}
    assert set(nr.diagnose.filter_norms(model, "3.*")["layer"]) == {"3.weight"}


def test_variation_is_that_of_the_filters_there_are():
    norms = pd.DataFrame({"layer": ["b", "b", "a", "a", "a", "z"], "filter": [0, 1, 0, 1, 2, 0]})
    norms["norm"] = [1.0, 3.0, 2.0, 2.0, 2.0, 0.0]
    found = nr.diagnose.filter_variation(norms).set_index("layer")
    assert list(found.index) == ["b", "a", "z"]
    assert list(found["n_filters"]) == [2, 3, 1]
    assert found.loc["b"].tolist() == [2, 2.0, 1.0, 0.5]
    assert found.loc["a", "coefficient_of_variation"] == 0
    assert math.isnan(found.loc["z", "coefficient_of_variation"])
    several = pd.concat([norms.assign(method="m", train_seed=s, weights=f"{s}.pt") for s in (0, 1)])
    assert len(nr.diagnose.filter_variation(several)) == 6


def test_careless_input():
    with pytest.raises(nr.NoiseRobustError, match="`norms` to have columns layer, filter, norm, but norm is missing"):
        nr.diagnose.filter_variation(pd.DataFrame({"layer": [], "filter": []}))
    with pytest.raises(nr.NoiseRobustError, match="a Conv, Linear or Embedding weight"):
        nr.diagnose.filter_norms(nn.BatchNorm2d(3))
