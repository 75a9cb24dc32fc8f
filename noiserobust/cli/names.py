"""What is known by name, for shells to complete: said here once more, since the registries take seconds to import.

A test compares these with the registries.
"""

from __future__ import annotations

from importlib import resources

from noiserobust.config import LR_SCHEDULES, METHODS, OPTIMIZERS, PRECISIONS, SCHEDULES, TRAIN_PRECISIONS

MODELS = (
    *("digits-mlp", "digits-cnn", "resnet20", "resnet32", "resnet44", "resnet56"),
    *("resnet9", "resnet18", "resnet34", "resnet50"),
    *("wrn-16-5", "wrn-16-8", "wrn-16-10", "wrn-16-15", "wrn-28-10", "vgg16-bn", "vit"),
)
DATA = ("digits", "cifar10", "cifar100", "mnist", "fashion-mnist")
NOISES = (
    *("gaussian", "laplace", "quantization", "kernels"),
    *("stuck-zero", "stuck-max", "dead-rows", "dead-columns"),
)
METRICS = ("accuracy", "top5", "loss")
REFERENCES = ("max", "l2", "std", "sqrt-max", "absolute", "weight")
GRANULARITIES = ("filter", "tensor", "tile", "column")
EXECUTORS = ("serial", "processes", "ray")
NORMALIZES = ("imagenet", "cifar10", "cifar100", "mnist", "fashion-mnist", "digits", "none")
FIGURES = (*map(str, range(1, 13)), "7-surface", *(f"rwp-{number}" for number in range(2, 9)))


def profiles() -> tuple[str, ...]:
    """Return the names of the device profiles."""
    folder = resources.files("noiserobust_hardware_profiles")
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def choices() -> dict[str, tuple[str, ...]]:
    """Return what may follow an option, by the words that lead to it or by its name alone."""
    noises = (*NOISES, *profiles())
    return {
        "model": MODELS,
        "data": DATA,
        "split": ("test", "train"),
        "normalize": NORMALIZES,
        "noise": noises,
        "method.noise.name": noises,
        "select.noise.name": noises,
        "method.name": METHODS,
        "method.schedule.name": SCHEDULES,
        "method.noise.reference": REFERENCES,
        "select.noise.reference": REFERENCES,
        "method.noise.granularity": GRANULARITIES,
        "select.noise.granularity": GRANULARITIES,
        "optimizer.name": OPTIMIZERS,
        "lr_schedule": LR_SCHEDULES,
        "metrics": METRICS,
        "precision": PRECISIONS,
        "train precision": TRAIN_PRECISIONS,
        "device": ("auto", "cpu", "cuda:0"),
        "executor": EXECUTORS,
        "reads": ("pass", "batch"),
        "calibrate": ("batchnorm", "layer", "column"),
        "only": FIGURES,
        "compare format": ("text", "markdown", "latex", "csv", "json"),
        "doctor format": ("text", "json"),
        "diagnose landscape along": ("random", "noise", "checkpoint"),
        "diagnose curvature select": ("trained", "crossbar"),
        "shell": ("bash", "zsh", "tcsh"),
        "unit": ("s", "ms", "us", "ns"),
        "time_unit": ("s", "min", "h", "d"),
        **{f"profiles {action} name": profiles() for action in ("show", "plot", "equivalent")},
    }
