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
from noiserobust.noise.measured import Fit, expected
from noiserobust.noise.measurements import Measurements
from noiserobust.report.figures.style import MARKERS, PALETTE, STYLE, WIDE
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
        return _saved(figure, kind)


def plot_fit(fit: Fit, measurements: Measurements, kind: str) -> bytes:
    """Return a picture of measurements and what was fitted to them as the bytes of a file.

    Args:
        fit: the device.
        measurements: what it was fitted to.
        kind: ``"png"`` or ``"svg"``.
    """
    data, profile = measurements, fit.profile
    times = np.unique(data.time_s)
    with matplotlib.style.context(["default", str(STYLE)]):
        figure = Figure(figsize=WIDE, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        first = data.time_s == times[0]
        shown = np.flatnonzero(first)[:: max(1, int(first.sum()) // 2000)]
        error = data.measured_us - data.target_us
        left.plot(data.target_us[shown], error[shown], ".", color=PALETTE[4], alpha=0.4, label="measured")
        grid = np.linspace(data.target_us.min(), data.target_us.max(), 101)
        mean, std = expected(profile, grid, float(times[0]))
        left.plot(grid, mean - grid, color=PALETTE[0], label="fitted mean")
        left.fill_between(grid, mean - grid - std, mean - grid + std, color=PALETTE[0], alpha=0.2, label="± 1 std")
        left.set(xlabel="target, µS", ylabel="measured - target, µS")
        left.set_title(f"First reading, {format_time(float(times[0]))}")
        left.legend()
        levels = np.quantile(np.unique(data.target_us), [0.2, 0.5, 1.0], method="nearest")
        for level, colour, marker in zip(np.unique(levels), PALETTE, MARKERS, strict=False):
            own = data.target_us == level
            there = [t for t in times if (own & (data.time_s == t)).any()]
            values = [data.measured_us[own & (data.time_s == t)].mean() for t in there]
            right.plot(there, values, marker, color=colour, label=f"target {level:.3g} µS")
            line = np.geomspace(times[0], times[-1], 50)
            right.plot(line, [expected(profile, np.array([level]), float(t))[0][0] for t in line], color=colour)
        right.set(xscale="log", xlabel="time since programming", ylabel="mean of measured, µS")
        right.set_title("Drift: measured (marks), fitted (lines)")
        right.set_ylim(bottom=0)
        right.xaxis.set_major_locator(FixedLocator([float(t) for t in times[:: max(1, len(times) // 5)]]))
        right.xaxis.set_minor_locator(NullLocator())
        right.xaxis.set_major_formatter(FuncFormatter(lambda t, _: format_time(float(t))))
        right.legend()
        figure.suptitle(fit.profile.name)
        return _saved(figure, kind)


def _saved(figure: Figure, kind: str) -> bytes:
    file = BytesIO()
    empty = ["Date", "Creator", "Format", "Type"] if kind == "svg" else ["Software"]
    figure.savefig(file, format=kind, metadata=dict.fromkeys(empty))
    return file.getvalue()
