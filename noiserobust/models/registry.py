"""Networks by name, or from a user's own function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from noiserobust.callables import call, load_callable, names_callable
from noiserobust.errors import InvalidValueError, unknown_name
from noiserobust.models import resnet
from noiserobust.models.digits import digits_cnn, digits_mlp
from noiserobust.models.vgg import vgg16_bn
from noiserobust.models.vit import ViT
from noiserobust.models.wide_resnet import WRN_NAME, WideResNet, wrn_shape

MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "digits-mlp": digits_mlp,
        "digits-cnn": digits_cnn,
        "resnet20": resnet.resnet20,
        "resnet32": resnet.resnet32,
        "resnet44": resnet.resnet44,
        "resnet56": resnet.resnet56,
        "resnet9": resnet.resnet9,
        "resnet18": resnet.resnet18,
        "resnet34": resnet.resnet34,
        "resnet50": resnet.resnet50,
        "wrn-16-5": partial(WideResNet, 16, 5),
        "wrn-16-8": partial(WideResNet, 16, 8),
        "wrn-16-10": partial(WideResNet, 16, 10),
        "wrn-16-15": partial(WideResNet, 16, 15),
        "wrn-28-10": partial(WideResNet, 28, 10),
        "vgg16-bn": vgg16_bn,
        "vit": ViT,
    }
)
"""Builders of networks; any other ``wrn-<depth>-<width>`` is known to :func:`build_model` too."""


def build_model(spec: str, args: Mapping[str, object] | None = None) -> nn.Module:
    """Build a network with fresh weights (drawn from torch's global generator).

    Args:
        spec: a name in :data:`MODELS`, a wide ResNet ``wrn-<depth>-<width>``, ``package.module:callable`` or
            ``path/to/file.py:callable``.
        args: keyword arguments for the registered builder or the callable.

    Raises:
        MissingFileError: if the file or module of the callable does not exist.
        InvalidValueError: if the name is unknown, the arguments do not fit, or the callable fails or returns anything
            but an ``nn.Module``.

    >>> build_model("digits-mlp", {"hidden": 32})[1]
    Linear(in_features=64, out_features=32, bias=True)
    """
    if names_callable(spec):
        builder = load_callable(spec, "model")
    elif spec in MODELS:
        builder = MODELS[spec]
    elif shape := wrn_shape(spec):
        builder = partial(WideResNet, *shape)
    else:
        raise unknown_name("model", spec, [*MODELS, WRN_NAME, "package.module:callable", "path/to/file.py:callable"])
    model = call(builder, spec, "model", **(args or {}))
    if not isinstance(model, nn.Module):
        raise InvalidValueError(f"Expected model {spec!r} to return a torch.nn.Module, but got {type(model).__name__}")
    return model
