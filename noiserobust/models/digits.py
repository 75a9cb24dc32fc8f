"""Small networks for the built-in 8x8 digits."""

from __future__ import annotations

from torch import nn

from noiserobust.errors import check_integer


def digits_mlp(num_classes: int = 10, hidden: int = 256) -> nn.Sequential:
    """Return a perceptron 64 - hidden - num_classes with ReLU: 19,210 parameters by default.

    Args:
        num_classes: number of outputs, >= 1.
        hidden: width of the hidden layer, >= 1.

    Returns:
        A network from N x 1 x 8 x 8 (or N x 64), float32, to logits N x num_classes.

    Raises:
        InvalidValueError: if an argument is no integer >= 1.
    """
    check_integer("num_classes", num_classes, minimum=1)
    check_integer("hidden", hidden, minimum=1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))


def digits_cnn(num_classes: int = 10) -> nn.Sequential:
    """Return three 3x3 convolutions (16, 32, 64 channels) with batch norm: 24,058 parameters for 10 classes.

    Args:
        num_classes: number of outputs, >= 1.

    Returns:
        A network from N x 1 x 8 x 8, float32, to logits N x num_classes.

    Raises:
        InvalidValueError: if ``num_classes`` is no integer >= 1.
    """
    check_integer("num_classes", num_classes, minimum=1)
    return nn.Sequential(
        *_convolution(1, 16),
        *_convolution(16, 32, stride=2),
        *_convolution(32, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, num_classes),
    )


def _convolution(in_channels: int, channels: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()
