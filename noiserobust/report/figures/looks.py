"""The look of trainings in the figures of papers: a hue a family, a shade a strength, dashes for what is ramped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex

from noiserobust.report.figures.style import INK, MARKERS, PALETTE

SOLID, DASHED, MIXED, DOTTED = "-", (0, (4, 1.6)), (0, (6, 1.5, 1.2, 1.5)), (0, (1.2, 1.4))

# From light to dark, which also tells strengths apart without colour; the lightest third is lost on white paper.
_HUES = {"sam": "YlOrRd", "asam": "RdPu", "rwp": "YlGnBu", "arwp": "Greens", "was": "Purples", "robust": "copper_r"}
_MARKERS = {"sgd": "D", "sam": "o", "asam": "v", "rwp": "s", "arwp": "^", "was": "P", "robust": "*"}
_LIGHTEST, _DARKEST = 0.42, 0.97


@dataclass(frozen=True)
class Look:
    """How the lines and marks of one training look.

    Attributes:
        color: of lines and marks.
        marker: of marks.
        dash: of lines.
        hollow: whether marks are outlines only.
    """

    color: str
    marker: str = "o"
    dash: Any = SOLID
    hollow: bool = False


def make_looks(shades: Mapping[str, Sequence[str]], lines: Mapping[str, tuple[str, Any]]) -> dict[str, Look]:
    """Return the look of each training.

    Args:
        shades: for each family the names of its shades, from the weakest to the strongest.
        lines: for each training, by name, the shade it has and its dash.
    """
    colors: dict[str, Look] = {}
    others = 0
    for family, names in shades.items():
        for place, name in enumerate(names):
            if family == "sgd" and place == 0:
                color, marker = INK, _MARKERS["sgd"]
            elif family in _HUES:
                share = 0.72 if len(names) == 1 else _LIGHTEST + (_DARKEST - _LIGHTEST) * place / (len(names) - 1)
                color, marker = to_hex(colormaps[_HUES[family]](share)), _MARKERS[family]
            else:  # such as a second training by SGD, or weights that do not say how they were trained
                color, marker = PALETTE[others % (len(PALETTE) - 1)], MARKERS[others % len(MARKERS)]
                others += 1
            colors[name] = Look(color, marker)
    return {
        name: Look(colors[shade].color, colors[shade].marker, dash, dash == DASHED)
        for name, (shade, dash) in lines.items()
    }


def family_look(family: str) -> Look:
    """Return the look of a family as a whole."""
    return make_looks({family: [family]}, {family: (family, SOLID)})[family]
