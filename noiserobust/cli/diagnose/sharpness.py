"""``noiserobust diagnose sharpness``: how much higher the loss is around the weights."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from noiserobust.cli.diagnose.action import Action
from noiserobust.cli.diagnose.options import BATCH_SIZE, EXAMPLES, EXECUTOR, NOISE, WEIGHTS, Told, diagnose_config, show
from noiserobust.errors import InvalidValueError
from noiserobust.log import say

_OPTIONS: Told = {
    **WEIGHTS,
    **EXAMPLES,
    **BATCH_SIZE,
    **NOISE,
    "levels": {
        "type": str,
        "nargs": "+",
        "help": "severities of the noise: sigma or b as fractions of the largest weight of a filter, such as 0.02 "
        "0.05, or times (1h 1d)",
    },
    "draws": {"type": int, "default": 10, "help": "noise draws (chips) for each file and level, >= 1; default: 10"},
    "rhos": {
        "type": float,
        "nargs": "+",
        "help": "radii of the ascent along the gradient, in units of the weights, such as 0.05 0.1",
    },
    "m": {
        "type": int,
        "help": "examples a batch, each of which ascends along its own gradient (m-sharpness), such as 128; default: "
        "all together",
    },
    "batches": {"type": int, "help": "how many of them at most, such as 8, with --m or a DataLoader; default: all"},
    **EXECUTOR,
}


def _run(settings: Namespace) -> None:
    from noiserobust.diagnose.folders import sharpness_files
    from noiserobust.executors import make_executor
    from noiserobust.noise.registry import build_noise

    if (settings.noise is None) != (settings.levels is None):
        raise InvalidValueError("Expected `--noise` and `--levels` together, but got one of them")
    if settings.noise is None and settings.rhos is None:
        raise InvalidValueError(
            "Expected `--noise` with `--levels` (average direction), `--rhos` (ascent direction), or both, but got "
            "neither"
        )
    noise: dict[str, Any] = {}
    if settings.noise is not None:
        noise = {"noise": build_noise(settings.noise), "levels": settings.levels, "draws": settings.draws}
    found = sharpness_files(
        diagnose_config(settings),
        settings.out,
        **noise,
        rhos=settings.rhos or [],
        m=settings.m,
        batches=settings.batches,
        download=settings.download,
        progress=True,
        executor=make_executor(settings.executor, settings.workers, settings.address),
    )
    show(found)
    say(f"loss of the {settings.split} examples, nats; standard error over noise draws (average) or batches (ascent)")
    say(f"{settings.out}: sharpness.csv, manifest.json{'; average/draws.csv' if noise else ''}")


SHARPNESS = Action(
    "sharpness",
    "how much higher the loss is around the weights, under noise on average and along the gradient",
    _OPTIONS,
    ("model", "weights", "data", "out"),
    _run,
    (
        (
            "noiserobust diagnose sharpness --model digits-mlp --weights runs/rwp/seed0/best.safetensors \\\n"
            "--data digits --noise gaussian --levels 0.05 0.1 --rhos 0.05 --out results/sharpness"
        ),
    ),
    {**dict.fromkeys(("draws", *EXECUTOR), "noise"), "m": "rhos", "batches": "rhos"},
)
