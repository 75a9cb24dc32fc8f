"""From settings to objects: method, optimizer, learning rate schedule."""

from __future__ import annotations

from torch import nn, optim
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

from noiserobust.config import MethodConfig, OptimizerConfig
from noiserobust.errors import InvalidValueError
from noiserobust.noise.registry import noise_from_config
from noiserobust.train.method import Method
from noiserobust.train.rwp import RWP
from noiserobust.train.sam import SAM


def build_method(config: MethodConfig) -> Method | None:
    """Return the perturbative method, or None for plain SGD."""
    if config.name == "sgd":
        return None
    if config.name == "sam":
        return SAM() if config.rho is None else SAM(config.rho)
    noise = noise_from_config(config.noise)
    return RWP(noise) if config.perturbed_weight is None else RWP(noise, config.perturbed_weight)


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> optim.Optimizer:
    """Return the base optimizer of all parameters that require gradients.

    Raises:
        InvalidValueError: if the model has none.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InvalidValueError("Expected `model` to have parameters to train, but all are frozen")
    if config.name == "adamw":
        return optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )


def build_lr_schedule(name: str, optimizer: optim.Optimizer, steps: int) -> LRScheduler:
    """Return a learning rate schedule over ``steps`` optimizer steps, stepped after each of them."""
    if name == "constant":
        return ConstantLR(optimizer, factor=1.0)
    if name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    # By default it would cycle the momentum too, over the one that was asked for.
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=peaks, total_steps=steps, cycle_momentum=False)
