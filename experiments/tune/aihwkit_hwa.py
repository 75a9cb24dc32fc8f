"""aihwkit's hardware-aware (HWA) training as a baseline: weight noise ADD_NORMAL on the networks and data of ours.

    python experiments/tune/aihwkit_hwa.py --seeds 0 1 2 3 4 --epochs 30 --out train/aihwkit-hwa
    noiserobust evaluate --model digits-cnn --weights train/aihwkit-hwa/seed*/best.safetensors --data digits \
                         --noise pcm-nandakumar-2019 --levels clean 1s 1d 1y --out evaluate/aihwkit-hwa

Network, data, batch size 32, SGD with momentum 0.9 and weight decay 5e-4, cosine schedule, the 20 % held out and the
choice of the epoch under PCM at one day are those of ``experiments/devices/digits.yaml``, or with ``--config FILE``
those of another training; its method, clipping and average do not count. Split, initial weights, order of the examples
and augmentation come from the streams of ``noiserobust train``, so that equal train seeds are pairs. The rest is done
as users of aihwkit do it: ``convert_to_analog``, AnalogSGD, noise by the tile. (Compiled tiles take no tensors of
current torch; the torch tile does the same, except for read noise and IR drop in the forward pass.)

Strength of the noise, as a fraction of the largest weight of the tile. The class ``WeightModifierParameter`` has none
(type NONE, std_dev 0.0), nor has the preset ``StandardHWATrainingPreset``. 0.1 is what aihwkit has as a default
wherever ADD_NORMAL is on: in its only preset with it (``aihwkit/simulator/presets/web.py``, "default values used for
the web composer"), in example 24 (BERT on SQuAD, ``--noise``), and in the examples that train CNNs, 06 and 25. The
notebook ``notebooks/tutorial/hw_aware_training.ipynb`` takes 0.06. Recipes:

- ``example`` (default): example 25, LeNet-5 on the torch tile: std_dev 0.1 drawn anew for each example; weights
  clipped at 2 standard deviations and mapped to the full range of the tile after each step; learned output scale;
  learned input range; DAC and ADC of 8 bits, output noise 0.04, output bound 10.
- ``tutorial``: the notebook, ResNet-32 on CIFAR-10 with this optimizer: std_dev 0.06 for a whole batch, no output
  scale, a tighter input range; the rest as above. It starts from a trained network with a tenth of the learning rate
  (``--pretrained train/sgd --lr 0.005``), which is a second training.

In the first step of ``example`` alone the noise is relative to the largest weight of each output channel: it is mapped
by channel at the start, and by tile after each step.

Not as in example 25: tiles of 512 x 512, the default of ``MappingParameter`` (as in the notebook and all presets),
not 256 x 256, which would cut the last convolution; converters of 2^8 - 2 steps, as in the notebook, not 2^8.

``--forward ideal`` leaves the weight noise, clipping and mapping, but no converters, output noise, bounds and input
ranges. Drift compensation acts at inference, which is ``noiserobust evaluate``. ``digits-cnn`` has batch norm; aihwkit
leaves running statistics of the noisy passes behind. ``--statistics clean`` measures them anew with the training images
and the trained weights, before an epoch is scored and written.

What is written is digital: the weights with all scales of the tiles multiplied in. Input ranges and converters are of
the periphery, and stay behind.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from aihwkit.nn.conversion import convert_to_analog, convert_to_digital
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.configs import TorchInferenceRPUConfig
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiserobust.cli.parsing import checked_settings
from noiserobust.config import (
    AverageConfig,
    ClipConfig,
    MethodConfig,
    RecordConfig,
    TrainConfig,
)
from noiserobust.data.arrays import ArrayData
from noiserobust.data.augment import Augment
from noiserobust.data.normalize import Normalize, parse_normalize
from noiserobust.data.registry import default_normalize, load_data
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.heldout import held_out_score
from noiserobust.models.batchnorm import recalibrate
from noiserobust.models.weights import fit_weights, read_weights, write_weights
from noiserobust.results.files import make_folder, write_atomic
from noiserobust.results.manifest import environment
from noiserobust.results.store import ResultFolder
from noiserobust.results.trainings import METRICS_FILE, configuration_sha256
from noiserobust.rng import Stream
from noiserobust.train.progress import Epoch
from noiserobust.train.recipe import build_lr_schedule
from noiserobust.train.runs import BEST_FILE, LAST_FILE, initial_model
from noiserobust.yamlfile import read_settings

METHOD = "aihwkit-hwa"
TRAINING = Path(__file__).parents[1] / "devices" / "digits.yaml"

COMMON: dict[str, Any] = {
    "modifier.type": "ADD_NORMAL",
    "modifier.rel_to_actual_wmax": True,
    "mapping.digital_bias": True,
    "mapping.weight_scaling_omega": 1.0,
    "mapping.max_input_size": 512,
    "mapping.max_output_size": 512,
    "remap.type": "LAYERWISE_SYMMETRIC",
    "clip.type": "LAYER_GAUSSIAN",
    "clip.sigma": 2.0,
    "forward.inp_bound": 1.0,
    "forward.out_bound": 10.0,
    "forward.out_noise": 0.04,
    "forward.inp_res": 1 / (2**8 - 2),
    "forward.out_res": 1 / (2**8 - 2),
    "forward.noise_management": "NONE",
    "forward.bound_management": "NONE",
    "pre_post.input_range.enable": True,
    "pre_post.input_range.manage_output_clipping": False,
}

RECIPES: dict[str, dict[str, Any]] = {
    "example": COMMON
    | {
        "modifier.std_dev": 0.1,
        "modifier.per_batch_sample": True,
        "mapping.weight_scaling_columnwise": True,
        "mapping.learn_out_scaling": True,
        "mapping.out_scaling_columnwise": False,
        "clip.fixed_value": 1.0,
    },
    "tutorial": COMMON
    | {
        "modifier.std_dev": 0.06,
        "mapping.weight_scaling_columnwise": False,
        "mapping.out_scaling_columnwise": False,
        "pre_post.input_range.decay": 0.01,
        "pre_post.input_range.init_from_data": 50,
        "pre_post.input_range.init_std_alpha": 3.0,
        "pre_post.input_range.input_min_percentage": 0.995,
    },
}

IDEAL: dict[str, Any] = {"forward.is_perfect": True, "pre_post.input_range.enable": False}


@dataclass(frozen=True)
class Hwa:
    """What is trained, beside what ``noiserobust train`` knows.

    Args:
        settings: of the tiles, by dotted name.
        statistics: of batch norm: ``"training"`` or ``"clean"``.
        pretrained: folder of trainings by seed to start from, or None.
    """

    settings: Mapping[str, Any]
    statistics: str = "training"
    pretrained: Path | None = None

    def as_dict(self, seed: int) -> dict[str, Any]:
        """Return all settings; of a training to start from, that of ``seed``, the SHA-256 of its configuration."""
        start = None if self.pretrained is None else read_weights(weights_of(self.pretrained, seed)).metadata
        training = None if start is None else start.get("training_sha256")
        return {"name": METHOD, **self.settings, "statistics": self.statistics, "pretrained": training}


def weights_of(training: Path, seed: int) -> Path:
    """Return the file of the best weights of a train seed."""
    return training / f"seed{seed}" / BEST_FILE


def settings(recipe: str, forward: str = "noisy", std_dev: float | None = None) -> dict[str, Any]:
    """Return the settings of a recipe, by dotted name."""
    own = {} if std_dev is None else {"modifier.std_dev": std_dev}
    return RECIPES[recipe] | (IDEAL if forward == "ideal" else {}) | own


def tile_configuration(settings: Mapping[str, Any]) -> TorchInferenceRPUConfig:
    """Return aihwkit's configuration with these settings, and its own defaults for the others."""
    configuration = TorchInferenceRPUConfig()
    for name, value in settings.items():
        *path, last = name.split(".")
        section: Any = configuration
        for part in path:
            section = getattr(section, part)
        old = getattr(section, last)
        setattr(section, last, type(old)[value] if isinstance(old, Enum) else value)
    return configuration


