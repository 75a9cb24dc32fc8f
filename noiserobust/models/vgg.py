"""VGG for 32x32 images.

Parameters are named (``features.0``, ..., ``classifier``) and convolutions have a bias as in the PyTorch implementation
that most published CIFAR weights come from.

Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, table 1,
column D; batch norm after each convolution is of later date.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiserobust.errors import check_integer
from noiserobust.models.blocks import initialise

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the 3x3 convolutions; each group ends in a max-pooling that halves the image."""


class VGG(nn.Module):
    """Groups of 3x3 convolutions with batch norm and ReLU, global average pooling and one linear layer.

    A 32x32 image is a single pixel after the last max-pooling. Convolutions start from He's normal initialisation
    (``fan_out``), the linear layer from torch's default.

    Args:
        groups: output channels of the convolutions, as :data:`VGG16`.
        num_classes: number of outputs, >= 1.
        in_channels: channels of the images, >= 1.

    Raises:
        InvalidValueError: if ``num_classes`` or ``in_channels`` is no integer >= 1.
    """

    def __init__(self, groups: tuple[tuple[int, ...], ...], *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, minimum=1)
        check_integer("in_channels", in_channels, minimum=1)
        layers: list[nn.Module] = []
        channels = in_channels
        for group in groups:
            for width in group:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, N x in_channels x H x W with H, W >= 32, to logits, N x num_classes."""
        logits: Tensor = self.classifier(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))
        return logits


def vgg16_bn(num_classes: int = 10, in_channels: int = 3) -> VGG:
    """Return VGG-16 with batch norm and a single linear layer 512 - num_classes: 14,728,266 parameters for 10 classes.

    Some papers keep two hidden layers of 512 with dropout in front of it: 15,253,578 parameters and other weights.
    """
    return VGG(VGG16, num_classes=num_classes, in_channels=in_channels)
