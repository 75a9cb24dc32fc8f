"""Train, evaluate and report neural networks whose weights live on noisy analog hardware.

    import noiserobust as nr

    noise = nr.GaussianNoise(sigma=0.05)
    result = nr.evaluate([model], (x, y), noise=noise, levels=[0, 0.02, 0.05], draws=10)

Names are imported when they are first used, so ``import noiserobust`` is instant and needs no torch.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noiserobust.data.registry import load_data as load_data
    from noiserobust.diagnose.cost import dom_cost as dom_cost
    from noiserobust.diagnose.sensitivity import layer_sensitivity as layer_sensitivity
    from noiserobust.errors import NoiseRobustError as NoiseRobustError
    from noiserobust.evaluate.api import evaluate as evaluate
    from noiserobust.evaluate.calibration import Calibration as Calibration
    from noiserobust.evaluate.montecarlo import EvaluationResult as EvaluationResult
    from noiserobust.models.batchnorm import recalibrate as recalibrate
    from noiserobust.models.registry import build_model as build_model
    from noiserobust.noise.base import Noise as Noise
    from noiserobust.noise.chip import Chip as Chip
    from noiserobust.noise.compose import Compose as Compose
    from noiserobust.noise.device import DeviceNoise as DeviceNoise
    from noiserobust.noise.faults import Faults as Faults
    from noiserobust.noise.kernels import KernelTransform as KernelTransform
    from noiserobust.noise.quantization import Quantization as Quantization
    from noiserobust.noise.scaled import GaussianNoise as GaussianNoise
    from noiserobust.noise.scaled import LaplaceNoise as LaplaceNoise
    from noiserobust.noise.sites import find_sites as find_sites
    from noiserobust.perturb import perturbed as perturbed
    from noiserobust.rng import Stream as Stream
    from noiserobust.train.arwp import ARWP as ARWP
    from noiserobust.train.augment import WeightAugmentation as WeightAugmentation
    from noiserobust.train.clipping import WeightClip as WeightClip
    from noiserobust.train.method import Unperturbed as Unperturbed
    from noiserobust.train.optimizer import PerturbedOptimizer as PerturbedOptimizer
    from noiserobust.train.rwp import RWP as RWP
    from noiserobust.train.sam import ASAM as ASAM
    from noiserobust.train.sam import SAM as SAM
    from noiserobust.train.schedules import Constant as Constant
    from noiserobust.train.schedules import CosineRamp as CosineRamp
    from noiserobust.train.schedules import LinearRamp as LinearRamp
    from noiserobust.train.schedules import OffToOn as OffToOn
    from noiserobust.train.schedules import PowerRamp as PowerRamp
    from noiserobust.train.schedules import QuadraticRamp as QuadraticRamp

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that wants to hear of us says so

_HOMES = {
    "NoiseRobustError": "errors",
    "Stream": "rng",
    "Noise": "noise.base",
    "GaussianNoise": "noise.scaled",
    "LaplaceNoise": "noise.scaled",
    "DeviceNoise": "noise.device",
    "Chip": "noise.chip",
    "Faults": "noise.faults",
    "Quantization": "noise.quantization",
    "Compose": "noise.compose",
    "KernelTransform": "noise.kernels",
    "perturbed": "perturb",
    "find_sites": "noise.sites",
    "build_model": "models.registry",
    "load_data": "data.registry",
    "PerturbedOptimizer": "train.optimizer",
    "SAM": "train.sam",
    "ASAM": "train.sam",
    "RWP": "train.rwp",
    "ARWP": "train.arwp",
    "WeightAugmentation": "train.augment",
    "Unperturbed": "train.method",
    "Constant": "train.schedules",
    "LinearRamp": "train.schedules",
    "QuadraticRamp": "train.schedules",
    "PowerRamp": "train.schedules",
    "CosineRamp": "train.schedules",
    "OffToOn": "train.schedules",
    "WeightClip": "train.clipping",
    "recalibrate": "models.batchnorm",
    "dom_cost": "diagnose.cost",
    "evaluate": "evaluate.api",
    "Calibration": "evaluate.calibration",
    "EvaluationResult": "evaluate.montecarlo",
    "layer_sensitivity": "diagnose.sensitivity",
}

_NAMESPACES = ("diagnose", "stats")

__all__ = sorted([*_HOMES, *_NAMESPACES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
