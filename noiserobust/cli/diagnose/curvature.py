"""``noiserobust diagnose curvature``: top eigenvalues and trace of the Hessian of the loss."""

from __future__ import annotations

from jsonargparse import Namespace

from noiserobust.cli.diagnose.action import Action
from noiserobust.cli.diagnose.options import (
    BATCH_SIZE,
    EXAMPLES,
    LEVEL,
    WEIGHTS,
    Told,
    diagnose_config,
    noise_at_level,
    show,
)
from noiserobust.log import say

_OPTIONS: Told = {
    **WEIGHTS,
    **EXAMPLES,
    **BATCH_SIZE,
    "noise": {"type": str, "help": "gaussian, laplace or FILE.yaml: the sharpness that the trace predicts for it"},
    **LEVEL,
    "top": {"type": int, "default": 1, "help": "how many eigenvalues, the largest, >= 0; default: 1"},
    "probes": {
        "type": int,
        "default": 10,
        "help": "vectors of random signs for the trace, >= 0, with --noise >= 1; default: 10",
    },
    "select": {
        "type": str,
        "default": "trained",
        "help": "with respect to all trained parameters, or the weights in the crossbar: trained or crossbar; default: "
        "trained",
    },
}


def _run(settings: Namespace) -> None:
    from noiserobust.diagnose.folders import curvature_files

    found = curvature_files(
        diagnose_config(settings),
        settings.out,
        top=settings.top,
        probes=settings.probes,
        noise=noise_at_level(settings),
        select=settings.select,
        download=settings.download,
        progress=True,
    )
    show(found[found["layer"] == ""].drop(columns="layer"))
    say("of the mean loss in evaluation mode, nats; standard error over probes; by layer in the table")
    say(f"{settings.out}: curvature.csv, manifest.json")


CURVATURE = Action(
    "curvature",
    "top eigenvalues and trace of the Hessian of the loss",
    _OPTIONS,
    ("model", "weights", "data", "out"),
    _run,
    (
        (
            "noiserobust diagnose curvature --model digits-mlp --weights runs/rwp/seed0/best.safetensors \\\n"
            "--data digits --examples 200 --probes 5 --out results/curvature"
        ),
        (
            "noiserobust diagnose curvature --model digits-mlp --weights runs/rwp/seed0/best.safetensors \\\n"
            "--data digits --examples 200 --noise gaussian --level 0.05 --out results/predicted"
        ),
    ),
)
