"""Result folders with numbers that behave like those of real networks, written by the real store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from noiserobust.report.analysis import Analysis, analyse
from noiserobust.report.criteria import Criteria
from noiserobust.report.gather import Gathered
from noiserobust.report.tables import make_tables
from noiserobust.results.sensitivity import DIGITAL_DTYPES, SENSITIVITY_DTYPES
from noiserobust.results.store import DrawStore, Row, as_frame
from noiserobust.results.summary import summarize

N_EXAMPLES = 10_000
CLEAN_ACCURACY = {"SGD": 93.1, "SAM": 93.9, "RWP": 92.6}
FALL = {"SGD": 1.0, "SAM": 0.62, "RWP": 0.4, "RWP-0.1": 0.7, "RWP-0.2": 0.5, "RWP-0.3": 0.55}


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


def given_rows(
    values: Mapping[tuple[str, int], Mapping[float, Sequence[float]]],
    noise: str = "gaussian",
    level_name: str = "sigma",
    metric: str = "accuracy",
    n_examples: int = N_EXAMPLES,
) -> list[Row]:
    """Return rows with the values given by (method, train seed), level and draw."""
    return [
        {
            "method": method,
            "train_seed": seed,
            "weights": f"{method}-{seed}.safetensors",
            "noise": noise,
            "level_name": level_name,
            "level": level,
            "draw": draw,
            "metric": metric,
            "value": value,
            "n_examples": n_examples,
        }
        for (method, seed), levels in values.items()
        for level, draws in levels.items()
        for draw, value in enumerate(draws)
    ]


def trained_entries(rows: Sequence[Row], trained: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what a manifest says of weights that tell how they were trained; ``trained`` by method."""
    files = dict.fromkeys((r["method"], r["train_seed"], r["weights"]) for r in rows)
    return [
        {"file": w, "sha256": f"sha-of-{w}", "method": m, "train_seed": s}
        | ({"trained": trained[m]} if m in trained else {})
        for m, s, w in files
    ]


def make_training(
    path: Path,
    label: str,
    seeds: Sequence[int] = (0, 1),
    *,
    epochs: int = 4,
    passes: int | None = 10,
    held_out: float = 0.1,
    **configuration: Any,
) -> Path:
    """Write what a training leaves: a manifest, and for each train seed its epochs; ``passes`` those of an epoch."""
    settings = {
        "method": {"name": "sgd", "noise": {"name": None, "level": None}, "level_range": None},
        "epochs": epochs,
        "batch_size": 32,
        "held_out": held_out,
        "label": label,
        "data_sha256": "e" * 64,
        **configuration,
    }
    for seed in seeds:
        rows = [
            {"train_seed": seed, "epoch": e, "steps": 10 * e}
            | ({} if passes is None else {"passes": passes * e})
            | {
                "train_loss": 2.0 / e,
                "held_out_accuracy": 90.0 + e / 4 if held_out else np.nan,
                "held_out_perturbed_accuracy": 80.0 + e if held_out else np.nan,
                "best": e >= epochs - 1,
                "seconds": 30.0,
            }
            for e in range(1, epochs + 1)
        ]
        (path / f"seed{seed}").mkdir(parents=True)
        pd.DataFrame(rows).to_csv(path / f"seed{seed}" / "metrics.csv", index=False)
    (path / "manifest.json").write_text(json.dumps({"kind": "training", "configuration": settings}))
    return path


def make_sensitivity(
    path: Path,
    gains: Mapping[str, float],
    methods: Sequence[str] = ("SGD",),
    *,
    n_seeds: int = 3,
    wanted: float | None = None,
    reached: bool = True,
    noise: str = "gaussian",
    metric: str = "accuracy",
) -> Path:
    """Write what a diagnosis of layers leaves; ``gains`` by layer, ``wanted`` that of a search for digital layers."""

    def row(method: str, condition: str, layer: str, mean: float, change: float) -> dict[str, Any]:
        known = n_seeds > 1 and condition != "clean"
        return {
            "method": method,
            "noise": noise,
            "level_name": "sigma",
            "level": 0.2,
            "metric": metric,
            "condition": condition,
            "layer": layer,
            "n_weights": 1000 * len(layer) or 5000,
            "mean": mean,
            "noise_std": 1.0,
            "seed_std": 0.5 if n_seeds > 1 else np.nan,
            "n_seeds": n_seeds,
            "n_draws": 4,
            "ci_low": mean - 1 if n_seeds > 1 else np.nan,
            "ci_high": mean + 1 if n_seeds > 1 else np.nan,
            "ci_level": 0.95,
            "change": np.nan if condition == "clean" else change,
            "change_low": change - 1 if known else np.nan,
            "change_high": change + 1 if known else np.nan,
        }

    rows = []
    for method in methods:
        rows += [row(method, "clean", "", 93.0, 0.0), row(method, "all", "", 63.0, -30.0)]
        for layer, gain in gains.items():
            rows.append(row(method, "only", layer, 93.0 - gain, -gain))
            rows.append(row(method, "except", layer, 63.0 + gain, gain))
    path.mkdir(parents=True)
    pd.DataFrame(rows)[list(SENSITIVITY_DTYPES)].to_csv(path / "sensitivity.csv", index=False)
    if wanted is not None:
        first = next(iter(gains))
        step = {
            "method": methods[0],
            "step": 1,
            "kind": "verify",
            "layer": "",
            "digital": first,
            "digital_share": 0.25,
            "mean": 63.0 + gains[first],
            "ci_low": 60.0 if n_seeds > 1 else np.nan,
            "ci_high": 75.0 if n_seeds > 1 else np.nan,
            "n_draws": 4,
            "seed": 7,
            "reached": reached,
            "wanted": wanted,
        }
        pd.DataFrame([step])[list(DIGITAL_DTYPES)].to_csv(path / "digital.csv", index=False)
    (path / "manifest.json").write_text(json.dumps({"kind": "sensitivity", "configuration": {}}))
    return path


def make_rich(path: Path) -> Path:
    """Write evaluations under two noises, trainings and a diagnosis of layers, of five methods."""
    methods = ["SGD", "SAM", "RWP-0.1", "RWP-0.2", "RWP-0.3"]
    trained = {"SGD": {"method": "sgd"}, "SAM": {"method": "sam"}}
    trained |= {f"RWP-{v}": {"method": "rwp", "noise": "gaussian", "level": v} for v in (0.1, 0.2, 0.3)}
    for name, noise in (("g", ("gaussian", "sigma", (0.0, 0.1, 0.2))), ("p", PCM)):
        rows = list(make_rows(methods, [0, 1, 2], *noise, 4))
        make_folder(path / "results" / name, rows, configuration={"weights": trained_entries(rows, trained)})
    for method, how in trained.items():
        noise_of = {"name": how.get("noise"), "level": how.get("level")}
        make_training(
            path / "runs" / method,
            method,
            passes=20 if method == "SAM" else 10,
            method={"name": how["method"], "noise": noise_of, "level_range": None},
        )
    layers = {f"layer{i}.conv{j}.weight": 9.0 - 3 * i - j for i in range(3) for j in range(2)}
    make_sensitivity(path / "results" / "layers", layers, ["SGD", "RWP-0.2"], wanted=70.0)
    return path


def analyses_of(gathered: Gathered, **criteria: Any) -> list[Analysis]:
    return analyse(make_tables(gathered), gathered, Criteria(**criteria))


PCM = ("pcm-nandakumar-2019", "t", (1.0, 3600.0, 86400.0, 31557600.0))
