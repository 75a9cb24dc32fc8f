"""Wide residual networks for 32x32 images: few layers, many channels.

Source: Zagoruyko, Komodakis, "Wide residual networks", BMVC 2016, table 1 and section 2, block B(3,3) without dropout.
The code published with the RWP paper puts a block more into each stage: its WRN-28-10 and WRN-16-8 have the layers of
``wrn-34-10`` and ``wrn-22-8`` here.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.models.blocks import Block, Stage, conv1x1, conv3x3, initialise

WRN_NAME = "wrn-<depth>-<width>"


class PreActivationBlock(Block):
    """Batch norm and ReLU before each of two 3x3 convolutions, and a shortcut around them.

    Where the shape changes, the shortcut is a 1x1 convolution that starts from the activated input, as in the authors'
    code.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: 2 halves the image, 1 keeps it.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        keeps_shape = stride == 1 and in_channels == channels
        self.shortcut = None if keeps_shape else conv1x1(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x in_channels x H x W to N x channels x H/stride x W/stride."""
        active = F.relu(self.bn1(x))
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """A stem of 16 channels, three stages of 16k, 32k and 64k channels, global average pooling and a linear layer.

    Convolutions start from He's normal initialisation (``fan_out``), the linear layer from torch's default. Parameters
    are named as those of :class:`~noiserobust.models.resnet.ResNet`.

    Args:
        depth: number of layers, 6n + 4 for n blocks a stage.
        width: the factor k, >= 1.
        num_classes: number of outputs, >= 1.
        in_channels: channels of the images, >= 1.

    Raises:
        InvalidValueError: if ``depth`` is not 6n + 4, or another argument no integer >= 1.
    """

    def __init__(self, depth: int, width: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        check_integer("depth", depth, minimum=10)
        if depth % 6 != 4:
            raise InvalidValueError(
                f"Expected `depth` of a wide ResNet to be 6n + 4 (10, 16, 22, 28, ...), but got {depth}"
            )
        check_integer("width", width, minimum=1)
        check_integer("num_classes", num_classes, minimum=1)
        check_integer("in_channels", in_channels, minimum=1)
        blocks = (depth - 4) // 6
        self.conv1 = conv3x3(in_channels, 16)
        self.layer1 = Stage(PreActivationBlock, blocks, 16, 16 * width, 1)
        self.layer2 = Stage(PreActivationBlock, blocks, 16 * width, 32 * width, 2)
        self.layer3 = Stage(PreActivationBlock, blocks, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.linear = nn.Linear(64 * width, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, N x in_channels x H x W, to logits, N x num_classes."""
        out = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        out = F.adaptive_avg_pool2d(F.relu(self.bn1(out)), 1)
        logits: Tensor = self.linear(torch.flatten(out, 1))
        return logits


def wrn_shape(name: str) -> tuple[int, int] | None:
    """Return depth and width of a name such as ``wrn-28-10``, or None if it has another form.

    >>> wrn_shape("wrn-28-10")
    (28, 10)
    """
    match = re.fullmatch(r"wrn-([0-9]{1,4})-([0-9]{1,4})", name)
    return (int(match[1]), int(match[2])) if match else None
