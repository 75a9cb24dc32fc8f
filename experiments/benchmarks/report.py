"""What a large report takes: 20 methods with 5 train seeds, 10 levels, 100 chips, 100,000 draws and more."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from noiserobust.results.store import as_frame
from noiserobust.results.summary import summarize

METHODS, SEEDS, DRAWS = 20, 5, 100
LEVELS = [0.0, *(0.02 * i for i in range(1, 11))]
LIMIT_S, LIMIT_MB = 15, 8


def report() -> None:
    """Write the results, report them as a command, and say how long it took and how large the page is."""
    with tempfile.TemporaryDirectory() as folder:
        results, out = Path(folder) / "results", Path(folder) / "report"
        rows = _write(results)
        start = time.perf_counter()
        plain = [sys.executable, "-c", f"import pandas; print(len(pandas.read_csv({str(results / 'draws.csv')!r})))"]
        subprocess.run(plain, check=True, capture_output=True)
        read = time.perf_counter() - start
        start = time.perf_counter()
        command = [sys.executable, "-m", "noiserobust", "report", str(results), "--spec", "75", "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ})
        seconds = time.perf_counter() - start
        size = (out / "report.html").stat().st_size / 1e6
    print(f"\nReport of {rows:,} draws, {METHODS} methods (limits: {LIMIT_S} s, {LIMIT_MB} MB)")
    print(f"  noiserobust report                           {seconds:9.1f} s    {seconds / read:6.1f} x reading the CSV")
    print(f"  report.html                                  {size:9.1f} MB")


def _write(folder: Path) -> int:
    """Write what an evaluation would have; its rows are made here."""
    rng = np.random.default_rng(0)
    rows = []
    for m in range(METHODS):
        for seed in range(SEEDS):
            offset, luck = rng.normal(0, 0.5), rng.gamma(2.0, size=DRAWS)
            for level in LEVELS:
                fall = (900 - 25 * m) * level**2
                for draw in range(DRAWS if level else 1):
                    value = 93 + offset - fall * (1 + 0.2 * luck[draw]) if level else 93 + offset
                    value = round(min(max(value, 10), 100), 2)
                    key = {"method": f"method-{m:02}", "train_seed": seed, "weights": f"method-{m:02}/{seed}.pt"}
                    key |= {"noise": "gaussian", "level_name": "sigma", "level": level, "draw": draw}
                    rows.append({**key, "metric": "accuracy", "value": value, "n_examples": 10_000})
    frame = as_frame(rows)
    folder.mkdir()
    frame.to_csv(folder / "draws.csv", index=False)
    summarize(frame).to_csv(folder / "summary.csv", index=False)
    return len(frame)


if __name__ == "__main__":
    report()
