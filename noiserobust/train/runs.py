"""``noiserobust train``: several train seeds of one configuration into one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from noiserobust.config import TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize, parse_normalize
from noiserobust.data.registry import default_normalize, load_data
from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.models.registry import build_model
from noiserobust.models.weights import write_weights
from noiserobust.noise.registry import noise_from_config
from noiserobust.results.files import make_folder, sha256, write_atomic
from noiserobust.results.manifest import environment
from noiserobust.results.store import ResultFolder
from noiserobust.rng import Stream
from noiserobust.train.recipe import build_method
from noiserobust.train.trainer import Epoch, Score, Trainer

BEST_FILE, LAST_FILE, METRICS_FILE = "best.safetensors", "last.safetensors", "metrics.csv"

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

    Seeds that are finished in an ``out`` of the same configuration are kept.

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
    noise_from_config(config.select.noise)
    normalize = parse_normalize(config.normalize or default_normalize(config.data))
    data = load_data(config.data, "train")
    if isinstance(data, DataLoader):
        raise InvalidValueError(
            f"Expected the training data {config.data} to be arrays (x, y), but got a DataLoader; use "
            "PerturbedOptimizer in a loop of your own"
        )
    _check_fits(_build(config, seeds[0]).to(device), data, normalize(data.x[:2].to(device)))
    configuration = {**config.as_dict(), "normalize": str(normalize), "data_sha256": data.sha256()}
    noises = [config.select.noise.name] + [config.method.noise.name] * (config.method.name == "rwp")
    noise_files = [name for name in noises if name.endswith((".yaml", ".yml"))]
    if noise_files:
        configuration["noise_sha256"] = {name: sha256(Path(name)) for name in noise_files}
    ResultFolder(out, "training", configuration, environment({"device": str(device)}))
    rest, held_out = data, None
    if config.held_out:
        rest, held_out = data.split(config.held_out, Stream(config.seed, "held-out"))
    paths = []
    for seed in seeds:
        folder = make_folder(out / f"seed{seed}")
        paths.append(folder / BEST_FILE)
        if (folder / LAST_FILE).exists():  # written last: the seed is finished
            continue
        score = make_score(held_out, normalize, config, seed, device) if held_out else None
        trainer = Trainer(_build(config, seed), rest, config, normalize, train_seed=seed, device=device, score=score)
        _train(trainer, folder, seed, normalize, progress)
    return paths


def _build(config: TrainConfig, train_seed: int) -> nn.Module:
    with Stream(config.seed, "initialisation", train_seed).as_torch_default():
        return build_model(config.model, config.model_args)


def _check_fits(model: nn.Module, data: ArrayData, x: Tensor) -> None:
    """Raise unless a model returns scores for the normalised examples ``x`` and has an output for each label."""
    try:
        with torch.inference_mode():
            output = model.eval()(x)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidValueError(
            f"Expected data {data.name} to fit the model, but a batch of shape {tuple(x.shape)} failed: {reason}"
        ) from error
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(x):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise InvalidValueError(f"Expected the model to return scores of shape ({len(x)}, classes), but got {got}")
    if int(data.y.max()) >= output.shape[1]:
        raise InvalidValueError(
            f"Expected the labels of data {data.name} to be in 0..{output.shape[1] - 1}, as the model has "
            f"{output.shape[1]} outputs, but got {int(data.y.max())}"
        )


def _train(trainer: Trainer, folder: Path, seed: int, normalize: Normalize, progress: bool) -> None:
    config = trainer.config
    metadata = {
        "method": config.method_label,
        "train_seed": str(seed),
        "model": config.model,
        "normalize": str(normalize),
    }
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
                write_weights(folder / BEST_FILE, trainer.best_state, {**metadata, "epoch": str(epoch.epoch)})
    write_weights(folder / LAST_FILE, trainer.model, {**metadata, "epoch": str(config.epochs)})
