"""Running statistics of normalisation layers: kept from passes they should not see, and measured anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList

from noiserobust.errors import InvalidValueError


def statistics(model: nn.Module) -> list[Tensor]:
    """Return the running means, variances and batch counts of Batch- and InstanceNorm; the buffers, not copies."""
    return [b for m in model.modules() if isinstance(m, _NormBase) for b in m.buffers(recurse=False)]


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Let no pass inside the block change running means, variances and batch counts of Batch- and InstanceNorm.

    The layers still normalise by the batch in training mode. Their buffers are restored bit for bit, whatever happens.
    """
    buffers = statistics(model)
    # The power iteration of spectral normalisation goes on in each pass, too.
    lists = [m for m in model.modules() if isinstance(m, ParametrizationList)]
    buffers += [b for chain in lists for b in chain.buffers()]
    saved = [b.clone() for b in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)


def recalibrate(model: nn.Module, batches: Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]]) -> None:
    """Measure the running statistics of Batch- and InstanceNorm anew, with the weights as they are now.

    For weights that are not those the statistics were taken with: a noisy chip, or transformed kernels. Each batch
    counts the same; dropout is off. Modes of the modules are left as they were.

    Args:
        model: its statistics are changed.
        batches: inputs as the model takes them, or tuples of which the first is that, such as a DataLoader yields.

    Raises:
        InvalidValueError: if there is no batch. After this and any other error the statistics are what they were.

    >>> model = torch.nn.BatchNorm1d(1)
    >>> recalibrate(model, [torch.tensor([[1.0], [3.0]])])
    >>> model.running_mean
    tensor([2.])
    """
    layers = [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    saved = [b.clone() for b in statistics(model)]
    number = 0
    modes = [(m, m.training) for m in model.modules()]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    try:
        with torch.no_grad():
            for number, batch in enumerate(batches, start=1):
                for layer in layers:
                    layer.momentum = 1 / number  # the plain mean over batches
                model(batch if isinstance(batch, Tensor) else batch[0])
        if not number:
            raise InvalidValueError("Expected `batches` to hold at least one batch, but got none")
    except BaseException:
        with torch.no_grad():
            for buffer, value in zip(statistics(model), saved, strict=True):
                buffer.copy_(value)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in modes:
            module.training = mode
