"""``noiserobust train``: several train seeds of one configuration into one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from noiserobust.callables import source_sha256
from noiserobust.config import TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize, parse_normalize
from noiserobust.data.registry import default_normalize, load_data
from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.models.registry import build_model
from noiserobust.models.scores import class_scores
from noiserobust.models.weights import write_weights
from noiserobust.noise.registry import noise_from_config
from noiserobust.results.files import make_folder, sha256, write_atomic, write_errors
from noiserobust.results.manifest import environment
from noiserobust.results.store import ResultFolder
from noiserobust.rng import Stream
from noiserobust.train.recipe import build_method
from noiserobust.train.trainer import Epoch, Score, Trainer

BEST_FILE, LAST_FILE, METRICS_FILE = "best.safetensors", "last.safetensors", "metrics.csv"
BEST_SO_FAR_FILE = ".best.safetensors"  # hidden: `seed*/best.safetensors` must not find an unfinished seed

MakeScore = Callable[[ArrayData, Normalize, TrainConfig, int, torch.device], Score]
"""Makes the measure of held-out accuracy for one train seed; the evaluator has it, the trainer does not import it."""


def train_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    out: Path,
    *,
    make_score: MakeScore,
    device: torch.device,
    progress: bool = False,
) -> list[Path]:
    """Train one model a train seed into ``out/seed<N>/``: ``best.safetensors``, ``last.safetensors``, ``metrics.csv``.

    Seeds that are finished in an ``out`` of the same configuration are kept. A seed has its ``best.safetensors`` when
    its training is over, not before.

    Args:
        config: the training.
        seeds: train seeds, distinct integers >= 0.
        out: folder.
        make_score: makes the measure by which the best epoch is selected.
        device: where to compute.
        progress: whether to show a progress bar on a terminal.

    Returns:
        The files of the best weights, in the order of ``seeds``.

    Raises:
        NoiseRobustError: if a setting or the data are not valid, the folder holds another configuration or cannot be
            written to, or the loss diverges.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise InvalidValueError(f"Expected `seeds` to be distinct integers >= 0, but got {list(seeds)!r}")
    for seed in seeds:
        check_integer("seeds", seed, minimum=0)
    # Everything that can be wrong with the settings is found before the first epoch.
    build_method(config.method)
    noise_from_config(config.selection_noise)
    normalize = parse_normalize(config.normalize or default_normalize(config.data))
    data = load_data(config.data, "train")
    if isinstance(data, DataLoader):
        raise InvalidValueError(
            f"Expected the training data {config.data} to be arrays (x, y), but got a DataLoader; use "
            "PerturbedOptimizer in a loop of your own"
        )
    _check_fits(_build(config, seeds[0]), data, normalize, device)
    configuration = {**config.as_dict(), "normalize": str(normalize), "data_sha256": data.sha256()}
    # Files that the configuration names count with their content.
    noises = {config.selection_noise.name, config.method.noise.name}
    code = {config.model: source_sha256(config.model)}
    files = {name: sha256(Path(name)) for name in sorted(noises) if name.endswith((".yaml", ".yml"))}
    configuration["files_sha256"] = {name: digest for name, digest in {**code, **files}.items() if digest}
    metadata = {
        "method": config.method_label,
        "model": config.model,
        "normalize": str(normalize),
        "training_sha256": hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest(),
    }
    with ResultFolder(out, "training", configuration, environment({"device": str(device)})):
        rest, held_out = data, None
        if config.held_out:
            rest, held_out = data.split(config.held_out, Stream(config.seed, "held-out"))
        for seed in seeds:
            folder = make_folder(out / f"seed{seed}")
            results = [folder / name for name in (BEST_FILE, LAST_FILE)]  # in the order in which they are written
            if all(file.is_file() and file.stat().st_size for file in results):
                continue
            score = make_score(held_out, normalize, config, seed, device) if held_out else None
            model = _build(config, seed)
            trainer = Trainer(model, rest, config, normalize, train_seed=seed, device=device, score=score)
            _train(trainer, folder, metadata | {"train_seed": str(seed)}, progress)
    return [out / f"seed{seed}" / BEST_FILE for seed in seeds]


def _build(config: TrainConfig, train_seed: int) -> nn.Module:
    with Stream(config.seed, "initialisation", train_seed).as_torch_default():
        return build_model(config.model, config.model_args)


def _check_fits(model: nn.Module, data: ArrayData, normalize: Normalize, device: torch.device) -> None:
    """Raise unless a model returns scores for the examples and has an output for each label."""
    x = normalize(data.x[:1].to(device)).expand(2, *data.x.shape[1:])
    with torch.inference_mode():
        class_scores(model.to(device).eval(), x, torch.stack([data.y.min(), data.y.max()]))


def _train(trainer: Trainer, folder: Path, metadata: dict[str, str], progress: bool) -> None:
    config, seed = trainer.config, metadata["train_seed"]
    with write_errors(folder):
        # What a run left that was killed before it wrote the last weights; the first epoch overwrites the best so far.
        (folder / BEST_FILE).unlink(missing_ok=True)
    epochs: list[Epoch] = []
    total = config.epochs * trainer.steps_per_epoch
    with tqdm(
        total=total, desc=f"{config.method_label} seed {seed}", unit="step", disable=None if progress else True
    ) as bar:
        for epoch in trainer.epochs(bar.update):
            epochs.append(epoch)
            bar.set_postfix(loss=f"{epoch.train_loss:.3f}", noisy=f"{epoch.held_out_perturbed_accuracy:.1f}%")
            rows = pd.DataFrame([{"train_seed": seed, **e.as_row()} for e in epochs])
            write_atomic(folder / METRICS_FILE, rows.to_csv(index=False))
            if epoch.best:
                write_weights(folder / BEST_SO_FAR_FILE, trainer.best_state, {**metadata, "epoch": str(epoch.epoch)})
    with write_errors(folder / BEST_FILE):
        (folder / BEST_SO_FAR_FILE).replace(folder / BEST_FILE)
    write_weights(folder / LAST_FILE, trainer.model, {**metadata, "epoch": str(config.epochs)})
