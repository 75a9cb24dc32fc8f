"""Residual networks for 32x32 images.

Parameters are named as in the PyTorch implementations that most published CIFAR weights come from (``conv1``, ``bn1``,
``layer1.0.conv1``, ..., ``shortcut.0``, ``linear``), so such files load as they are.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2 (ResNet-20) and
table 1 (ResNet-18, here with a 3x3 stem and without the first pooling, as usual on 32x32 images).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiserobust.errors import check_integer


class PadShortcut(nn.Module):
    """Shortcut without parameters (He et al., option A): every second pixel, new channels filled with zeros.

    Args:
        new_channels: number of channels to add, half of them in front.
    """

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.padding = (0, 0, 0, 0, new_channels // 2, new_channels - new_channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to N x (C + new) x ceil(H / 2) x ceil(W / 2)."""
        return F.pad(x[:, :, ::2, ::2], self.padding)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: 2 halves the image, 1 keeps it.
        projection: where the shape changes, a 1x1 convolution on the shortcut (option B) and not
            :class:`PadShortcut` (option A).
    """

    def __init__(self, in_channels: int, channels: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module
        if stride == 1 and in_channels == channels:
            self.shortcut = nn.Identity()
        elif projection:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        else:
            self.shortcut = PadShortcut(channels - in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x in_channels x H x W to N x channels x H/stride x W/stride."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of :class:`BasicBlock`, global average pooling and a linear layer.

    Convolutions start from He's normal initialisation (``fan_out``), the linear layer from torch's default.

    Args:
        blocks: number of blocks in each stage.
        widths: channels of each stage; each but the first starts with stride 2. The stem has the first one's.
        projection: see :class:`BasicBlock`.
        num_classes: number of outputs, >= 1.
        in_channels: channels of the images, >= 1.

    Raises:
        InvalidValueError: if ``num_classes`` or ``in_channels`` is no integer >= 1.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        *,
        projection: bool,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, minimum=1)
        check_integer("in_channels", in_channels, minimum=1)
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = [f"layer{number}" for number in range(1, len(widths) + 1)]
        channels = widths[0]
        for index, (name, depth, width) in enumerate(zip(self.stages, blocks, widths, strict=True)):
            first = BasicBlock(channels, width, 2 if index else 1, projection)
            rest = (BasicBlock(width, width, 1, projection) for _ in range(depth - 1))
            self.add_module(name, nn.Sequential(first, *rest))
            channels = width
        self.linear = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

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
    return _narrow((3, 3, 3), num_classes, in_channels)


def resnet18(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return ResNet-18 with a 3x3 stem and projection shortcuts: 11,173,962 parameters for 10 classes."""
    return _wide((2, 2, 2, 2), num_classes, in_channels)


def _narrow(blocks: Sequence[int], num_classes: int, in_channels: int) -> ResNet:
    return ResNet(blocks, (16, 32, 64), projection=False, num_classes=num_classes, in_channels=in_channels)


def _wide(blocks: Sequence[int], num_classes: int, in_channels: int) -> ResNet:
    return ResNet(blocks, (64, 128, 256, 512), projection=True, num_classes=num_classes, in_channels=in_channels)
