"""``noiserobust diagnose filters``: how large the filters of a network are, and how unlike."""

from __future__ import annotations

from jsonargparse import Namespace

from noiserobust.cli.diagnose.action import Action
from noiserobust.cli.diagnose.options import WEIGHTS, diagnose_config, show
from noiserobust.log import say


def _run(settings: Namespace) -> None:
    from noiserobust.diagnose.folders import filter_files

    show(filter_files(diagnose_config(settings), settings.out))
    say("Euclidean norms of the filters of each layer; coefficient of variation: std / mean")
    say(f"{settings.out}: filters.csv, variation.csv, manifest.json")


FILTERS = Action(
    "filters",
    "how large filters are, and how unlike",
    WEIGHTS,
    ("model", "weights", "out"),
    _run,
    ("noiserobust diagnose filters --model digits-mlp --weights runs/*/seed*/best.safetensors --out results/filters",),
)
