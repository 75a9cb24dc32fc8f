"""Result folders with numbers that behave like those of real networks, written by the real store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noiserobust.report.analysis import Analysis, analyse
from noiserobust.report.criteria import Criteria
from noiserobust.report.gather import Gathered
from noiserobust.report.tables import make_tables
from noiserobust.results.store import DrawStore, Row, as_frame
from noiserobust.results.summary import summarize

N_EXAMPLES = 10_000
CLEAN_ACCURACY = {"SGD": 93.1, "SAM": 93.9, "RWP": 92.6}
FALL = {"SGD": 1.0, "SAM": 0.62, "RWP": 0.4}


def make_rows(
    methods: Sequence[str],
    seeds: Sequence[int],
    noise: str,
    level_name: str,
    levels: Sequence[float],
    draws: int,
    *,
    strength: float = 1500.0,
) -> Iterator[Row]:
    """Accuracies that fall with the level; a chip keeps its luck over levels, a seed keeps its offset."""
    for method in methods:
        for seed in seeds:
            offset = np.random.default_rng([seed, len(method), ord(method[0])]).normal(0, 0.25)
            luck = np.random.default_rng([seed, 7]).normal(size=draws)
            for level in levels:
                size = np.log10(1 + level) / 60 if level_name == "t" else level
                fall = FALL.get(method, 0.8) * min(80.0, strength * size**2)
                for draw in range(draws if level else 1):
                    value = CLEAN_ACCURACY.get(method, 93.0) + offset * (1 + fall / 8)
                    value -= fall * (1 + 0.2 * luck[draw]) if level else 0.0
                    yield {
                        "method": method,
                        "train_seed": seed,
                        "weights": f"{method}-{seed}.safetensors",
                        "noise": noise,
                        "level_name": level_name,
                        "level": float(level),
                        "draw": draw,
                        "metric": "accuracy",
                        "value": round(float(np.clip(value, 10, 100)) * N_EXAMPLES / 100) / N_EXAMPLES * 100,
                        "n_examples": N_EXAMPLES,
                    }


def make_folder(
    path: Path, rows: Sequence[Row], *, finish: bool = True, configuration: Mapping[str, Any] | None = None
) -> Path:
    """Write rows as an evaluation does; ``finish=False`` leaves what an interrupted one leaves."""
    trainings = dict.fromkeys((r["method"], r["train_seed"], r["weights"]) for r in rows)
    made = {
        "model": "resnet20",
        "weights": [{"file": w, "sha256": f"sha-of-{w}", "method": m, "train_seed": s} for m, s, w in trainings],
        "data": {"name": "cifar10", "sha256": "d" * 64, "n_examples": N_EXAMPLES},
        "noise": {"kind": rows[0]["noise"] if rows else "gaussian", "granularity": "filter"},
        "levels": sorted({r["level"] for r in rows}),
        "draws": max((r["draw"] for r in rows), default=0) + 1,
        "seed": 0,
        "precision": "fp32",
        "until": None,
        **(configuration or {}),
    }
    environment = {"versions": {"noiserobust": "0.1.0", "torch": "2.10.0"}, "device": "cpu"}
    store = DrawStore(path, made, environment)
    for row in rows:
        store.append(row)
    if finish:
        store.finish(summarize(as_frame(store.rows)))
    return path


def analyses_of(gathered: Gathered, **criteria: Any) -> list[Analysis]:
    return analyse(make_tables(gathered), gathered, Criteria(**criteria))


PCM = ("pcm-nandakumar-2019", "t", (1.0, 3600.0, 86400.0, 31557600.0))
