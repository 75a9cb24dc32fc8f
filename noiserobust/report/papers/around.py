"""Figures of trained weights: landscapes around them, and the norms of their filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from noiserobust.report.figures.landscape import Plane, curves_of, draw_contours, draw_surfaces, planes_of, planes_size
from noiserobust.report.figures.panels import DENSITY, Panel, Series
from noiserobust.report.papers.runs import Found
from noiserobust.report.papers.selection import Asked, Draw, Selection, select
from noiserobust.results.landscapes import SPLITS

LANDSCAPE = "noiserobust diagnose landscape"
FILTERS = "noiserobust diagnose filters"

_BINS = 30
_BEYOND = 0.995  # share of the filters that the axis shows; single ones may be far larger


def contours(found: Found, asked: Asked) -> Selection:
    """Figure 7: contours of the loss over a plane, on training and on test data."""
    del asked
    return _planes(found, surface=False)


def surfaces(found: Found, asked: Asked) -> Selection:
    """Figure 7 as surfaces."""
    del asked
    return _planes(found, surface=True)


def curves(found: Found, asked: Asked) -> Selection:
    """Figure 2 of the RWP paper: loss and accuracy along one direction, on training and on test data."""
    del asked
    frame = _ordered(found.landscapes, found)
    panels = curves_of(frame, found.looks, _folders(frame))
    if not panels:
        return select(f"a landscape along one direction ({LANDSCAPE} --dimensions 1)")
    have = {(panel.ylabel.partition(" ")[0], "test" if "test" in panel.title else "train") for panel in panels}
    wanted = [(metric, split) for metric in ("loss", "accuracy") for split in SPLITS]
    missing = [
        f"{metric} along one direction on {split} data ({LANDSCAPE} --dimensions 1 --split {split})"
        for metric, split in wanted
        if (metric, split) not in have
    ]
    return select(*panels, *missing, notes=found.landscape_notes)


def filter_norms(found: Found, asked: Asked) -> Selection:
    """Figure 4 of the RWP paper: distribution of the norms of filters."""
    del asked
    rows = found.filters
    if rows.empty:
        return select(f"norms of filters ({FILTERS})")
    end = float(np.quantile(rows["norm"], _BEYOND)) or 1.0
    edges = np.linspace(0, end, _BINS + 1)
    series = []
    for name in [name for name in found.recipes if name in set(rows["method"])]:
        own = rows[rows["method"] == name]
        counts, _ = np.histogram(own["norm"], bins=edges)
        density = counts / len(own) / np.diff(edges)  # of all filters, also of those beyond the last bin
        middles = (edges[1:] + edges[:-1]) / 2
        frame = pd.DataFrame({"train_seed": 0, "at": middles, "x": middles, "y": density})
        label = f"{name} (CV {variation(own):.2f})"
        series.append(Series(label, found.looks[name], frame, _folders(rows).get(name, ())))
    note = "CV: standard deviation of the norms of a layer's filters over their mean, averaged over layers"
    return select(Panel(DENSITY, "", "l2 norm of a filter", "density", tuple(series)), notes=[note])


def variation(rows: pd.DataFrame) -> float:
    """Return the coefficient of variation of the norms within a layer, mean over layers and weights."""
    layers = rows.groupby(["train_seed", "weights", "layer"])["norm"]
    means = layers.mean()
    return float((layers.std(ddof=0) / means)[means > 0].mean())


def _planes(found: Found, *, surface: bool) -> Selection:
    frame = _ordered(found.landscapes[found.landscapes["y"].notna()], found)
    metric = "loss" if (frame["metric"] == "loss").any() else "accuracy"
    planes = planes_of(frame, metric)
    if not planes:
        return Selection(missing=(f"a landscape over a plane ({LANDSCAPE} --dimensions 2)",))
    missing = [
        f"a landscape on {split} data of {plane.method} ({LANDSCAPE} --split {split})"
        for plane in planes
        for split in SPLITS
        if (plane.method, split) not in {(p.method, p.split) for p in planes}
    ]
    seeds = frame.groupby("method", sort=False)["train_seed"].agg(["min", "nunique"])
    notes = list(found.landscape_notes)
    notes += [f"of {name} train seed {row['min']} is drawn" for name, row in seeds.iterrows() if row["nunique"] > 1]
    folders = dict.fromkeys(folder for own in _folders(frame).values() for folder in own)
    return Selection((), tuple(missing), tuple(notes), tuple(folders), _drawing(planes, metric, surface=surface))


def _drawing(planes: Sequence[Plane], metric: str, *, surface: bool) -> Draw:
    def made(narrow: bool, kinds: Sequence[str]) -> Mapping[str, bytes]:
        size = planes_size(planes, narrow=narrow)
        return (draw_surfaces if surface else draw_contours)(planes, size, kinds, metric=metric)

    return made


def _ordered(frame: pd.DataFrame, found: Found) -> pd.DataFrame:
    """Return rows in the order of methods in all figures."""
    order = {name: place for place, name in enumerate(found.recipes)}
    ordered: pd.DataFrame = frame.iloc[np.argsort(frame["method"].map(order).to_numpy(), kind="stable")]
    return ordered


def _folders(frame: pd.DataFrame) -> dict[str, tuple[Path, ...]]:
    return {str(m): tuple(Path(f) for f in dict.fromkeys(rows["folder"])) for m, rows in frame.groupby("method")}
