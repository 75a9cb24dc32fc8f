"""Networks by name, or from a user's own function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from noiserobust.callables import call, load_callable, names_callable
from noiserobust.errors import InvalidValueError, unknown_name
from noiserobust.models.digits import digits_cnn, digits_mlp
from noiserobust.models.resnet import resnet18, resnet20

MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"digits-mlp": digits_mlp, "digits-cnn": digits_cnn, "resnet20": resnet20, "resnet18": resnet18}
)


def build_model(spec: str, args: Mapping[str, object] | None = None) -> nn.Module:
    """Build a network with fresh weights (drawn from torch's global generator).

    Args:
        spec: a name in :data:`MODELS`, ``package.module:callable`` or ``path/to/file.py:callable``.
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
    else:
        raise unknown_name("model", spec, [*MODELS, "package.module:callable", "path/to/file.py:callable"])
    model = call(builder, spec, "model", **(args or {}))
    if not isinstance(model, nn.Module):
        raise InvalidValueError(f"Expected model {spec!r} to return a torch.nn.Module, but got {type(model).__name__}")
    return model
