"""Pictures of devices."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from noiserobust.diagnose.errors import drift, spread
from noiserobust.noise.device import DeviceNoise
from noiserobust.report.figures import PALETTE, STYLE, WIDE
from noiserobust.times import format_time


def plot_profile(noise: DeviceNoise, times: Sequence[float], kind: str, *, seed: int = 0) -> bytes:
    """Return a picture of a device as the bytes of a file: its error by the size of a weight, and over time.

    Args:
        noise: the device.
        times: in seconds, at least one.
        kind: ``"png"`` or ``"svg"``.
        seed: root seed of the chips that are measured.
    """
    times = sorted(times)
    with matplotlib.style.context(["default", str(STYLE)]):
        figure = Figure(figsize=WIDE, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        shades = np.linspace(0.35, 1, len(times))
        for t, shade in zip(times, shades, strict=True):
            sizes, stds = spread(noise, t, chips=2000, seed=seed)
            left.plot(100 * sizes, 100 * stds, color=PALETTE[0], alpha=shade, label=format_time(t))
        left.set(xlabel="weight, % of the largest", ylabel="std of the error, % of the largest weight")
        left.set_title("Without compensation, by size of the weight")
        left.set_ylim(bottom=0)
        left.legend(title="time")
        found = drift(noise, times, seed)
        at = [d.t for d in found]
        compensated = noise.profile.compensation.replace("_", " ")
        right.plot(at, [100 * d.raw for d in found], color=PALETTE[1], marker="o", label="no compensation")
        if compensated != "none":
            values = [100 * d.compensated for d in found]
            right.plot(at, values, color=PALETTE[2], marker="s", label=f"compensation: {compensated}")
        right.set(xscale="log", xlabel="time since programming", ylabel="rms error, % of the largest weight")
        right.set_title("Gaussian weights, over time")
        right.set_ylim(bottom=0)
        right.xaxis.set_major_locator(FixedLocator(at))
        right.xaxis.set_minor_locator(NullLocator())
        right.xaxis.set_major_formatter(FuncFormatter(lambda t, _: format_time(float(t))))
        right.legend()
        figure.suptitle(noise.name)
        file = BytesIO()
        empty = ["Date", "Creator", "Format", "Type"] if kind == "svg" else ["Software"]
        figure.savefig(file, format=kind, metadata=dict.fromkeys(empty))
    return file.getvalue()
