"""Held-out accuracy for the selection of an epoch; handed to the trainer as an argument."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from noiserobust.config import TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.montecarlo import mean_accuracy
from noiserobust.noise.registry import noise_from_config
from noiserobust.rng import Stream


def held_out_score(
    data: ArrayData, normalize: Normalize, config: TrainConfig, train_seed: int, device: torch.device
) -> Callable[[nn.Module], tuple[float, float]]:
    """Return a function that measures a model's clean and perturbed accuracy, in percent, on held-out data.

    The noise draws are a fixed bank, the same after every epoch, and share no stream with the final evaluation.

    Args:
        data: held-out examples.
        normalize: from stored values to network inputs.
        config: of the training; ``select`` says noise and number of draws.
        train_seed: which of several trainings this is.
        device: where to compute.
    """
    precision = "bf16" if config.precision == "bf16" else "fp32"  # fp16 is for gradients that are scaled
    forward = Forward(data, normalize, device, precision)
    noise = noise_from_config(config.selection_noise)
    bank = [Stream(config.seed, "select", train_seed, draw) for draw in range(config.select.draws)]

    def score(model: nn.Module) -> tuple[float, float]:
        placed = forward.place(model)
        clean = forward.measure(forward.network(placed))[0]["accuracy"]
        return clean, mean_accuracy(placed, forward, noise, bank) if noise.level else clean

    return score
