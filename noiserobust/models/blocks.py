"""Building blocks that the residual networks share.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, figure 5 and section 4.2; their
initialisation: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, equation 14.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


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


class Block(nn.Module):
    """A part of a residual network that knows how many channels it puts out."""

    out_channels: int


class Stage(nn.Sequential):
    """Blocks in a row, of which the first changes the shape.

    Args:
        block: makes a block of (in_channels, channels, stride).
        depth: number of blocks, >= 1.
        in_channels: channels of the input.
        channels: what each block is asked for.
        stride: of the first block.
    """

    def __init__(
        self, block: Callable[[int, int, int], Block], depth: int, in_channels: int, channels: int, stride: int
    ) -> None:
        first = block(in_channels, channels, stride)
        super().__init__(first, *(block(first.out_channels, channels, 1) for _ in range(depth - 1)))
        self.out_channels = first.out_channels


class BasicBlock(Block):
    """Two 3x3 convolutions and a shortcut around them.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: 2 halves the image, 1 keeps it.
        projection: where the shape changes, a 1x1 convolution on the shortcut (option B) and not
            :class:`PadShortcut` (option A).
    """

    def __init__(self, in_channels: int, channels: int, stride: int, projection: bool = True) -> None:
        super().__init__()
        self.out_channels = channels
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module
        if projection or (stride == 1 and in_channels == channels):
            self.shortcut = _shortcut(in_channels, channels, stride)
        else:
            self.shortcut = PadShortcut(channels - in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x in_channels x H x W to N x channels x H/stride x W/stride."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(Block):
    """A 1x1 convolution, a 3x3 one with the stride, a 1x1 one to four times the channels, and a shortcut around them.

    Args:
        in_channels: channels of the input.
        channels: channels inside; the output has four times as many.
        stride: 2 halves the image, 1 keeps it.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.out_channels = 4 * channels
        self.conv1 = conv1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv1x1(channels, self.out_channels)
        self.bn3 = nn.BatchNorm2d(self.out_channels)
        self.shortcut = _shortcut(in_channels, self.out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x in_channels x H x W to N x 4 channels x H/stride x W/stride."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


def conv3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias that keeps the size of the image, or halves it with stride 2."""
    return nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, channels, 1, stride, bias=False)


def initialise(model: nn.Module) -> None:
    """Draw the convolutions from He's normal distribution (``fan_out``) and set their biases to zero.

    Linear layers keep torch's default.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))
