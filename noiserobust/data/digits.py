"""The built-in data set: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn.

Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998 (its test part).
"""

from __future__ import annotations

import numpy as np
import torch

from noiserobust.data.arrays import ArrayData
from noiserobust.rng import Stream

TRAIN_SIZE = 1000


def load_digits(split: str) -> ArrayData:
    """Return 1,000 training or 797 test digits, always the same ones.

    Args:
        split: ``train`` or ``test``.

    Returns:
        x: N x 1 x 8 x 8, float32, in [0, 1] (the stored values 0 to 16 divided by 16); y: the digits 0 to 9.
    """
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    order = Stream(0, "digits-split").permutation(len(labels))
    chosen = order[:TRAIN_SIZE] if split == "train" else order[TRAIN_SIZE:]
    x = torch.from_numpy((images[chosen] / 16).astype(np.float32)).view(-1, 1, 8, 8)
    y = torch.from_numpy(labels[chosen].astype(np.int64))
    return ArrayData(x, y, "digits", tuple("0123456789"))
