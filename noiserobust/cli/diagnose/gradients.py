"""``noiserobust diagnose gradients``: loss and gradient where a training method takes its gradient."""

from __future__ import annotations

from jsonargparse import Namespace

from noiserobust.cli.diagnose.action import Action
from noiserobust.cli.diagnose.options import (
    EXAMPLES,
    LEVEL,
    NOISE,
    WEIGHTS,
    Told,
    diagnose_config,
    noise_at_level,
    show,
)
from noiserobust.errors import InvalidValueError, check_number
from noiserobust.log import say

_OPTIONS: Told = {
    **WEIGHTS,
    **EXAMPLES,
    "rho": {
        "type": float,
        "help": "radius of SAM, > 0, such as 0.05, in units of the weights; or --noise, --level (RWP)",
    },
    **NOISE,
    **LEVEL,
    "strengths": {
        "type": float,
        "nargs": "+",
        "default": [0.25, 0.5, 1.0, 2.0],
        "help": "multiples of the radius or of the noise's strength; default: 0.25 0.5 1 2",
    },
    "critical": {
        "type": float,
        "metavar": "FRACTION",
        "help": "also find the strength at which the gradient at the perturbed weights falls below this fraction, > 0 "
        "and < 1, such as 0.5, of that at the weights",
    },
    "m": {"type": int, "help": "examples a batch, >= 1; default: 128, or as a DataLoader has them"},
    "batches": {"type": int, "default": 8, "help": "how many of them, >= 1; default: 8"},
    "batch_statistics": {
        "action": "store_true",
        "default": False,
        "help": "let batch norm use the statistics of each batch, as in training, but for layers that train() of the "
        "model leaves in evaluation mode; default: the stored ones",
    },
    "draws": {"type": int, "default": 1, "help": "of the noise for each batch, >= 1; default: 1"},
}


def _run(settings: Namespace) -> None:
    from noiserobust.diagnose.critical import check_fraction
    from noiserobust.diagnose.folders import gradient_files
    from noiserobust.train.sam import SAM

    noise = noise_at_level(settings)
    if (noise is None) == (settings.rho is None):
        got = "neither" if noise is None else "both"
        raise InvalidValueError(f"Expected either `--rho` or `--noise` with `--level`, but got {got}")
    if settings.rho is not None:
        check_number("--rho", settings.rho, above=0)
    if settings.critical is not None:
        check_fraction("--critical", settings.critical)
    found, critical = gradient_files(
        diagnose_config(settings),
        settings.out,
        SAM(settings.rho) if noise is None else noise,
        strengths=settings.strengths,
        fraction=settings.critical,
        m=settings.m,
        batches=settings.batches,
        draws=settings.draws,
        batch_statistics=settings.batch_statistics,
        download=settings.download,
        progress=True,
    )
    key = ["method", "train_seed", "strength", "level_name", "level"]
    for name, column in (("mean over batches", "value"), ("its standard error", "standard_error")):
        wide = found.set_index([*key, "quantity"])[column].unstack("quantity", sort=False).reset_index()
        print(name)
        show(wide)
    if critical is not None:
        print("critical perturbation length")
        show(critical)
    files = ["gradients.csv", *([] if critical is None else ["critical.csv"]), "manifest.json"]
    say(f"{settings.out}: {', '.join(files)}")


GRADIENTS = Action(
    "gradients",
    "loss and gradient where SAM or RWP takes its gradient, and the strength at which that vanishes",
    _OPTIONS,
    ("model", "weights", "data", "out"),
    _run,
    (
        (
            "noiserobust diagnose gradients --model digits-mlp --weights runs/rwp/seed0/best.safetensors \\\n"
            "--data digits --rho 0.05 --critical 0.5 --out results/gradients"
        ),
        (
            "noiserobust diagnose gradients --model digits-mlp --weights runs/rwp/seed0/best.safetensors \\\n"
            "--data digits --noise gaussian --level 0.1 --draws 4 --out results/gradients-rwp"
        ),
    ),
    {"draws": "noise"},
)
