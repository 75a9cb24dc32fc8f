"""Running statistics of normalisation layers during passes they should not see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Let no pass inside the block change running means, variances and batch counts of Batch- and InstanceNorm.

    The layers still normalise by the batch in training mode. Their buffers are restored bit for bit, whatever happens.
    """
    buffers = [b for m in model.modules() if isinstance(m, _NormBase) for b in m.buffers(recurse=False)]
    saved = [b.clone() for b in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)
