"""How trainings went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from noiserobust.report.figures.style import GREY, draw, look, name_marks, shorten

LOSS, CLEAN, PERTURBED = "train_loss", "held_out_accuracy", "held_out_perturbed_accuracy"


def draw_trainings(
    metrics: Mapping[str, Sequence[pd.DataFrame]],
    methods: Sequence[str],
    size: tuple[float, float],
    kinds: Sequence[str] = ("svg",),
) -> Mapping[str, bytes]:
    """Return training loss and held-out accuracies by epoch, a line a training.

    Args:
        metrics: for each method the ``metrics.csv`` of its trainings.
        methods: all methods of the report.
        size: width and height in inches.
        kinds: some of ``"svg"``, ``"png"``, ``"pdf"``.
    """
    narrow = size[0] < 6

    def plot(figure: Figure) -> None:
        left, right = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        for method, frames in metrics.items():
            color, _ = look(methods, method)
            for frame in frames:
                left.plot(frame["epoch"], frame[LOSS], color=color, linewidth=1.2)
                if CLEAN in frame and frame[CLEAN].notna().any():
                    right.plot(frame["epoch"], frame[CLEAN], color=color, linewidth=1.0, linestyle=(0, (4, 2)))
                    right.plot(frame["epoch"], frame[PERTURBED], color=color, linewidth=1.4)
                    best = frame[frame["best"].astype(bool)].tail(1)
                    right.plot(best["epoch"], best[PERTURBED], "o", color=color, markersize=5)
        left.set(xlabel="epoch", ylabel="training loss")
        right.set(xlabel="epoch", ylabel="held-out accuracy (%)")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        handles = [Line2D([], [], color=look(methods, m)[0], label=shorten(m, 24)) for m in metrics]
        handles += [
            Line2D([], [], color=GREY, label="under noise"),
            Line2D([], [], color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), label="clean"),
            Line2D([], [], color=GREY, marker="o", linestyle="none", label="epoch kept"),
        ]
        name_marks(figure, handles, 2 if narrow else 5)

    return draw(plot, size, kinds)
