"""Numbers of parameters: as published, and added up by hand from the shapes of the layers."""

from itertools import pairwise

import pytest
import torch

from noiserobust.models.registry import MODELS, build_model


def conv(size, inputs, outputs):
    return size * size * inputs * outputs


def norm(channels):
    return 2 * channels


def linear(inputs, outputs):
    return inputs * outputs + outputs


def narrow_resnet(n, classes=10, colours=3):
    """6n + 2 layers: a stem, n blocks of two 3x3 convolutions at 16, 32, 64 channels, shortcuts without parameters."""
    stem = conv(3, colours, 16) + norm(16)
    stage1 = n * 2 * (conv(3, 16, 16) + norm(16))
    stage2 = conv(3, 16, 32) + (2 * n - 1) * conv(3, 32, 32) + 2 * n * norm(32)
    stage3 = conv(3, 32, 64) + (2 * n - 1) * conv(3, 64, 64) + 2 * n * norm(64)
    return stem + stage1 + stage2 + stage3 + linear(64, classes)


def basic_resnet(depths, classes=10, colours=3):
    total = conv(3, colours, 64) + norm(64)
    for depth, before, width in zip(depths, (64, 64, 128, 256), (64, 128, 256, 512), strict=True):
        total += conv(3, before, width) + (2 * depth - 1) * conv(3, width, width) + 2 * depth * norm(width)
        total += conv(1, before, width) + norm(width) if before != width else 0
    return total + linear(512, classes)


def bottleneck_resnet(depths, classes=10, colours=3):
    total = conv(3, colours, 64) + norm(64)
    for depth, before, width in zip(depths, (64, 256, 512, 1024), (64, 128, 256, 512), strict=True):
        total += conv(1, before, width) + (depth - 1) * conv(1, 4 * width, width)  # narrow
        total += depth * (conv(3, width, width) + conv(1, width, 4 * width))  # look around, widen
        total += depth * (2 * norm(width) + norm(4 * width))
        total += conv(1, before, 4 * width) + norm(4 * width)  # the shortcut of the first block
    return total + linear(2048, classes)


def wide_resnet(depth, k, classes=10, colours=3):
    n = (depth - 4) // 6
    total = conv(3, colours, 16)
    for before, width in ((16, 16 * k), (16 * k, 32 * k), (32 * k, 64 * k)):
        total += norm(before) + conv(3, before, width) + (2 * n - 1) * (norm(width) + conv(3, width, width))
        total += conv(1, before, width) if before != width else 0
    return total + norm(64 * k) + linear(64 * k, classes)


def vgg16(classes=10, colours=3):
    channels = [colours, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(conv(3, before, width) + width + norm(width) for before, width in pairwise(channels))
    return convolutions + linear(512, classes)


def vit(classes=10, colours=3):
    attention = norm(512) + linear(512, 3 * 512) + linear(512, 512)
    perceptron = norm(512) + linear(512, 512) + linear(512, 512)
    tokens = linear(4 * 4 * colours, 512) + 512 + (1 + 64) * 512  # patches, the class token, positions
    return tokens + 6 * (attention + perceptron) + norm(512) + linear(512, classes)


# Published to the last digit: ResNet-18, ResNet-50, VGG-16 by Sun et al., "NeuralFuse", NeurIPS 2024, table 7;
# ResNet-34 and ResNet-9 (as ResNet-10) in READMEs of pytorch-cifar's users; WRN-16-10, 28-10, 40-8 in the tables of
# osmr/imgclsmob. Papers give the other ResNets and WRNs in millions (below); WRN-16-5, WRN-16-15 and the vision
# transformer nowhere: for them the arithmetic above is what stands.
SIZES = {
    "digits-mlp": (19_210, lambda classes: linear(64, 256) + linear(256, classes)),
    "digits-cnn": (
        24_058,
        lambda classes: conv(3, 1, 16) + conv(3, 16, 32) + conv(3, 32, 64) + norm(112) + linear(64, classes),
    ),
    "resnet20": (269_722, lambda *a: narrow_resnet(3, *a)),
    "resnet32": (464_154, lambda *a: narrow_resnet(5, *a)),
    "resnet44": (658_586, lambda *a: narrow_resnet(7, *a)),
    "resnet56": (853_018, lambda *a: narrow_resnet(9, *a)),
    "resnet9": (4_903_242, lambda *a: basic_resnet((1, 1, 1, 1), *a)),
    "resnet18": (11_173_962, lambda *a: basic_resnet((2, 2, 2, 2), *a)),
    "resnet34": (21_282_122, lambda *a: basic_resnet((3, 4, 6, 3), *a)),
    "resnet50": (23_520_842, lambda *a: bottleneck_resnet((3, 4, 6, 3), *a)),
    "wrn-16-5": (4_289_754, lambda *a: wide_resnet(16, 5, *a)),
    "wrn-16-8": (10_961_370, lambda *a: wide_resnet(16, 8, *a)),
    "wrn-16-10": (17_116_634, lambda *a: wide_resnet(16, 10, *a)),
    "wrn-16-15": (38_481_114, lambda *a: wide_resnet(16, 15, *a)),
    "wrn-28-10": (36_479_194, lambda *a: wide_resnet(28, 10, *a)),
    "wrn-40-8": (35_748_314, lambda *a: wide_resnet(40, 8, *a)),
    "wrn-34-10": (46_160_474, lambda *a: wide_resnet(34, 10, *a)),
    "wrn-16-1": (175_066, lambda *a: wide_resnet(16, 1, *a)),
    "vgg16-bn": (14_728_266, vgg16),
    "vit": (9_532_938, vit),
}

# He et al. 2016, table 6 (two digits); Zagoruyko and Komodakis 2016, tables 4 and 5 (one digit).
MILLIONS = {
    "resnet20": "0.27",
    "resnet32": "0.46",
    "resnet44": "0.66",
    "resnet56": "0.85",
    "wrn-40-1": "0.6",
    "wrn-40-2": "2.2",
    "wrn-40-4": "8.9",
    "wrn-40-8": "35.7",
    "wrn-28-10": "36.5",
    "wrn-28-12": "52.5",
    "wrn-22-8": "17.2",
    "wrn-22-10": "26.8",
    "wrn-16-8": "11.0",
    "wrn-16-10": "17.1",
}


def count(name, **arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(name, arguments).parameters())


def test_the_size_of_every_registered_model_is_known():
    assert set(MODELS) <= set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_the_number_of_parameters_is_the_published_one_and_the_sum_of_the_layers(name):
    published, arithmetic = SIZES[name]
    assert published == arithmetic(10)
    assert count(name) == published
    assert count(name, num_classes=100) == arithmetic(100)
    if not name.startswith("digits"):
        assert count(name, in_channels=1) == arithmetic(10, 1)


@pytest.mark.parametrize("name", MILLIONS)
def test_the_millions_of_parameters_are_those_of_the_papers(name):
    digits = len(MILLIONS[name].partition(".")[2])
    assert f"{count(name) / 1e6:.{digits}f}" == MILLIONS[name]
