"""Draw what is recorded here: accuracy over time for every device, and what training for a device gains.

python plot.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

HERE = Path(__file__).parent
TIMES = {"1 s": 1.0, "1 h": 3600.0, "1 d": 86400.0, "1 mo": 2629800.0, "1 y": 31557600.0}
RAW = "-compensation=none"


def bars(axes: plt.Axes, draws: pd.DataFrame, label: str, **style: object) -> None:
    """Draw mean and standard deviation over chips."""
    noisy = draws[draws["level"] > 0].groupby("level")["value"].agg(["mean", "std"])
    axes.errorbar(noisy.index, noisy["mean"], yerr=noisy["std"], label=label, capsize=2, marker="o", ms=3, **style)


def over_time() -> None:
    """One panel a device: as read, and compensated."""
    draws = pd.read_csv(HERE / "draws.csv")
    draws = draws[(draws["experiment"] == "drift")]
    names = [n for n in draws["noise"].unique() if not n.endswith(RAW)]
    figure, panels = plt.subplots(2, 4, figsize=(12, 5.6), sharex=True, sharey=True, layout="constrained")
    for axes, name in zip(panels.flat, names, strict=True):
        axes.axhline(draws[draws["level"] == 0]["value"].iloc[0], color="0.6", lw=0.8, label="without noise")
        bars(axes, draws[draws["noise"] == name], "compensated", color="C0")
        bars(axes, draws[draws["noise"] == name + RAW], "as read", color="C3")
        axes.set_xscale("log")
        axes.set_xticks(list(TIMES.values()), list(TIMES), minor=False)
        axes.minorticks_off()
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.3)
    panels[1, 0].legend(fontsize=9, loc="lower right")  # the device of which least is known
    figure.supylabel("accuracy in percent; bars: standard deviation over 10 chips", fontsize=9)
    figure.supxlabel("time since programming", fontsize=9)
    figure.savefig(HERE / "figures" / "over_time.png", dpi=150)


def tile() -> None:
    """PCM with errors of the weights alone, and with the whole tile."""
    draws = pd.read_csv(HERE / "draws.csv")
    draws = draws[draws["experiment"] == "tile"]
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for axes, end, title in zip(panels, ("", RAW), ("compensated", "as read"), strict=True):
        name = f"pcm-nandakumar-2019{end}"
        bars(axes, draws[draws["noise"] == name], "noisy weights", color="C0")
        bars(axes, draws[draws["noise"] == f"{name}+tile"], "full tile", color="C1")
        axes.set_xscale("log")
        axes.set_xticks(list(TIMES.values()), list(TIMES), minor=False)
        axes.minorticks_off()
        axes.set_title(f"pcm-nandakumar-2019, {title}", fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8, loc="lower left")
    panels[0].set_ylabel("accuracy in percent", fontsize=9)
    figure.supxlabel("time since programming; bars: standard deviation over 10 chips", fontsize=9)
    figure.savefig(HERE / "figures" / "tile.png", dpi=150)


if __name__ == "__main__":
    (HERE / "figures").mkdir(exist_ok=True)
    over_time()
    tile()
