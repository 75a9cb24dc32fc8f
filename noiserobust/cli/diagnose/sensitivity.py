"""``noiserobust diagnose sensitivity``: which layers cost the accuracy under noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from noiserobust.cli.diagnose.action import Action
from noiserobust.cli.diagnose.options import BATCH_SIZE, EXAMPLES, EXECUTOR, LEVEL, NOISE, WEIGHTS, Told
from noiserobust.cli.parsing import model_args
from noiserobust.config import PRECISIONS
from noiserobust.log import say

if TYPE_CHECKING:
    from noiserobust.results.sensitivity import Sensitivity

_OPTIONS: Told = {
    **WEIGHTS,
    **EXAMPLES,
    **BATCH_SIZE,
    **NOISE,
    **LEVEL,
    "draws": {
        "type": int,
        "default": 10,
        "help": "noise draws (chips) for each file and layer, >= 1, the same for all; default: 10",
    },
    "wanted": {
        "type": float,
        "metavar": "ACCURACY",
        "help": "also find the layers to keep digital for this mean accuracy under noise, in percent, such as 75",
    },
    "precision": {"type": str, "default": "fp32", "help": f"{' or '.join(PRECISIONS)}; default: fp32"},
    **EXECUTOR,
}

_RANKED = ["layer", "n_weights", "lost", "lost_low", "lost_high", "gained", "gained_low", "gained_high"]
_STEPS = ["step", "kind", "layer", "digital_share", "mean", "ci_low", "ci_high", "reached"]


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
    say(f"{settings.out}: {', '.join(files)}")


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
            say("one weight file: intervals over train seeds are not estimable")
    say("lost: with noise on the layer only; gained: with noise on all others; points of accuracy")


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
            say(
                f"{method}: that is below the wanted {last['wanted']:g}, which was reached on the chips of the search "
                "only; more --draws make the choice safer, a higher --wanted leaves room"
            )


SENSITIVITY = Action(
    "sensitivity",
    "which layers cost the accuracy under noise, and which to keep digital",
    _OPTIONS,
    ("model", "weights", "data", "noise", "level", "out"),
    _sensitivity,
    (
        (
            "noiserobust diagnose sensitivity --model digits-mlp --weights runs/rwp/seed0/best.safetensors \\\n"
            "--data digits --noise gaussian --level 0.2 --draws 5 --wanted 80 --out results/layers"
        ),
    ),
)
