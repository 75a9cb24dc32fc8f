"""What a network with transformed kernels costs: kernels shrink to the part that is not zero."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad
from torch.utils.flop_counter import FlopCounterMode

from noiserobust.noise.kernels import KernelTransform
from noiserobust.perturb import perturbed


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass.

    Args:
        flops: floating point operations, a multiply-add counting as two, as torch's FlopCounterMode counts them.
        parameters: number of parameters.
    """

    flops: int
    parameters: int


def dom_cost(
    model: nn.Module, transform: KernelTransform, example: Tensor, *, seed: int = 0, draw: int = 0
) -> tuple[Cost, Cost]:
    """Return the cost of a network and of what weight augmentation's desire-oriented mode (DOM) makes of it.

    Args:
        model: stays as it is.
        transform: as trained with.
        example: an input batch; the operations are those of this batch.
        seed: root seed of the transform.
        draw: number of the transform; seed and draw as for :func:`noiserobust.perturbed`.

    Returns:
        Costs with plain weights (AOM) and with transformed weights (DOM).
    """
    network = copy.deepcopy(model)
    plain = _cost(network, example)
    with perturbed(network, transform, seed, draw):
        shrunk = shrink_kernels(network)
    return plain, _cost(shrunk, example)


def shrink_kernels(model: nn.Module) -> nn.Module:
    """Return a copy in which convolutions have lost the outer rows and columns of their kernels that are all zero.

    The copy computes the same function, for inference.

    Args:
        model: two-dimensional convolutions with zero padding are shrunk, all else stays.
    """
    model = copy.deepcopy(model)
    shrunk: dict[nn.Module, nn.Module] = {}  # a convolution may be used under several names
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if _is_plain(module):
            assert isinstance(module, nn.Conv2d)
            parent, _, attribute = name.rpartition(".")
            if module not in shrunk:
                shrunk[module] = _Shrunk(module)
            small = shrunk[module]
            if not name:
                return small
            setattr(model.get_submodule(parent), attribute, small)
    return model


def _is_plain(module: nn.Module) -> bool:
    """Return whether this is a convolution with zero padding that computes what torch's does."""
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    return type(module).forward is nn.Conv2d.forward and type(module)._conv_forward is nn.Conv2d._conv_forward


class _Shrunk(nn.Module):
    """A convolution with the zero border of its kernels cut off and the padding moved accordingly."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        used = weight.ne(0).flatten(0, 1).any(0)
        (top, bottom), (left, right) = _span(used.any(1)), _span(used.any(0))
        self.weight = nn.Parameter(weight[:, :, top : bottom + 1, left : right + 1].clone())
        self.bias = convolution.bias
        self.stride, self.dilation, self.groups = convolution.stride, convolution.dilation, convolution.groups
        high, wide = (int(n) for n in convolution.padding)
        rows, columns = convolution.dilation
        height, width = weight.shape[-2:]
        # Rows cut off at the top move the input up by as many (dilated) rows: less padding there.
        self.padding = (
            wide - left * columns,
            wide - (width - 1 - right) * columns,
            high - top * rows,
            high - (height - 1 - bottom) * rows,
        )

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(pad(x, self.padding), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _span(used: Tensor) -> tuple[int, int]:
    """Return the first and last true position; the whole middle one if there is none."""
    positions = used.nonzero().flatten().tolist() or [len(used) // 2]
    return int(positions[0]), int(positions[-1])


def _cost(model: nn.Module, example: Tensor) -> Cost:
    training = model.training
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(example)
    model.train(training)
    return Cost(counter.get_total_flops(), sum(p.numel() for p in model.parameters()))
