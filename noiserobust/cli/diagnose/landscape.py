"""``noiserobust diagnose landscape``: the loss along one direction, or over a plane, around the weights."""

from __future__ import annotations

from jsonargparse import Namespace

from noiserobust.cli.diagnose.action import Action
from noiserobust.cli.diagnose.options import BATCH_SIZE, EXAMPLES, EXECUTOR, LEVEL, NOISE, WEIGHTS, Told
from noiserobust.cli.parsing import model_args
from noiserobust.config import PRECISIONS
from noiserobust.log import say

_OPTIONS: Told = {
    **WEIGHTS,
    **EXAMPLES,
    **BATCH_SIZE,
    "along": {
        "type": str,
        "default": "random",
        "help": "random (directions with the norm of each filter, the same for all weights), noise (draws 0 and 1 of "
        "--noise) or checkpoint (from --weights to --to); default: random",
    },
    "to": {"type": str, "help": "weights file at the other end of the line, with --along checkpoint"},
    "dimensions": {"type": int, "default": 2, "help": "1 for a curve, 2 for a plane; default: 2"},
    "points": {"type": int, "default": 51, "help": "along each direction, >= 2, such as 21; default: 51"},
    "extent": {
        "type": float,
        "help": "how far to go: from minus to plus this multiple of the directions; between checkpoints so far beyond "
        "both; default: 1, between checkpoints 0.5",
    },
    "direction_seed": {"type": int, "default": 0, "help": "root seed of random directions, >= 0; default: 0"},
    "noisy": {
        "action": "store_true",
        "default": False,
        "help": "whether --noise falls on the weights of each point: the landscape of the mean over --draws chips",
    },
    **NOISE,
    **LEVEL,
    "draws": {"type": int, "help": "noise draws (chips) for each point with --noisy, >= 1; default: 10"},
    "precision": {"type": str, "default": "fp32", "help": f"{' or '.join(PRECISIONS)}; default: fp32"},
    **EXECUTOR,
    "shard": {"type": str, "help": "compute a part of the points, such as 2/8; `merge` joins the parts"},
}


def _run(settings: Namespace) -> None:
    from pathlib import Path

    from noiserobust.diagnose.surface import METRICS, LandscapeConfig, landscape_files
    from noiserobust.evaluate.files import EvaluateConfig
    from noiserobust.executors import make_executor
    from noiserobust.results.landscapes import LANDSCAPE_FILE

    shared = [name for name in EvaluateConfig.__dataclass_fields__ if name in _OPTIONS]
    values = {name: settings[name] for name in shared}
    levels = [] if settings.level is None else [settings.level]
    values |= {"model_args": model_args(settings.model_args), "levels": levels, "metrics": METRICS}
    shape = LandscapeConfig(**{name: settings[name] for name in LandscapeConfig.__dataclass_fields__})
    table = landscape_files(
        EvaluateConfig(**values),
        shape,
        settings.out,
        to=None if settings.to is None else Path(settings.to),
        noisy=settings.noisy,
        download=settings.download,
        progress=True,
        shard=settings.shard,
        executor=make_executor(settings.executor, settings.workers, settings.address),
    )
    if settings.shard is not None:
        say(f"{settings.out}: {len(table) // len(METRICS)} points of part {settings.shard}; `merge` joins the parts")
        return
    losses = table[table["metric"] == "loss"]
    for (method, seed), own in losses.groupby(["method", "train_seed"], sort=False):
        low = own.loc[own["value"].idxmin()]
        where = f"x = {low['x']:.3g}" + (f", y = {low['y']:.3g}" if low["y"] == low["y"] else "")
        print(f"{method}, train seed {seed}: loss {low['value']:.4g} to {own['value'].max():.4g}, lowest at {where}")
    names = ["landscape.png, .svg, .pdf", *(["landscape-3d.png, .svg, .pdf"] if losses["y"].notna().any() else [])]
    say(f"{settings.out}: {LANDSCAPE_FILE}, {', '.join(names)}, draws.csv, manifest.json")


LANDSCAPE = Action(
    "landscape",
    "the loss along one direction, or over a plane, around the weights",
    _OPTIONS,
    ("model", "weights", "data", "out"),
    _run,
    (
        (
            "noiserobust diagnose landscape --model digits-mlp --weights runs/rwp/seed0/best.safetensors \\\n"
            "--data digits --points 11 --out results/landscape"
        ),
        (
            "noiserobust diagnose landscape --model digits-mlp --weights runs/sgd/seed0/best.safetensors \\\n"
            "--data digits --along checkpoint --to runs/rwp/seed0/best.safetensors --dimensions 1 --out results/path"
        ),
    ),
)
