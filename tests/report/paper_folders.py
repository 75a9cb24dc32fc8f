"""Folders of trainings, evaluations, landscapes and filters with numbers that behave like those of real networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from report_folders import given_rows, make_folder

from noiserobust.results.diagnostics import DIAGNOSTICS_DTYPES
from noiserobust.results.filters import FILTERS_DTYPES
from noiserobust.results.landscapes import LANDSCAPE_DTYPES
from noiserobust.results.trainings import configuration_sha256

STEPS = 10
"""Optimizer steps of an epoch."""

LEVELS = (0.02, 0.07)


def configuration(label: str | None, method: str = "sgd", **settings: Any) -> dict[str, Any]:
    """Return the configuration of a training; ``rho``, ``level``, ``weight``, ``reference`` and ``schedule`` (name,
    fraction) go into the method, others stand at the top."""
    fraction = settings.pop("fraction", None)
    return {
        "method": {
            "name": method,
            "rho": settings.pop("rho", None),
            "noise": {
                "name": None,
                "level": settings.pop("level", None),
                "reference": settings.pop("reference", None),
                "granularity": None,
            },
            "perturbed_weight": settings.pop("weight", None),
            "schedule": {
                "name": settings.pop("schedule", "constant"),
                "steps": settings.pop("steps", None),
                "fraction": fraction,
            },
            "level_range": None,
        },
        "epochs": settings.pop("epochs", 6),
        "held_out": 0.1,
        "label": label,
        "select": {"noise": {"name": "gaussian", "level": 0.05, "reference": None, "granularity": None}, "draws": 4},
        **settings,
    }


def strength_of(settings: Mapping[str, Any]) -> float:
    """Return how strongly a training perturbs, on one scale for all methods."""
    method = settings["method"]
    return {"sgd": 0.0, "sam": 2 * (method["rho"] or 0.0)}.get(method["name"], 10 * (method["noise"]["level"] or 0.0))


def make_run(
    path: Path,
    settings: Mapping[str, Any],
    seeds: Sequence[int] = (0, 1),
    *,
    recorded: bool = True,
    without: Sequence[str] = (),
    every: float = 0.5,
) -> Path:
    """Write a training; ``without`` names quantities that were not recorded, ``every`` epochs a sample is taken."""
    epochs, strength = settings["epochs"], strength_of(settings)
    for seed in seeds:
        rng = np.random.default_rng([seed, len(str(settings["label"]))])
        folder = path / f"seed{seed}"
        folder.mkdir(parents=True)
        at = np.arange(1, epochs + 1)
        share = at / epochs
        clean = 80 - 45 * np.exp(-4 * share) - 2 * strength**2 + 0.2 * rng.normal(size=epochs)
        fall = 25 * (share - 0.5).clip(0) * np.exp(-3 * strength) + 14 * np.exp(-2 * strength)
        metrics = pd.DataFrame(
            {
                "epoch": at,
                "steps": STEPS * at,
                "train_loss": 4 * np.exp(-3.5 * share) + 0.1 + 0.3 * strength,
                "held_out_accuracy": clean,
                "held_out_perturbed_accuracy": clean - fall + 0.5 * rng.normal(size=epochs),
                "best": at == epochs - 1,
                "seconds": 30.0,
            }
        )
        metrics.to_csv(folder / "metrics.csv", index=False)
        if recorded:
            rows = _diagnostics(settings, seed, np.arange(0, epochs + every / 2, every), rng)
            kept = rows[~rows["quantity"].isin(without)]
            kept.to_csv(folder / "diagnostics.csv", index=False)
    (path / "manifest.json").write_text(json.dumps({"kind": "training", "configuration": settings}))
    return path


def _diagnostics(settings: Mapping[str, Any], seed: int, epochs: Any, rng: Any) -> pd.DataFrame:
    method, total, strength = settings["method"]["name"], settings["epochs"], strength_of(settings)
    fraction = settings["method"]["schedule"]["fraction"] or 1.0
    rows = []
    for epoch in epochs:
        share = epoch / total
        ramp = 1.0 if settings["method"]["schedule"]["name"] == "constant" else min(1.0, share / fraction) ** 2
        loss = 4.4 * np.exp(-4 * share) + 0.05 + 0.2 * strength
        held_out = loss + 0.8 * share
        own = ramp * strength * (0.4 + 1.2 * share) * (2.0 if method == "sam" else 0.5)
        norm = (1 + 3 * np.exp(-((share - 0.4) ** 2) / 0.05)) * np.exp(-strength * (1.2 if method == "sam" else 0.3))
        values: dict[tuple[str, str, float | None], float] = {
            ("loss", "train", None): loss,
            ("loss", "held-out", None): held_out,
            ("training_loss", "train", None): 1.1 * loss,
            ("update_gradient_norm", "train", None): norm,
            ("epoch_path_length", "train", None): 9 * norm * share,
            ("perturbed_loss", "train", None): loss + own,
            ("gradient_sharpness", "train", None): own,
            ("full_strength_loss", "train", None): loss + own / max(ramp, 0.05) * (1 if ramp < 1 else 0.8),
            ("cosine", "train", None): 1 - 0.8 * share * min(1.0, strength),
            ("perturbation_norm", "train", None): ramp * (100 if method == "rwp" else 0.5) * strength,
        }
        for level in LEVELS:
            sharp = (60 * level * share**1.5 * np.exp(-strength)) * (1 + 0.05 * rng.normal())
            values["average_sharpness", "train", level] = sharp
            values["average_sharpness", "held-out", level] = 0.7 * sharp
        perturbed = {"cosine", "perturbed_loss", "gradient_sharpness", "full_strength_loss", "perturbation_norm"}
        for (quantity, split, level), value in values.items():
            if quantity in perturbed and method == "sgd":
                continue
            row = {"method": settings["label"] or method, "train_seed": seed, "epoch": epoch}
            row |= {"step": int(STEPS * epoch), "strength": ramp, "split": split, "quantity": quantity}
            rows.append(row | {"level": level, "value": value, "standard_error": None, "n_examples": 256})
    return pd.DataFrame(rows)[list(DIAGNOSTICS_DTYPES)]


def entries_of(
    settings: Sequence[Mapping[str, Any]], seeds: Sequence[int], *, method: str | None = None, hashed: bool = True
) -> list[dict[str, Any]]:
    """Return what the manifest of an evaluation says of the weights of trainings."""
    found = []
    for one in settings:
        name = one["method"]["name"]
        trained = {"method": name}
        trained |= {"noise": "gaussian", "level": one["method"]["noise"]["level"]} if name == "rwp" else {}
        trained |= {"training_sha256": configuration_sha256(one)} if hashed else {}
        label = method or one["label"] or name
        for seed in seeds:
            sha = f"{label}-{name}-{one['method']['noise']['level']}-{seed}"
            entry = {"file": f"{label}-{seed}.safetensors", "sha256": sha, "method": label, "train_seed": seed}
            found.append({**entry, "trained": trained})
    return found


def make_evaluation(
    path: Path,
    settings: Sequence[Mapping[str, Any]],
    values: Mapping[str, Mapping[float, float]],
    *,
    seeds: Sequence[int] = (0, 1),
    data: str = "cifar100",
    split: str | None = None,
    method: str | None = None,
    hashed: bool = True,
    noise: tuple[str, str] = ("gaussian", "sigma"),
) -> Path:
    """Write an evaluation: accuracies by label and level; seed s has s points more, draw d 0.1 d more."""
    rows = given_rows(
        {
            (method or label, seed): {
                level: [value + seed + 0.1 * draw for draw in range(2 if level else 1)] for level, value in by.items()
            }
            for label, by in values.items()
            for seed in seeds
        },
        *noise,
    )
    weights = entries_of(settings, seeds, method=method, hashed=hashed)
    told = {} if split is None else {"split": split}
    said = {"weights": weights, "data": {"name": data, "sha256": data.ljust(64, "0"), "n_examples": 10_000, **told}}
    return make_folder(path, rows, configuration=said)


def make_landscape(
    path: Path,
    settings: Sequence[Mapping[str, Any]],
    *,
    points: int = 9,
    line: bool = False,
    metrics: Sequence[str] = ("loss",),
    splits: Sequence[str] = ("train", "test"),
    seeds: Sequence[int] = (0,),
) -> Path:
    """Write landscapes: bowls, the wider the stronger the training, that explode in a corner; minimum at (0.25, 0)."""
    grid = np.linspace(-1, 1, points)
    frames = []
    for one in settings:
        width = 0.5 + strength_of(one)
        for seed in seeds:
            for split in splits:
                x, y = np.meshgrid(grid, [np.nan] if line else grid)
                away = (x - 0.25) ** 2 + np.nan_to_num(y) ** 2 * 1.6
                loss = 0.02 + (0.4 if split == "test" else 0) + 3 * away / width**2 + seed
                loss += 4 * np.exp(8 * (x + np.nan_to_num(y) - 1.2)) / width
                values = {"loss": loss, "accuracy": 100 * np.exp(-loss / 3)}
                for metric in metrics:
                    frame = pd.DataFrame({"x": x.ravel(), "y": y.ravel(), "value": values[metric].ravel()})
                    label = one["label"] or one["method"]["name"]
                    told = {"method": label, "train_seed": seed, "weights": f"{label}-{seed}.safetensors"}
                    frames.append(frame.assign(**told, split=split, metric=metric, n_draws=1))
    path.mkdir(parents=True)
    pd.concat(frames)[list(LANDSCAPE_DTYPES)].to_csv(path / "landscape.csv", index=False)
    said = {"weights": entries_of(settings, seeds)}
    (path / "manifest.json").write_text(json.dumps({"kind": "landscape", "configuration": said}))
    return path


def make_filters(path: Path, settings: Sequence[Mapping[str, Any]], *, number: int = 200) -> Path:
    """Write the norms of filters of two layers: the stronger the training, the more alike."""
    frames = []
    for one in settings:
        rng = np.random.default_rng(len(str(one["label"])))
        label = one["label"] or one["method"]["name"]
        for layer in ("conv1.weight", "conv2.weight"):
            norms = np.exp(0.6 / (1 + strength_of(one)) * rng.normal(size=number))
            frame = pd.DataFrame({"filter": range(number), "norm": norms, "layer": layer, "method": label})
            frames.append(frame.assign(train_seed=0, weights=f"{label}-0.safetensors"))
    path.mkdir(parents=True)
    pd.concat(frames)[list(FILTERS_DTYPES)].to_csv(path / "filters.csv", index=False)
    said = {"weights": entries_of(settings, (0,))}
    (path / "manifest.json").write_text(json.dumps({"kind": "filters", "configuration": said}))
    return path


def make_everything(
    path: Path, *, many: bool = True, epochs: int = 6, every: float = 0.5, points: int = 9
) -> list[dict[str, Any]]:
    """Write all that the figures can need, and return the configurations; ``many`` as in the papers."""
    rhos, sigmas = ((0.2, 0.3, 0.5, 0.8), (0.02, 0.03, 0.05, 0.07, 0.08)) if many else ((0.2, 0.5), (0.02, 0.07))
    made = [configuration("SGD", epochs=epochs)]
    made += [configuration(f"SAM {rho:g}", "sam", rho=rho, epochs=epochs) for rho in rhos]
    made += [configuration(f"RWP {sigma:g}", "rwp", level=sigma, epochs=epochs) for sigma in sigmas]
    ramp = {"schedule": "quadratic", "fraction": 0.6, "epochs": epochs}
    made += [configuration("SAM 0.8 ramped", "sam", rho=0.8, **ramp)]
    made += [configuration("RWP 0.1 ramped", "rwp", level=0.1, **ramp)]
    made += [configuration(f"m-RWP {s:g}", "rwp", level=s, weight=0.5, epochs=epochs) for s in sigmas[:3]]
    tested = {}
    for one in made:
        make_run(path / "runs" / one["label"], one, every=every)
        s = strength_of(one)
        clean = 79 + 1.5 * s - 2.4 * s**2 - (0.5 if one["method"]["name"] == "rwp" else -0.8)
        fall = {0.0: 0, 0.02: 1.5, 0.03: 4, 0.05: 14, 0.07: 30}
        tested[one["label"]] = {level: clean - points / (1 + s) for level, points in fall.items()}
    make_evaluation(path / "results" / "gaussian", made, tested)
    few = [made[0], made[2], made[1 + len(rhos)]]
    for corruption, cost in (("fog", 3.0), ("snow", 5.0)):
        for severity in (1, 3, 5):
            values = {one["label"]: {0.0: tested[one["label"]][0.0] - cost * severity} for one in few}
            name = f"cifar100-c:CIFAR-100-C/{corruption}/{severity}"
            make_evaluation(path / "results" / f"{corruption}-{severity}", few, values, data=name)
    planes = [*made[1:4], *made[1 + len(rhos) : 4 + len(rhos)]] if many else few[1:]
    make_landscape(path / "plane", planes, points=points)
    make_landscape(path / "line", few, points=21, line=True, metrics=("loss", "accuracy"))
    make_filters(path / "filters", few)
    return made
