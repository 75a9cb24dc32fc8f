"""Chips as marks on a line, small enough to stand in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from noiserobust.report.figures.style import INK
from noiserobust.results.cells import Curve

WIDTH, LANE, MOST_LANES = 240, 10, 8


@dataclass(frozen=True)
class Scale:
    """The axis that all strips of a level share.

    Attributes:
        low: its left end.
        high: its right end.
        spec: where a line is drawn; None for none, or out of sight.
    """

    low: float
    high: float
    spec: float | None

    def place(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where values lie, in tenths of a unit of the drawing."""
        return np.round(10 * (2 + (WIDTH - 4) * (values - self.low) / (self.high - self.low))) / 10


def scale_of(curves: Sequence[Curve], level: float, spec: float | None) -> Scale:
    """Return the axis for the chips of several methods at a level."""
    values = np.concatenate([c.values for curve in curves for c in curve.chips.get(level, {}).values()])
    low, high = float(values.min()), float(values.max())
    near = spec is not None and low - (high - low) <= spec <= high + (high - low)
    if near and spec is not None:
        low, high = min(low, spec), max(high, spec)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Scale(low, high, spec if near else None)


def draw_strip(curve: Curve, level: float, scale: Scale, color: str) -> Markup:
    """Return the chips of a method as an SVG element: a lane a training, a mark a chip, a bar at the mean.

    With more than eight trainings all are in one lane.
    """
    seeds: Mapping[object, NDArray[np.float64]] = {t: c.values for t, c in curve.chips[level].items()}
    lanes = list(seeds.values())
    if len(lanes) > MOST_LANES:
        lanes = [np.concatenate(lanes)]
    ink = "var(--ink)" if color == INK else color
    height = LANE * len(lanes) + 3
    parts = []
    for number, values in enumerate(lanes):
        top = 2 + LANE * number
        marks = "".join(f"M{x:g} {top + 1}v6" for x in np.unique(scale.place(values)))
        parts.append(f'<path d="{marks}" stroke="{ink}" stroke-opacity=".6"/>')
        mean = float(scale.place(np.array([values.mean()]))[0])
        parts.append(f'<path d="M{mean:g} {top}v8" stroke="var(--ink)" stroke-width="2"/>')
    if scale.spec is not None:
        x = float(scale.place(np.array([scale.spec]))[0])
        parts.append(f'<path d="M{x:g} 0v{height}" stroke="var(--ink)" stroke-dasharray="3 2" stroke-width=".8"/>')
    everything = np.concatenate(lanes)
    said = f"{everything.size} chips from {_short(everything.min())} to {_short(everything.max())}"
    # Numbers and colours of ours: nothing here comes from the results as text.
    return Markup(
        f'<svg class="strip" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{said}">{"".join(parts)}</svg>'
    )


def _short(value: float) -> str:
    return f"{value:.2f}" if math.fabs(value) >= 1 else f"{value:.3g}"
