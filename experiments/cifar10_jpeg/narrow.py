"""A ResNet for two cores: a sixteenth of the work of the CIFAR ResNet of the same depth at its default width."""

from __future__ import annotations

from functools import partial

from noiserobust.models.blocks import BasicBlock
from noiserobust.models.resnet import ResNet


def resnet(num_classes: int = 10, in_channels: int = 3, depth: int = 20, width: int = 8) -> ResNet:
    """Return a CIFAR ResNet, option A, of ``width``, twice and four times ``width`` channels and stride 2 in the stem.

    Args:
        num_classes: number of outputs, >= 1.
        in_channels: channels of the images, >= 1.
        depth: 6 n + 2.
        width: channels of the stem and of the first stage; 16 in the usual network.
    """
    block = partial(BasicBlock, projection=False)
    blocks, widths = ((depth - 2) // 6,) * 3, (width, 2 * width, 4 * width)
    model = ResNet(blocks, widths, block, num_classes=num_classes, in_channels=in_channels)
    model.conv1.stride = (2, 2)
    return model
