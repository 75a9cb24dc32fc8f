"""``noiserobust diagnose``: why a network is as robust as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.parsing import DATA, DOWNLOAD, model_args
from noiserobust.config import PRECISIONS
from noiserobust.errors import InvalidValueError, check_choice

if TYPE_CHECKING:
    from noiserobust.results.sensitivity import Sensitivity

ACTIONS = ("sensitivity",)

_REQUIRED = {"sensitivity": ("model", "weights", "data", "noise", "level", "out")}

_OPTIONS: dict[str, dict[str, Any]] = {
    "model": {"type": str, "help": "name, package.module:callable or file.py:callable"},
    "model_args": {"type": str, "nargs": "+", "default": [], "help": "its arguments, such as num_classes=100"},
    "weights": {
        "type": Path,
        "nargs": "+",
        "default": [],
        "help": ".safetensors, .pt, .pth or .th files, one a train seed",
    },
    "data": {"type": str, "help": f"{DATA}; the test split"},
    "download": {"action": "store_true", "default": False, "help": DOWNLOAD},
    "normalize": {
        "type": str,
        "help": "imagenet, cifar10, cifar100, digits, none or m,m,m/s,s,s; default: as trained, else the data "
        "set's own",
    },
    "method": {"type": str, "help": "name of the method in tables; default: what the weights file says"},
    "noise": {"type": str, "help": "gaussian, laplace, a device profile or FILE.yaml"},
    "level": {
        "type": str,
        "help": "severity: sigma or b as a fraction of the largest weight of a filter, or a time (1d)",
    },
    "draws": {
        "type": int,
        "default": 10,
        "help": "noise draws (chips) for each file and layer, >= 1; the same for all",
    },
    "wanted": {
        "type": float,
        "metavar": "ACCURACY",
        "help": "also find the layers to keep digital for this mean accuracy under noise, in percent",
    },
    "seed": {"type": int, "default": 0, "help": "root seed of the noise draws, >= 0"},
    "device": {"type": str, "default": "auto", "help": "auto, cpu, cuda:0, ..."},
    "precision": {"type": str, "default": "fp32", "help": f"{' or '.join(PRECISIONS)}"},
    "batch_size": {"type": int, "help": "images a pass; default: by the size of the largest layer"},
    "examples": {"type": int, "help": "how many test examples; default: all"},
    "executor": {"type": str, "default": "serial", "help": "serial, processes (of this machine) or ray"},
    "workers": {"type": int, "help": "of processes and ray; default: one for each core, or each GPU"},
    "address": {"type": str, "help": "of a Ray cluster; auto: the one that this machine is part of"},
    "out": {"type": Path, "help": "folder for the results; finished draws are kept"},
}
"""Options, and what the parser is told of them."""

_RANKED = ["layer", "n_weights", "lost", "lost_low", "lost_high", "gained", "gained_low", "gained_high"]
_STEPS = ["step", "kind", "layer", "digital_share", "mean", "ci_low", "ci_high", "reached"]


def add_diagnose(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("action", type=str, help="sensitivity: which layers cost the accuracy under noise")
    for option, told in _OPTIONS.items():
        parser.add_argument(f"--{option.replace('_', '-')}", **told)


def diagnose(settings: Namespace) -> None:
    """Run it."""
    action = check_choice("action", settings.action, ACTIONS)
    missing = [f"`--{option}`" for option in _REQUIRED[action] if settings[option] in (None, [])]
    if missing:
        raise InvalidValueError(f"Expected {', '.join(missing)} to be given, but got nothing")
    _sensitivity(settings)


def _sensitivity(settings: Namespace) -> None:
    from noiserobust.diagnose.sensitivity import sensitivity_files
    from noiserobust.evaluate.files import EvaluateConfig
    from noiserobust.executors import make_executor

    shared = [name for name in EvaluateConfig.__dataclass_fields__ if name in _OPTIONS]
    values = {name: settings[name] for name in shared}
    values |= {"model_args": model_args(settings.model_args), "levels": [settings.level]}
    executor = make_executor(settings.executor, settings.workers, settings.address)
    more: dict[str, Any] = {"wanted": settings.wanted, "download": settings.download, "executor": executor}
    found = sensitivity_files(EvaluateConfig(**values), settings.out, progress=True, **more)
    _print_layers(found)
    if found.digital is not None:
        _print_digital(found)
    files = ["sensitivity.csv", "sensitivity.png", "sensitivity.svg", "sensitivity.pdf", "layers.csv", "manifest.json"]
    files[1:1] = [] if found.digital is None else ["digital.csv"]
    print(f"{settings.out}: {', '.join(files)}")


def _print_layers(found: Sensitivity) -> None:
    """Print the layers of each method, that first which is most worth keeping digital."""
    for method, own in found.layers.groupby("method", sort=False):
        table = own.set_index(["condition", "layer"])
        clean, noisy = table.loc[("clean", "")], table.loc[("all", "")]
        print(f"{method}: {clean['mean']:.4g} without noise, {noisy['mean']:.4g} with noise on all layers")
        only, without = table.loc["only"], table.loc["except"]
        ranked = without[["n_weights"]].assign(
            lost=-only["change"],
            lost_low=-only["change_high"],
            lost_high=-only["change_low"],
            gained=without["change"],
            gained_low=without["change_low"],
            gained_high=without["change_high"],
        )
        ranked = ranked.sort_values("gained", ascending=False, kind="stable").reset_index().dropna(axis="columns")
        columns = [name for name in _RANKED if name in ranked]
        print(ranked.to_string(index=False, columns=columns, float_format="%.2f"))
        if noisy["n_seeds"] == 1:
            print("one weight file: intervals over train seeds are not estimable")
    print("lost: with noise on the layer only; gained: with noise on all others; points of accuracy")


def _print_digital(found: Sensitivity) -> None:
    """Print the search for layers to keep digital, and what it came to."""
    assert found.digital is not None
    for method, own in found.digital.groupby("method", sort=False):
        print(f"\n{method}: layers to keep digital")
        print(own.to_string(index=False, columns=_STEPS, na_rep="", float_format="%.4g"))
        last = own.iloc[-1]
        names = last["digital"].replace(" ", ", ") or "no layer"
        share = f"{100 * last['digital_share']:.3g}% of the weights"
        print(f"{method}: {names} digital, {share}: {last['mean']:.4g} on {last['n_draws']} fresh chips")
        if not last["reached"]:
            print(
                f"{method}: that is below the wanted {last['wanted']:g}, which was reached on the chips of the search "
                "only; more --draws make the choice safer, a higher --wanted leaves room"
            )
