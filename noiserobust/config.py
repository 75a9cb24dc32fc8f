"""Settings of a training, as written in YAML or given as ``--dotted.key VALUE``. Needs neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from noiserobust.errors import InvalidValueError, check_choice, check_integer, check_number

PRECISIONS = ("fp32", "bf16")
METHODS = ("sgd", "sam", "rwp")
OPTIMIZERS = ("sgd", "adamw")
LR_SCHEDULES = ("constant", "cosine", "one-cycle")

Scalar = bool | int | float | str


@dataclass(frozen=True)
class NoiseConfig:
    """A noise and its severity.

    Args:
        name: gaussian, laplace, a device profile's name, or a .yaml file that describes a noise.
        level: sigma or b as a fraction of the reference, >= 0, by default 0.05; for a device the time since
            programming (1s, 1h, 1d), by default 1d.
        reference: what the level of gaussian and laplace is a fraction of: max, l2, std, absolute or weight.
        granularity: over what the reference is taken: filter, tensor or tile; also replaces a device's own.
    """

    name: str = "gaussian"
    level: float | str | None = None
    reference: str | None = None
    granularity: str | None = None


@dataclass(frozen=True)
class MethodConfig:
    """How the weights are perturbed during training.

    Args:
        name: sgd (not at all), sam (along the gradient) or rwp (by random noise).
        rho: radius of sam, in units of the weights, >= 0, by default 0.05.
        noise: the noise of rwp.
        perturbed_weight: share of the perturbed gradient of rwp, in (0, 1], by default 1; below 1 the clean gradient
            has the rest.
    """

    name: str = "sgd"
    rho: float | None = None
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    perturbed_weight: float | None = None

    def __post_init__(self) -> None:
        check_choice("method.name", self.name, METHODS)
        if self.rho is not None:
            check_number("method.rho", self.rho, minimum=0)
        if self.perturbed_weight is not None:
            check_number("method.perturbed_weight", self.perturbed_weight, above=0, maximum=1)
        # A setting of another method would be ignored without a word.
        given = {"rho": self.rho is not None, "noise": self.noise != NoiseConfig()}
        given["perturbed_weight"] = self.perturbed_weight is not None
        for setting, method in (("rho", "sam"), ("noise", "rwp"), ("perturbed_weight", "rwp")):
            if given[setting] and self.name != method:
                raise InvalidValueError(
                    f"Expected `method.{setting}` to be given with method.name {method!r} only, but got {self.name!r}"
                )


@dataclass(frozen=True)
class OptimizerConfig:
    """The base optimizer.

    Args:
        name: sgd or adamw.
        lr: peak learning rate, > 0.
        momentum: of sgd, in [0, 1].
        weight_decay: >= 0.
        nesterov: whether sgd's momentum is Nesterov's.
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_choice("optimizer.name", self.name, OPTIMIZERS)
        check_number("optimizer.lr", self.lr, above=0)
        check_number("optimizer.momentum", self.momentum, minimum=0, maximum=1)
        check_number("optimizer.weight_decay", self.weight_decay, minimum=0)
        if self.nesterov and not self.momentum:
            raise InvalidValueError("Expected `optimizer.momentum` to be > 0 with nesterov, but got 0")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training images.

    Args:
        crop: pixels of zero padding from which a random crop of the image's size is taken; 0 for none.
        flip: whether images are flipped left to right at random.
    """

    crop: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        check_integer("augment.crop", self.crop, minimum=0)


@dataclass(frozen=True)
class SelectConfig:
    """Which epoch's weights are kept as best: those with the highest held-out accuracy under this noise.

    Args:
        noise: the noise, by default that of rwp, or gaussian of level 0.05 for other methods; level 0 selects by clean
            accuracy.
        draws: how many fixed noise draws the accuracy is averaged over, >= 1.
    """

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    draws: int = 4

    def __post_init__(self) -> None:
        check_integer("select.draws", self.draws, minimum=1)


@dataclass(frozen=True)
class TrainConfig:
    """A training.

    Args:
        model: registered name, package.module:callable or path/to/file.py:callable.
        data: digits, npz:FILE, imagefolder:DIR or file.py:callable.
        model_args: keyword arguments of the model.
        normalize: imagenet, cifar10, cifar100, digits, none or m,m,m/s,s,s; by default what the data set has.
        method: how the weights are perturbed.
        optimizer: the base optimizer.
        lr_schedule: of the learning rate over all steps: constant, cosine or one-cycle.
        epochs: passes over the training data, >= 1.
        batch_size: examples a step, >= 1; a last incomplete batch of an epoch is left out.
        label_smoothing: of the cross-entropy, in [0, 1).
        augment: random changes of the training images.
        precision: fp32, or bf16 for autocast.
        channels_last: whether images and convolutions use the channels-last memory layout.
        held_out: share of the training data kept aside to select the best epoch, in [0, 1); 0 keeps the last epoch.
        select: how the best epoch is selected.
        seed: root seed of all random numbers, >= 0.
        label: name of the method in result tables; by default method.name.
    """

    model: str
    data: str
    model_args: dict[str, Scalar] = field(default_factory=dict)
    normalize: str | None = None
    method: MethodConfig = field(default_factory=MethodConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lr_schedule: str = "cosine"
    epochs: int = 30
    batch_size: int = 128
    label_smoothing: float = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    precision: str = "fp32"
    channels_last: bool = True
    held_out: float = 0.1
    select: SelectConfig = field(default_factory=SelectConfig)
    seed: int = 0
    label: str | None = None

    def __post_init__(self) -> None:
        check_choice("lr_schedule", self.lr_schedule, LR_SCHEDULES)
        check_choice("precision", self.precision, PRECISIONS)
        check_integer("epochs", self.epochs, minimum=1)
        check_integer("batch_size", self.batch_size, minimum=1)
        check_integer("seed", self.seed, minimum=0)
        check_number("label_smoothing", self.label_smoothing, minimum=0)
        check_number("held_out", self.held_out, minimum=0)
        for name, share in (("label_smoothing", self.label_smoothing), ("held_out", self.held_out)):
            if share >= 1:
                raise InvalidValueError(f"Expected `{name}` to be a finite number >= 0 and < 1, but got {share!r}")

    @property
    def selection_noise(self) -> NoiseConfig:
        """The noise by which the best epoch is selected."""
        untouched = self.select.noise == NoiseConfig()
        return self.method.noise if untouched and self.method.name == "rwp" else self.select.noise

    @property
    def method_label(self) -> str:
        """The name of the method in result tables."""
        return self.label or self.method.name

    def as_dict(self) -> dict[str, Any]:
        """Return all settings as nested dictionaries, JSON-able."""
        return asdict(self)
