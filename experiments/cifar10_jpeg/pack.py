"""The images of a folder as one file of arrays: nothing has to be decoded when it is read.

python experiments/cifar10_jpeg/pack.py cifar10-jpeg cifar10-jpeg.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from noiserobust.data.arrays import ArrayData
from noiserobust.data.registry import load_data


def pack(folder: Path, file: Path) -> None:
    """Write ``train_x``, ``train_y``, ``test_x`` and ``test_y``: uint8, N x H x W x C, and class numbers."""
    arrays = {}
    for split in ("train", "test"):
        data = load_data(f"imagefolder:{folder}", split)
        assert isinstance(data, ArrayData)
        arrays[f"{split}_x"] = data.x.permute(0, 2, 3, 1).numpy()
        arrays[f"{split}_y"] = data.y.numpy()
    np.savez(file, **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Images of a folder as one .npz file.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    pack(**vars(parser.parse_args()))
