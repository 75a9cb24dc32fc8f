"""The max-scaled Gaussian noise that is to a network what a device is: a device as a training setting."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from torch import nn

from noiserobust.diagnose.errors import WeightError, weight_error
from noiserobust.errors import InvalidValueError
from noiserobust.noise.base import Noise, chip_stream
from noiserobust.noise.sites import Select, find_sites
from noiserobust.times import format_time

if TYPE_CHECKING:
    import pandas as pd

TOTAL = "total"


def equivalent_noise(
    model: nn.Module,
    noise: Noise,
    levels: Iterable[str | float],
    *,
    chips: int = 4,
    seed: int = 0,
    select: Select | None = None,
) -> pd.DataFrame:
    """Measure what a device does to each weight of a model, and which max-scaled noise does as much.

    In the row of a layer, ``sigma`` is the sigma of :class:`GaussianNoise` with the same mean square error on this
    layer, once gain and shift are taken off. In the row ``total`` it is the one sigma for all layers under which the
    mean square error, each layer's relative to its own mean square weight, is the same: layers count alike, as they do
    for a network of normalised layers.

    Args:
        model: with the weights as they would be programmed.
        noise: the device, or any other noise.
        levels: its severities; times since programming.
        chips: how many are measured, >= 1.
        seed: root seed of the chips.
        select: which weights live on the chip, as in :func:`noiserobust.find_sites`.

    Returns:
        One row for each level and layer, then the total, with columns ``t`` (s; or what else the level is called),
        ``layer``, ``weights`` (their number), ``sigma``, and those of :class:`WeightError
        <noiserobust.diagnose.errors.WeightError>` but ``relative_of_unit``; means over layers in the row ``total``.

    Raises:
        InvalidValueError: if the model has no such weight, or a level is not one of the noise.
    """
    import pandas as pd

    rows = []
    sites = [s for s in find_sites(model, select) if s.weight().numel() > 2 and s.weight().any()]
    if not sites:
        raise InvalidValueError("Expected weights of at least three numbers that are not zero, but the model has none")
    for level in levels:
        at = noise.at(noise.parse_level(level))
        found = []
        for site in sites:
            streams = [chip_stream(seed, 0, k).child(site.name) for k in range(chips)]
            error = weight_error(at, site.weight(), streams, site.view)
            found.append((site.name, site.weight().numel(), error))
        own = {noise.level_name: at.level}
        rows += [{**own, "layer": n, "weights": w, "sigma": e.std_of_filter, **_columns(e)} for n, w, e in found]
        errors = [error for _, _, error in found]
        means = pd.DataFrame([_columns(e) for e in errors]).mean().to_dict()
        number = sum(w for _, w, _ in found)
        rows.append({**own, "layer": TOTAL, "weights": number, "sigma": _sigma(errors), **means})
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def as_text(table: pd.DataFrame) -> str:
    """Return the table of :func:`equivalent_noise` of a device for a terminal, fractions in percent."""
    percent = ["shift", "std_of_tensor", "std_of_filter", "relative", "std_small", "std_large"]
    shown = table.assign(**{f"{name} %": 100 * table[name] for name in percent}).drop(columns=percent)
    digits = {"gain": 3, "kurtosis": 2, "sigma": 4, **{f"{name} %": 2 for name in percent}}
    columns = ["layer", "weights", "gain", *(f"{name} %" for name in percent), "kurtosis", "sigma"]
    columns.remove("std_of_filter %")  # of a layer, it is its sigma
    formatters = {name: f"{{:.{d}f}}".format for name, d in digits.items()}
    blocks = []
    for t in table["t"].unique():
        text = shown.loc[shown["t"] == t, columns].to_string(index=False, formatters=formatters, na_rep="-")
        blocks.append(f"t = {format_time(float(t))}\n{text}")
    return "\n\n".join(blocks)


def _columns(error: WeightError) -> dict[str, float]:
    columns = asdict(error)
    del columns["relative_of_unit"]
    return columns


def _sigma(errors: list[WeightError]) -> float:
    """Return the sigma with the same sum of relative error powers."""
    device = sum(e.relative**2 for e in errors)
    return math.sqrt(device / sum(e.relative_of_unit**2 for e in errors))
