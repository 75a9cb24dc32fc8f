"""Landscapes and norms of filters of all folders, each counted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from noiserobust.report.gather import Source
from noiserobust.report.papers.names import Names
from noiserobust.results.filters import FILTERS_DTYPES
from noiserobust.results.landscapes import LANDSCAPE_DTYPES

_LANDSCAPE = ["method", "train_seed", "weights", "split", "metric"]


def join_landscapes(sources: Sequence[Source], names: Names) -> tuple[pd.DataFrame, list[str]]:
    """Return the landscapes along random directions, columns of ``landscape.csv`` and ``folder``, and notes.

    Of two landscapes of the same weights on the same data the one with more points counts.
    """
    random = [source for source in sources if is_random(source.configuration)]
    others = [source.folder.name for source in sources if not is_random(source.configuration)]
    notes = [f"landscapes along other directions or under noise are left out: {', '.join(others)}"] if others else []
    frames = [names.rename(source).draws.assign(folder=str(source.folder)) for source in random]
    if not frames:
        return _empty(LANDSCAPE_DTYPES), notes
    joined = pd.concat(frames, ignore_index=True)
    joined["line"] = joined["y"].isna()
    sizes = joined.groupby([*_LANDSCAPE, "line", "folder"], sort=False).size().reset_index(name="points")
    first = sizes.sort_values("points", ascending=False, kind="stable").drop_duplicates([*_LANDSCAPE, "line"])
    chosen = first.drop(columns="points")
    kept: pd.DataFrame = joined.merge(chosen, on=[*_LANDSCAPE, "line", "folder"]).drop(columns="line")
    used = set(kept["folder"])
    if len({_directions(source) for source in random if str(source.folder) in used}) > 1:
        notes.append("landscapes are along different directions; those with the same --direction-seed can be compared")
    return kept, notes


def join_filters(sources: Sequence[Source], names: Names) -> pd.DataFrame:
    """Return the norms of filters, columns of ``filters.csv`` and ``folder``; the same filter twice counts once."""
    frames = [names.rename(source).draws.assign(folder=str(source.folder)) for source in sources]
    if not frames:
        return _empty(FILTERS_DTYPES)
    joined: pd.DataFrame = pd.concat(frames, ignore_index=True)
    kept: pd.DataFrame = joined.drop_duplicates([c for c in FILTERS_DTYPES if c != "norm"], ignore_index=True)
    return kept


def is_random(configuration: Mapping[str, Any]) -> bool:
    """Tell whether a landscape is along random directions from the weights and without noise, as far as is known."""
    noise, weights = configuration.get("noise"), configuration.get("weights")
    entries = weights if isinstance(weights, list) else []
    if "to" in configuration or any("place" in entry for entry in entries if isinstance(entry, dict)):
        return False  # between checkpoints
    if not isinstance(noise, dict):
        return True
    directions = noise.get("directions")
    kinds = {d.get("kind") for d in directions if isinstance(d, dict)} if isinstance(directions, list) else set()
    return "noise" not in noise and kinds == {"random"}


def _directions(source: Source) -> str:
    """Return what tells random directions apart: their root seeds; a line is the first direction of a plane."""
    noise = source.configuration.get("noise")
    directions = noise.get("directions") if isinstance(noise, dict) else None
    return str({d.get("seed") for d in directions if isinstance(d, dict)}) if isinstance(directions, list) else ""


def _empty(dtypes: Mapping[str, str]) -> pd.DataFrame:
    empty: pd.DataFrame = pd.DataFrame(columns=[*dtypes, "folder"]).astype({**dtypes, "folder": "str"})
    return empty
