"""Prints the weights of the last epoch of what sweeps have trained.

python experiments/trained.py runs/cifar experiments/incorruptible/small/table1.yaml ...
"""

from __future__ import annotations

import argparse
from pathlib import Path

from noiserobust.cli.sweep import read
from noiserobust.sweep.plan import training_folder


def last(out: Path, grids: list[Path]) -> list[Path]:
    """Return the files of all finished trainings of grids, each once, in their order."""
    names = dict.fromkeys(name for grid in grids for name in read(grid).jobs)
    return [path for name in names for path in sorted(training_folder(out, name).glob("seed*/last.safetensors"))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The weights of the last epoch of what sweeps have trained.")
    parser.add_argument("out", type=Path, help="folder of the sweeps")
    parser.add_argument("grids", type=Path, nargs="+", help="files of sweeps")
    args = parser.parse_args()
    print(*last(args.out, args.grids), sep="\n")
