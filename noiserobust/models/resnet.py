"""Residual networks for 32x32 images.

Parameters are named as in the PyTorch implementations that most published CIFAR weights come from (``conv1``, ``bn1``,
``layer1.0.conv1``, ..., ``shortcut.0``, ``linear``), so such files load as they are.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016: section 4.2 and table 6 (three
stages of 16, 32 and 64 channels, 6n + 2 layers) and table 1 (four stages of 64 to 512 channels, here with a 3x3 stem
and without the first pooling, as usual on 32x32 images).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiserobust.errors import check_integer
from noiserobust.models.blocks import BasicBlock, Block, Bottleneck, Stage, conv3x3, initialise


class ResNet(nn.Module):
    """A stem, stages of blocks, global average pooling and a linear layer.

    Convolutions start from He's normal initialisation (``fan_out``), the linear layer from torch's default.

    Args:
        blocks: number of blocks in each stage.
        widths: channels of each stage; each but the first starts with stride 2. The stem has the first one's.
        block: makes a block of (in_channels, channels, stride), such as
            :class:`~noiserobust.models.blocks.Bottleneck`.
        num_classes: number of outputs, >= 1.
        in_channels: channels of the images, >= 1.

    Raises:
        InvalidValueError: if ``num_classes`` or ``in_channels`` is no integer >= 1.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        block: Callable[[int, int, int], Block],
        *,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, minimum=1)
        check_integer("in_channels", in_channels, minimum=1)
        self.conv1 = conv3x3(in_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = [f"layer{number}" for number in range(1, len(widths) + 1)]
        channels = widths[0]
        for index, (name, depth, width) in enumerate(zip(self.stages, blocks, widths, strict=True)):
            stage = Stage(block, depth, channels, width, 2 if index else 1)
            self.add_module(name, stage)
            channels = stage.out_channels
        self.linear = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, N x in_channels x H x W, to logits, N x num_classes."""
        out = F.relu(self.bn1(self.conv1(x)))
        for name in self.stages:
            out = getattr(self, name)(out)
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
        return logits


def resnet20(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return the CIFAR ResNet-20 with parameter-free shortcuts (option A): 269,722 parameters for 10 classes.

    Variants with 1x1 convolutions on the shortcuts (option B) have 272,474 and other weights.
    """
    return _narrow(3, num_classes, in_channels)


def resnet32(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return the CIFAR ResNet-32, option A: 464,154 parameters for 10 classes."""
    return _narrow(5, num_classes, in_channels)


def resnet44(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return the CIFAR ResNet-44, option A: 658,586 parameters for 10 classes."""
    return _narrow(7, num_classes, in_channels)


def resnet56(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return the CIFAR ResNet-56, option A: 853,018 parameters for 10 classes."""
    return _narrow(9, num_classes, in_channels)


def resnet9(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return ResNet-18 with one block a stage, nine 3x3 convolutions deep: 4,903,242 parameters for 10 classes.

    "Incorruptible neural networks" (table 5) names a ResNet-9 that has the basic blocks of its ResNet-18 and 34, and
    says no more; this is the member of that family with nine such convolutions. Counted as He et al. do, with the
    linear layer, it is elsewhere called ResNet-10. The ResNet-9 of speed contests (6.6 M parameters, max-pooling)
    is another network.
    """
    return _wide((1, 1, 1, 1), BasicBlock, num_classes, in_channels)


def resnet18(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return ResNet-18 with a 3x3 stem and projection shortcuts: 11,173,962 parameters for 10 classes."""
    return _wide((2, 2, 2, 2), BasicBlock, num_classes, in_channels)


def resnet34(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return ResNet-34 with a 3x3 stem and projection shortcuts: 21,282,122 parameters for 10 classes."""
    return _wide((3, 4, 6, 3), BasicBlock, num_classes, in_channels)


def resnet50(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return ResNet-50 of bottlenecks, with a 3x3 stem: 23,520,842 parameters for 10 classes.

    The stride is that of the 3x3 convolution of a bottleneck ("ResNet-50 v1.5"), not of the first 1x1 one as in the
    paper; the number of parameters is the same.
    """
    return _wide((3, 4, 6, 3), Bottleneck, num_classes, in_channels)


def _narrow(depth: int, num_classes: int, in_channels: int) -> ResNet:
    block = partial(BasicBlock, projection=False)
    return ResNet((depth,) * 3, (16, 32, 64), block, num_classes=num_classes, in_channels=in_channels)


def _wide(blocks: Sequence[int], block: Callable[[int, int, int], Block], num_classes: int, in_channels: int) -> ResNet:
    return ResNet(blocks, (64, 128, 256, 512), block, num_classes=num_classes, in_channels=in_channels)
