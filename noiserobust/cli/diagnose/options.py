"""Options that several actions take, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from noiserobust.cli.parsing import DATA, DOWNLOAD, SPLIT, model_args

if TYPE_CHECKING:
    import pandas as pd

    from noiserobust.diagnose.files import DiagnoseConfig
    from noiserobust.noise.base import Noise

Told = dict[str, dict[str, Any]]

WEIGHTS: Told = {
    "model": {"type": str, "help": "name, package.module:callable or file.py:callable"},
    "model_args": {"type": str, "nargs": "+", "default": [], "help": "its arguments, such as num_classes=100"},
    "weights": {"type": Path, "nargs": "+", "help": ".safetensors, .pt, .pth or .th files, one a train seed"},
    "method": {"type": str, "help": "name of the method in tables; default: what the weights file says"},
    "out": {"type": Path, "help": "folder for the results; what is finished is kept"},
}
"""Of all actions."""

EXAMPLES: Told = {
    "data": {"type": str, "help": DATA},
    "split": {"type": str, "default": "test", "help": f"{SPLIT}; default: test"},
    "download": {"action": "store_true", "default": False, "help": DOWNLOAD},
    "normalize": {
        "type": str,
        "help": "imagenet, cifar10, cifar100, digits, none or m,m,m/s,s,s; default: as trained, else the data set's "
        "own",
    },
    "examples": {"type": int, "help": "how many of the examples, such as 1000; default: all"},
    "seed": {"type": int, "default": 0, "help": "root seed of all random numbers, >= 0; default: 0"},
    "device": {"type": str, "default": "auto", "help": "auto, cpu, cuda:0, ...; default: auto"},
}
"""Of those that look at data."""

BATCH_SIZE: Told = {
    "batch_size": {
        "type": int,
        "help": "examples a pass, >= 1, such as 256; default: by the size of the largest layer",
    },
}

EXECUTOR: Told = {
    "executor": {"type": str, "default": "serial", "help": "serial, processes (of this machine) or ray"},
    "workers": {"type": int, "help": "how many, with processes and ray, >= 1; default: one a core, or GPU"},
    "address": {"type": str, "help": "of a Ray cluster; auto: the one that this machine is part of"},
}
"""Of those that are made of noise draws."""

NOISE: Told = {"noise": {"type": str, "help": "gaussian, laplace, a device profile or FILE.yaml"}}

LEVEL: Told = {
    "level": {
        "type": str,
        "help": "severity: sigma or b as a fraction of the largest weight of a filter, such as 0.05, or a time (1d)",
    },
}


def diagnose_config(settings: Namespace) -> DiagnoseConfig:
    """Return weights and data, as the options name them."""
    from noiserobust.diagnose.files import DiagnoseConfig

    values = {name: settings[name] for name in DiagnoseConfig.__dataclass_fields__ if name in settings}
    return DiagnoseConfig(**{**values, "model_args": model_args(settings.model_args)})


def noise_at_level(settings: Namespace) -> Noise | None:
    """Return the noise of ``--noise`` and ``--level``, or None if neither is given.

    Raises:
        NoiseRobustError: if one is given without the other, or is not valid.
    """
    from noiserobust.errors import InvalidValueError
    from noiserobust.noise.registry import build_noise

    if (settings.noise is None) != (settings.level is None):
        raise InvalidValueError("Expected `--noise` and `--level` together, but got one of them")
    return None if settings.noise is None else build_noise(settings.noise, settings.level)


def show(table: pd.DataFrame) -> None:
    """Print a table for people; without the names of files, which are in the table on disk."""
    shown = table.drop(columns=[name for name in ("weights", "noise") if name in table])
    print(shown.to_string(index=False, na_rep="", float_format="%.4g"))
