"""What all figures share: sizes, colours, how they are saved and how they become part of the page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLE = Path(__file__).parents[1] / "noiserobust.mplstyle"

WIDE, NARROW = (8.6, 4.3), (3.9, 4.1)
"""Sizes in inches: for a page or a paper, and for a telephone."""

INK, RULE, CARD = "#24292f", "#d0d7de", "#ffffff"

GREY = "#6e7781"

# Okabe & Ito, "Color universal design" (2008), with grey for the yellow that white paper swallows; ink is their black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", INK, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

KINDS = ("svg", "png", "pdf")


def draw(
    plot: Callable[[Figure], None], size: tuple[float, float], kinds: Sequence[str] = ("svg",)
) -> Mapping[str, bytes]:
    """Return a figure as the bytes of files.

    Args:
        plot: draws into an empty figure.
        size: width and height in inches.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
    """
    made = {}
    with matplotlib.style.context(["default", str(STYLE)]):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        plot(figure)
        with warnings.catch_warnings():
            # A method may be called by signs that the font of the PNG lacks; the SVG and the tables have them.
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
            figure.draw_without_rendering()
            figure.set_layout_engine(None)  # once is enough: each file would have it made anew
            for kind in kinds:
                file = BytesIO()
                figure.savefig(file, format=kind, metadata=dict.fromkeys(_DATED[kind]))
                made[kind] = file.getvalue()
    return made


_DATED = {
    "svg": ["Date", "Creator", "Format", "Type"],
    "png": ["Software"],
    "pdf": ["CreationDate", "Creator", "Producer"],
}
"""What matplotlib would say of itself and of the time; without it the same results give the same bytes."""


def look(methods: Sequence[str], method: str) -> tuple[str, str]:
    """Return colour and marker of a method, the same in all figures of a report."""
    index = list(methods).index(method)
    return PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]


def name_marks(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    """Write above a figure what its marks are; names are text, not formulas."""
    legend = figure.legend(handles=list(handles), loc="outside upper left", ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)


def inline_svg(svg: bytes, prefix: str) -> str:
    """Return an SVG file as an element for the page: own ids, colours of the theme, no sheet of its own."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true" focusable="false">', text, count=1)
    # xlink is history; without it the element needs no namespaces.
    text = text.replace("xlink:href=", "href=")
    for colour, variable in ((INK, "--ink"), (RULE, "--rule"), (CARD, "--card")):
        text = text.replace(colour, f"var({variable})")
    return text.strip()


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Return positions in [0, 1] moved as little as a simple sweep does so that they are ``gap`` apart.

    >>> spread([0.5, 0.5, 0.9], 0.1)
    [0.5, 0.6, 0.9]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    gap = min(gap, 1 / max(1, len(order) - 1))
    placed = [min(max(p, 0.0), 1.0) for p in positions]
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    ceiling = 1.0
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def shorten(name: str, length: int) -> str:
    """Return a name of at most ``length`` signs, its middle left out if need be.

    >>> shorten("a-very-long-method-name", 11)
    'a-ver…-name'
    """
    if len(name) <= length:
        return name
    head = (length - 1 + 1) // 2
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"
