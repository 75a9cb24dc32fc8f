"""All settings of a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from noiserobust.config.method import ROBUST, MethodConfig, NoiseConfig, unset
from noiserobust.config.robust import chips_of, completed, expected, noise_of
from noiserobust.errors import InvalidValueError, check_choice, check_integer, check_number

PRECISIONS = ("fp32", "bf16")
TRAIN_PRECISIONS = (*PRECISIONS, "fp16")
OPTIMIZERS = ("sgd", "adamw")
LR_SCHEDULES = ("constant", "cosine", "one-cycle")
SPLITS = ("train", "test")
READS = ("pass", "batch")
CALIBRATIONS = ("batchnorm", "layer", "column")
CLIP_GRANULARITIES = ("tensor", "filter")

Scalar = bool | int | float | str


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
        for name in ("momentum", "nesterov"):
            if self.name != "sgd" and getattr(self, name) != unset(self, name):
                raise InvalidValueError(
                    f"Expected `optimizer.{name}` to be given with optimizer.name sgd only, but got {self.name!r}"
                )
        if self.nesterov and not self.momentum:
            raise InvalidValueError("Expected `optimizer.momentum` to be > 0 with nesterov, but got 0")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training images.

    Args:
        crop: pixels of zero padding from which a random crop of the image's size is taken; 0 for none.
        flip: whether images are flipped left to right at random.
        cutout: side in pixels of a square at a random place of the normalised image that is set to zero; 0 for none.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        check_integer("augment.crop", self.crop, minimum=0)
        check_integer("augment.cutout", self.cutout, minimum=0)


@dataclass(frozen=True)
class ClipConfig:
    """Limits of gradients and weights.

    Args:
        grad_norm: of the norm of the gradient that updates, > 0.
        weight_stds: of the weights in the crossbar after each step, in standard deviations of each tensor, >= 0; 0 for
            none. By default 1.5 with method robust, else none.
        weight_value: the same in units of the weights, > 0.
        granularity: tensor, or filter: weight_stds is then in root mean squares of each filter. By default filter with
            method robust, else tensor.
    """

    grad_norm: float | None = None
    weight_stds: float | None = None
    weight_value: float | None = None
    granularity: str | None = None

    def __post_init__(self) -> None:
        for name in ("grad_norm", "weight_value"):
            if getattr(self, name) is not None:
                check_number(f"clip.{name}", getattr(self, name), above=0)
        if self.weight_stds is not None:
            check_number("clip.weight_stds", self.weight_stds, minimum=0)
        if self.granularity is not None:
            check_choice("clip.granularity", self.granularity, CLIP_GRANULARITIES)


@dataclass(frozen=True)
class AverageConfig:
    """The average of the weights over past steps, which is what is evaluated and written; training does not see it.

    Args:
        decay: share of the average that each step keeps, in [0, 1), less at first: 0.99 averages over about 100 steps,
            or the last tenth of those there were. 0 for no average. By default 0.99 with method robust, else none.
    """

    decay: float | None = None

    def __post_init__(self) -> None:
        if self.decay is not None and check_number("average.decay", self.decay, minimum=0) >= 1:
            raise InvalidValueError(f"Expected `average.decay` to be in [0, 1), but got {self.decay!r}")


@dataclass(frozen=True)
class SelectConfig:
    """Which epoch's weights are kept as best: those with the highest held-out accuracy under this noise.

    Args:
        noise: the noise, by default that of rwp and arwp (at the end of a level_range), that of robust at half its
            level, or gaussian of level 0.05 for other methods; level 0 selects by clean accuracy.
        draws: how many fixed noise draws the accuracy is averaged over, >= 1.
    """

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    draws: int = 4

    def __post_init__(self) -> None:
        check_integer("select.draws", self.draws, minimum=1)


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded of the loss around the weights while a training goes on, in diagnostics.csv.

    Args:
        every: optimizer steps between samples, >= 1, or auto: as seldom as takes at most 3% of the time; by
            default nothing is recorded.
        batches: fixed batches of the training data, and of the held-out data, that samples are taken on, >= 1.
        levels: sigmas of max-scaled Gaussian noise at which the average-direction sharpness is taken.
        rhos: radii at which the ascent-direction sharpness is taken.
        draws: noise draws for each of the levels, the same for all samples, >= 2.
        batch_statistics: whether gradients, and the loss where the method takes its own, are recorded as they are in
            training, where batch norm uses the statistics of each batch (of a whole one, where chips divide it);
            sharpness never is.
        tensorboard: whether it is written for TensorBoard too.
    """

    every: int | str | None = None
    batches: int = 2
    levels: list[float] = field(default_factory=lambda: [0.02, 0.07])
    rhos: list[float] = field(default_factory=lambda: [0.05])
    draws: int = 2
    batch_statistics: bool = True
    tensorboard: bool = False

    def __post_init__(self) -> None:
        others = [name for name in self.__dataclass_fields__ if name != "every"]
        given = [name for name in others if getattr(self, name) != unset(self, name)]
        if self.every is None and given:
            raise InvalidValueError(f"Expected `record.every` to be given with `record.{given[0]}`, but got None")
        if isinstance(self.every, str):
            check_choice("record.every", self.every, ("auto",))
        elif self.every is not None:
            check_integer("record.every", self.every, minimum=1)
        check_integer("record.batches", self.batches, minimum=1)
        check_integer("record.draws", self.draws, minimum=2)
        for name in ("levels", "rhos"):
            values = getattr(self, name)
            for value in values:
                check_number(f"record.{name}", value, above=0)
            if len(set(values)) < len(values):
                raise InvalidValueError(f"Expected `record.{name}` to be distinct, but got {values!r}")