def to_analog(model: nn.Module, settings: Mapping[str, Any]) -> nn.Module:
    """Return the network on tiles; the model stays as it is."""
    with Stream(0, "tiles").as_torch_default():  # new layers draw weights, to be replaced at once
        analog: nn.Module = convert_to_analog(model, tile_configuration(settings))
    return analog


def to_digital(analog: nn.Module) -> dict[str, Tensor]:
    """Return the state of the network without tiles: their weights, with all scales multiplied in."""
    with Stream(0, "tiles").as_torch_default():
        state: dict[str, Tensor] = convert_to_digital(analog).state_dict()
    return {name: value.detach().clone() for name, value in state.items()}


def start(config: TrainConfig, seed: int, pretrained: Path | None) -> nn.Module:
    """Return the network that ``noiserobust train`` starts from, or has ended with."""
    model = initial_model(config, seed)
    if pretrained is not None:
        fit_weights(model, read_weights(weights_of(pretrained, seed)))
    return model


def train_seed(
    config: TrainConfig,
    hwa: Hwa,
    seed: int,
    rest: ArrayData,
    held_out: ArrayData,
    normalize: Normalize,
    folder: Path,
    metadata: Mapping[str, str],
) -> None:
    """Train one network and write the weights of its best and its last epoch, and a table of all epochs."""
    digital = start(config, seed, hwa.pretrained)
    analog = to_analog(digital, hwa.settings)
    optimizer = AnalogSGD(
        analog.parameters(),
        lr=config.optimizer.lr,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
    )
    optimizer.regroup_param_groups(analog)
    x, y, augment = rest.x, rest.y, Augment(config.augment.crop, config.augment.flip)
    steps = len(rest) // config.batch_size
    schedule = build_lr_schedule(config.lr_schedule, optimizer, config.epochs * steps)
    score = held_out_score(held_out, normalize, config, seed, torch.device("cpu"))
    stream = Stream(config.seed, "training", seed)
    epochs: list[Epoch] = []
    best: dict[str, Tensor] = {}
    for number in range(1, config.epochs + 1):
        own = stream.child("epoch", number)
        order = torch.from_numpy(own.child("order").permutation(len(rest)))
        analog.train()
        began, total, lr = time.perf_counter(), 0.0, 0.0
        with own.child("torch").as_torch_default():  # aihwkit's noise has no generator of its own
            for step in range(steps):
                batch = order[step * config.batch_size : (step + 1) * config.batch_size]
                lr = optimizer.param_groups[0]["lr"]
                optimizer.zero_grad()
                images = x[batch] if augment == Augment() else augment(x[batch], own.child("augment", step))
                scores = analog(normalize(images))
                loss = cross_entropy(scores, y[batch], label_smoothing=config.label_smoothing)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
        seconds = time.perf_counter() - began
        digital.load_state_dict(to_digital(analog))
        if hwa.statistics == "clean":
            recalibrate(digital, normalize(x).tensor_split(-(-len(x) // 128)))
        clean, noisy = score(digital)
        better = noisy >= max((e.held_out_perturbed_accuracy for e in epochs), default=0.0)
        if better:  # among equals the longest trained, as for the trainer
            best = {name: value.clone() for name, value in digital.state_dict().items()}
        done = number * steps
        epochs.append(Epoch(number, done, done, lr, 1.0, total / steps, clean, noisy, better, seconds, 1))
        print(f"seed {seed} epoch {number}: loss {total / steps:.3f}, held out {clean:.2f} clean, {noisy:.2f} noisy")
    rows = pd.DataFrame([{"train_seed": seed} | e.as_row() for e in epochs])
    write_atomic(folder / METRICS_FILE, rows[["train_seed", *(f.name for f in fields(Epoch))]].to_csv(index=False))
    said = {**metadata, "train_seed": str(seed)}
    chosen = max(e.epoch for e in epochs if e.best)
    write_weights(folder / BEST_FILE, best, {**said, "epoch": str(chosen)})
    write_weights(folder / LAST_FILE, digital, {**said, "epoch": str(config.epochs)})


def train_seeds(config: TrainConfig, hwa: Hwa, seeds: Sequence[int], out: Path) -> list[Path]:
    """Train a network a seed into ``out/seed<N>/``, as ``noiserobust train`` does; finished seeds are kept.

    Returns:
        The files of the best weights.

    Raises:
        NoiseRobustError: if ``out`` holds another configuration, or cannot be written to.
    """
    plain = {"method": MethodConfig("sgd"), "clip": ClipConfig(), "average": AverageConfig()}
    config = replace(config, compile=False, channels_last=False, record=RecordConfig(), **plain)
    normalize = parse_normalize(config.normalize or default_normalize(config.data))
    data = load_data(config.data, "train")
    if not isinstance(data, ArrayData):
        raise InvalidValueError(f"Expected the training data {config.data} to be arrays (x, y), but got a DataLoader")
    rest, held_out = data.split(config.held_out, Stream(config.seed, "held-out"))
    own = {"method": hwa.as_dict(seeds[0]), "normalize": str(normalize), "data_sha256": data.sha256()}
    configuration = config.as_dict() | own
    metadata = {
        "method": config.label or METHOD,
        "model": config.model,
        "normalize": str(normalize),
        "training_sha256": configuration_sha256(configuration),
        "trained_method": METHOD,
        "trained_noise": "gaussian-tensor",
        "trained_level": repr(float(hwa.settings["modifier.std_dev"])),
    }
    with ResultFolder(out, "training", configuration, environment({"device": "cpu"})):
        for seed in seeds:
            folder = out / f"seed{seed}"
            if not (folder / LAST_FILE).is_file():  # the last that is written
                train_seed(config, hwa, seed, rest, held_out, normalize, make_folder(folder), metadata)
    return [weights_of(out, seed) for seed in seeds]


def _training(path: Path) -> TrainConfig:
    """Return the training of a file.

    Raises:
        NoiseRobustError: if there is none, or a setting is not valid or not done here.
    """
    content = read_settings(path)
    config = checked_settings(TrainConfig, content.get("base", content))
    undone = {"optimizer.name": config.optimizer.name != "sgd", "optimizer.nesterov": config.optimizer.nesterov}
    undone |= {"augment.cutout": config.augment.cutout > 0, "accumulate": config.accumulate > 1}
    undone |= {"precision": config.precision != "fp32", "clip.grad_norm": config.clip.grad_norm is not None}
    for name in (name for name, given in undone.items() if given):
        raise InvalidValueError(f"Expected `{name}` of {path} to be left out, but it is given, and not done here")
    return config


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="aihwkit's hardware-aware training.")
    parser.add_argument("--config", type=Path, default=TRAINING, help="YAML file of a training, or of a sweep's `base`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="train seeds")
    parser.add_argument("--epochs", type=int, help="instead of the configuration's")
    parser.add_argument("--lr", type=float, help="instead of the configuration's")
    parser.add_argument("--recipe", choices=RECIPES, default="example")
    parser.add_argument("--std-dev", type=float, help="of the weight noise, instead of the recipe's")
    parser.add_argument("--forward", choices=("noisy", "ideal"), default="noisy", help="of the tiles, but for weights")
    parser.add_argument("--statistics", choices=("training", "clean"), default="training", help="of batch norm")
    parser.add_argument("--pretrained", type=Path, help="start from the best weights of each seed in this folder")
    parser.add_argument("--label", default=METHOD, help="name of the method in result tables")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    config = replace(_training(args.config), label=args.label)
    if args.epochs is not None:
        config = replace(config, epochs=args.epochs)
    if args.lr is not None:
        config = replace(config, optimizer=replace(config.optimizer, lr=args.lr))
    hwa = Hwa(settings(args.recipe, args.forward, args.std_dev), args.statistics, args.pretrained)
    train_seeds(config, hwa, args.seeds, args.out)


if __name__ == "__main__":
    main()
