"""Prints the weights of the last epoch of what sweeps have trained.

python experiments/trained.py runs/cifar experiments/incorruptible/small/table1.yaml ... --methods sgd "rwp 0.2"
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

from noiserobust.cli.sweep import read
from noiserobust.sweep.plan import training_folder


def last(out: Path, grids: Sequence[Path], methods: Collection[str] | None = None) -> list[Path]:
    """Return the files of all finished trainings of grids, or of some methods, each once, in their order."""
    jobs = {name: job for grid in grids for name, job in read(grid).jobs.items()}
    wanted = [name for name, job in jobs.items() if methods is None or job.method in methods]
    return [path for name in wanted for path in sorted(training_folder(out, name).glob("seed*/last.safetensors"))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The weights of the last epoch of what sweeps have trained.")
    parser.add_argument("out", type=Path, help="folder of the sweeps")
    parser.add_argument("grids", type=Path, nargs="+", help="files of sweeps")
    parser.add_argument("--methods", nargs="+", help="names of those to print, by default all")
    args = parser.parse_args()
    print(*last(args.out, args.grids, args.methods), sep="\n")
