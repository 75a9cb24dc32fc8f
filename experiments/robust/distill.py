"""The default recipe with distillation from a clean teacher, as in "Noisy Machines" (arXiv 2001.04974).

    python experiments/robust/distill.py --config experiments/robust/small/parts.yaml --seeds 0 6 7 --out distilled \
        --teachers $(python experiments/trained.py runs/cifar experiments/robust/small/parts.yaml --methods sgd)

The teacher is the last epoch of the network that was trained without noise from the same train seed, in evaluation
mode; it sees what the student sees. The loss is (1 - a) cross-entropy + a T^2 KL(teacher || student), both at
temperature T. The student has as many steps as without; the teacher's training and its passes, one forward a step, come
on top.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from noiserobust.cli.parsing import checked_settings
from noiserobust.config import TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import parse_normalize
from noiserobust.data.registry import default_normalize, load_data
from noiserobust.evaluate.heldout import held_out_score
from noiserobust.models.weights import fit_weights, read_weights, write_weights
from noiserobust.results.files import make_folder, sha256, write_atomic
from noiserobust.results.manifest import environment
from noiserobust.results.store import ResultFolder
from noiserobust.results.trainings import METRICS_FILE, configuration_sha256
from noiserobust.rng import Stream
from noiserobust.train.progress import Epoch
from noiserobust.train.runs import BEST_FILE, LAST_FILE, initial_model
from noiserobust.train.trainer import Trainer
from noiserobust.yamlfile import read_settings

METHOD = "distilled"


class Distilled(Trainer):
    """Trains a student.

    Args:
        teacher: on the same device, in evaluation mode.
        share: of the teacher in the loss, in [0, 1].
        temperature: of both distributions, > 0.
    """

    def __init__(self, *args: Any, teacher: nn.Module, share: float, temperature: float, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.teacher, self.share, self.temperature = teacher, share, temperature

    def loss(self, x: Tensor, scores: Tensor, y: Tensor) -> Tensor:
        """Return the loss of labels and teacher."""
        return (1 - self.share) * super().loss(x, scores, y) + self.share * self.divergence(x, scores)

    def divergence(self, x: Tensor, scores: Tensor) -> Tensor:
        """Return the mean over examples of T^2 KL(teacher || student)."""
        with torch.no_grad():
            wanted = log_softmax(self.teacher(x) / self.temperature, dim=1)
        found = log_softmax(scores / self.temperature, dim=1)
        return self.temperature**2 * kl_div(found, wanted, reduction="batchmean", log_target=True)


def train_seed(
    config: TrainConfig,
    seed: int,
    data: ArrayData,
    teacher: Path,
    share: float,
    temperature: float,
    folder: Path,
    training: str,
) -> None:
    """Train one student and write the weights of its best and last epoch, and a table of all epochs."""
    normalize = parse_normalize(config.normalize or default_normalize(config.data))
    rest, held_out = data.split(config.held_out, Stream(config.seed, "held-out"))
    master = initial_model(config, seed)
    fit_weights(master, read_weights(teacher))
    score = held_out_score(held_out, normalize, config, seed, torch.device("cpu"))
    trainer = Distilled(
        initial_model(config, seed),
        rest,
        config,
        normalize,
        train_seed=seed,
        score=score,
        teacher=master.eval(),
        share=share,
        temperature=temperature,
    )
    epochs = []
    for epoch in trainer.epochs():
        epochs.append(epoch)
        print(f"seed {seed}", epoch, flush=True)
    rows = pd.DataFrame([{"train_seed": seed} | epoch.as_row() for epoch in epochs])
    write_atomic(folder / METRICS_FILE, rows[["train_seed", *(f.name for f in fields(Epoch))]].to_csv(index=False))
    said = {"method": METHOD, "model": config.model, "normalize": str(normalize), "train_seed": str(seed)}
    said["training_sha256"] = training
    chosen = max(epoch.epoch for epoch in epochs if epoch.best)
    write_weights(folder / BEST_FILE, trainer.best_state, said | {"epoch": str(chosen)})
    write_weights(folder / LAST_FILE, trainer.kept, said | {"epoch": str(config.epochs)})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The default recipe with a clean teacher.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file of a training, or of a sweep's `base`")
    parser.add_argument("--teachers", type=Path, nargs="+", required=True, help="weights of a teacher for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="train seeds")
    parser.add_argument("--share", type=float, default=0.5, help="of the teacher in the loss")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    content = read_settings(args.config)
    config = replace(checked_settings(TrainConfig, content.get("base", content)), label=METHOD).resolved()
    if len(args.teachers) != len(args.seeds):
        parser.error(f"Expected a teacher for each of {len(args.seeds)} train seeds, but got {len(args.teachers)}")
    teachers = dict(zip(args.seeds, args.teachers, strict=True))
    data = load_data(config.data, "train")
    own = {"share": args.share, "temperature": args.temperature, "data_sha256": data.sha256()}
    own["teachers"] = {str(seed): sha256(teacher) for seed, teacher in teachers.items()}
    configuration = config.as_dict() | own
    training = configuration_sha256(configuration)
    with ResultFolder(args.out, "training", configuration, environment({"device": "cpu"})):
        for seed, teacher in teachers.items():
            folder = args.out / f"seed{seed}"
            if not (folder / LAST_FILE).is_file():  # the last that is written
                train_seed(config, seed, data, teacher, args.share, args.temperature, make_folder(folder), training)


if __name__ == "__main__":
    main()
