"""From settings to objects: method, schedules, optimizer."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from noiserobust.config import ROBUST, AverageConfig, ClipConfig, MethodConfig, OptimizerConfig, ScheduleConfig
from noiserobust.errors import InvalidValueError
from noiserobust.noise.kernels import KernelTransform
from noiserobust.noise.registry import KERNELS, noise_from_config
from noiserobust.train.arwp import ARWP
from noiserobust.train.augment import WeightAugmentation
from noiserobust.train.clipping import WeightClip
from noiserobust.train.method import Method, Unperturbed
from noiserobust.train.rwp import RWP
from noiserobust.train.sam import ASAM, SAM
from noiserobust.train.schedules import SCHEDULES, Schedule


def build_method(config: MethodConfig) -> Method:
    """Return the perturbative method.

    Raises:
        InvalidValueError: if a setting is out of range, or does not go with the noise.
    """
    if config.name == "sgd":
        return Unperturbed()
    common: dict[str, Any] = {"perturbed_weight": config.perturbed_weight}
    if config.name in ("sam", "asam"):
        ascent = SAM if config.name == "sam" else ASAM
        return ascent(**_given(rho=config.rho, per_micro_batch=config.per_micro_batch, **common))
    common |= {"level_range": config.level_range and tuple(config.level_range), "draws": config.draws}
    if config.name == "was":
        noise = noise_from_config(config.noise, default=KERNELS)
        return WeightAugmentation(**_given(noise=noise, gradient=config.gradient, **common))
    noise = noise_from_config(config.noise)
    if isinstance(noise, KernelTransform):
        raise InvalidValueError(
            f"Expected `method.noise` to be {KERNELS} with method.name 'was' only, but got {config.name!r}"
        )
    if config.name in (ROBUST, "rwp"):
        return RWP(**_given(noise=noise, chips=config.chips, **common))
    return ARWP(**_given(noise=noise, eta=config.eta, beta=config.beta, **common))


def build_schedule(config: ScheduleConfig) -> Schedule:
    """Return the schedule of the strength.

    Raises:
        InvalidValueError: if a setting is out of range.
    """
    settings = _given(steps=config.steps, fraction=config.fraction, start=config.start, power=config.power)
    return SCHEDULES[config.name or "constant"](**settings)


def build_weight_clip(config: ClipConfig) -> WeightClip | None:
    """Return the limit of the weights, or None."""
    if not config.weight_stds and config.weight_value is None:
        return None
    return WeightClip(config.weight_stds or None, config.weight_value, config.granularity or "tensor")


def build_average(config: AverageConfig, model: nn.Module) -> AveragedModel | None:
    """Return the average of a model's weights and of its normalisation statistics, or None.

    After n steps it has kept ``min(decay, (1 + n) / (10 + n))`` of itself: the first steps, which are the worst, would
    else be most of it for as long as it averages over.
    """
    if not config.decay:
        return None
    return AveragedModel(model, multi_avg_fn=partial(_average, config.decay), use_buffers=True)


def _average(decay: float, averaged: Any, current: Any, number: Tensor | int) -> None:
    steps = int(number)
    get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averaged, current, number)


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


def _given(**settings: Any) -> dict[str, Any]:
    """Return the settings that are not None; the others keep the defaults of the class."""
    return {name: value for name, value in settings.items() if value is not None}