@dataclass(frozen=True)
class TrainConfig:
    """A training.

    Args:
        model: registered name, package.module:callable or path/to/file.py:callable.
        data: digits, cifar10, cifar100, mnist or fashion-mnist (in $NOISEROBUST_DATA or ./data, or cifar10:PATH),
            npz:FILE, imagefolder:DIR[@size=224] or file.py:callable.
        model_args: keyword arguments of the model.
        normalize: imagenet, cifar10, cifar100, mnist, fashion-mnist, digits, none or m,m,m/s,s,s; by default what the
            data set has.
        method: how the weights are perturbed.
        optimizer: the base optimizer.
        lr_schedule: of the learning rate over all steps: constant, cosine or one-cycle.
        epochs: passes over the training data, >= 1.
        batch_size: examples a step, over all processes, >= 1; a last incomplete batch of an epoch is left out.
        accumulate: micro-batches that a batch is cut into to save memory, >= 1.
        label_smoothing: of the cross-entropy, in [0, 1).
        augment: random changes of the training images.
        clip: limits of gradients and weights.
        average: of the weights over past steps.
        precision: fp32, bf16 for autocast, or fp16 for autocast with scaled losses.
        compile: whether the model is compiled by torch.compile.
        channels_last: whether images and convolutions use the channels-last memory layout.
        held_out: share of the training data kept aside to select the best epoch, in [0, 1); 0 keeps the last epoch.
        select: how the best epoch is selected.
        seed: root seed of all random numbers, >= 0.
        label: name of the method in result tables; by default method.name.
        record: what is recorded of the loss around the weights; it does not change the training.
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
    accumulate: int = 1
    label_smoothing: float = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    precision: str = "fp32"
    compile: bool = False
    channels_last: bool = True
    held_out: float = 0.1
    select: SelectConfig = field(default_factory=SelectConfig)
    seed: int = 0
    label: str | None = None
    record: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        if self.clip.granularity == "filter" and not self.clip.weight_stds and self.method.name != ROBUST:
            raise InvalidValueError(
                "Expected `clip.granularity` to be given with `clip.weight_stds` only, but got 'filter'"
            )
        if self.method.name == ROBUST:
            noise_of(self.method)
        check_choice("lr_schedule", self.lr_schedule, LR_SCHEDULES)
        check_choice("precision", self.precision, TRAIN_PRECISIONS)
        check_integer("epochs", self.epochs, minimum=1)
        check_integer("batch_size", self.batch_size, minimum=1)
        check_integer("accumulate", self.accumulate, minimum=1)
        check_integer("seed", self.seed, minimum=0)
        if self.batch_size % (self.method.chips or 1):
            raise InvalidValueError(
                f"Expected `batch_size` to be a multiple of `method.chips`, {self.method.chips}, but got "
                f"{self.batch_size}"
            )
        check_number("label_smoothing", self.label_smoothing, minimum=0)
        check_number("held_out", self.held_out, minimum=0)
        if any(ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0 for sign in self.label or ""):
            raise InvalidValueError(f"Expected `label` to be a name without control characters, but got {self.label!r}")
        for name, share in (("label_smoothing", self.label_smoothing), ("held_out", self.held_out)):
            if share >= 1:
                raise InvalidValueError(f"Expected `{name}` to be a finite number >= 0 and < 1, but got {share!r}")

    def resolved(self) -> TrainConfig:
        """Return the training with what is not given as it is used, which depends on the method."""
        config = completed(self) if self.method.name == ROBUST else self
        schedule = replace(config.method.schedule, name=config.method.schedule.name or "constant")
        return replace(
            config,
            method=replace(config.method, schedule=schedule),
            clip=replace(
                config.clip,
                weight_stds=config.clip.weight_stds or None,
                granularity=config.clip.granularity or "tensor",
            ),
            average=replace(config.average, decay=config.average.decay or None),
        )

    @property
    def selection_noise(self) -> NoiseConfig:
        """The noise by which the best epoch is selected."""
        if self.select.noise != NoiseConfig() or not self.method.adds_noise:
            return self.select.noise
        method = self.resolved().method
        noise = replace(method.noise, level=method.level_range[-1]) if method.level_range else method.noise
        return expected(noise) if method.name == ROBUST else noise

    @property
    def method_label(self) -> str:
        """The name of the method in result tables."""
        return self.label or self.method.name

    def as_dict(self) -> dict[str, Any]:
        """Return all settings as nested dictionaries, JSON-able; later ones only if they are used.

        So trainings of versions that did not have them are continued. What the method sets is among them: where robust
        has several chips it is another method than before.
        """
        config = self.resolved()
        settings = asdict(config)
        if (config.method.chips or 1) == 1 and (config.method.name != ROBUST or chips_of(config) == 1):
            del settings["method"]["chips"]
        if config.record.every is None:
            del settings["record"]
        if config.average.decay is None:
            del settings["average"]
        if config.clip.granularity == "tensor":
            del settings["clip"]["granularity"]
        return settings
