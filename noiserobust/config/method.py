"""How the weights are perturbed in training: noise, schedule, method."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field

from noiserobust.errors import InvalidValueError, check_choice, check_integer, check_number

ROBUST = "robust"
METHODS = (ROBUST, "sgd", "sam", "asam", "rwp", "arwp", "was")
SCHEDULES = ("constant", "linear", "quadratic", "power", "cosine", "off-to-on")


@dataclass(frozen=True)
class NoiseConfig:
    """A noise and its severity.

    Args:
        name: gaussian, laplace, kernels, a device profile's name, or a .yaml file that describes a noise; by default
            kernels for was, gaussian otherwise.
        level: sigma or b as a fraction of the reference, >= 0, by default 0.05, with robust 0.2 or 0.14; for a device
            the time since programming (1s, 1h, 1d), by default 1d; for kernels the probability of a transform, by
            default 0.22.
        reference: what the level of gaussian and laplace is a fraction of: max, l2, std, absolute or weight.
        granularity: over what the reference is taken: filter, tensor, tile or column; also replaces a device's own.
    """

    name: str | None = None
    level: float | str | None = None
    reference: str | None = None
    granularity: str | None = None


@dataclass(frozen=True)
class ScheduleConfig:
    """How the strength of the perturbation changes over the training.

    Args:
        name: constant, linear, quadratic, power, cosine or off-to-on; by default quadratic with robust, else constant.
        steps: optimizer steps until full strength, >= 1.
        fraction: the same as a fraction of the training, in (0, 1]; by default 1.
        start: share of the full strength at the first step, in [0, 1], by default 0.
        power: exponent of power, > 0.
    """

    name: str | None = None
    steps: int | None = None
    fraction: float | None = None
    start: float | None = None
    power: float | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_choice("method.schedule.name", self.name, SCHEDULES)
        if self.name == "power" and self.power is None:
            raise InvalidValueError("Expected `method.schedule.power` to be given with schedule 'power', but got None")
        for setting in ("steps", "fraction", "start", "power"):
            given = getattr(self, setting) is not None
            if given and (self.name in (None, "constant") or (setting == "power" and self.name != "power")):
                raise InvalidValueError(
                    f"Expected `method.schedule.{setting}` to be left out with schedule {self.name or 'constant'!r}, "
                    f"but got {getattr(self, setting)!r}"
                )


_NOISY, _ASCENDING = (ROBUST, "rwp", "arwp", "was"), ("sam", "asam")
_METHODS_OF_SETTING = {
    "rho": _ASCENDING,
    "per_micro_batch": _ASCENDING,
    "chips": (ROBUST, "rwp"),
    "noise": _NOISY,
    "level_range": _NOISY,
    "draws": _NOISY,
    "eta": ("arwp",),
    "beta": ("arwp",),
    "gradient": ("was",),
    "split_ranks": (ROBUST, "rwp"),
    "perturbed_weight": (*_ASCENDING, *_NOISY),
    "schedule": (*_ASCENDING, *_NOISY),
    "two_batches": (*_ASCENDING, *_NOISY),
    "same_dropout": (*_ASCENDING, *_NOISY),
}


@dataclass(frozen=True)
class MethodConfig:
    """How the weights are perturbed during training.

    Args:
        name: robust (the default: strong random noise that is ramped up, weights clipped by filter and averaged), sgd
            (not at all), sam or asam (along the gradient), rwp or arwp (by random noise, that of arwp weaker where
            gradients have been large) or was (by random transforms of the kernels).
        rho: radius of sam, in units of the weights, >= 0, by default 0.05; of asam, relative, by default 0.5.
        noise: the noise of robust, rwp and arwp, or the transforms of was.
        perturbed_weight: share of the perturbed gradient, in (0, 1], by default 1; below 1 the clean gradient has the
            rest (mixed sam, m-RWP, m-ARWP).
        schedule: how the strength changes over the training.
        level_range: lowest and highest level of the noise, >= 0 (of a device, times), drawn anew for each noise.
        draws: noise draws a step over which the gradient is averaged, >= 1, by default 1.
        eta: of arwp: how much past gradients weaken the noise, >= 0, by default 0.1.
        beta: of arwp: how long they are remembered, in [0, 1), by default 0.99.
        gradient: of was: through the transform, or straight.
        chips: of robust and rwp: equal parts of a batch that each have noise of their own, at the cost of one pass, >=
            1. By default 1; with robust 4 or 2, if they divide a batch into parts of at least 32 examples, else 1. On
            data of less than a batch those are divided like this, whatever is given above 1.
        per_micro_batch: of sam and asam: whether each micro-batch (see accumulate) ascends by itself (m-sharpness).
        two_batches: whether the perturbed pass has another batch than the clean one.
        same_dropout: whether both passes have the same dropout masks.
        split_ranks: of mixed robust and rwp under torchrun: whether even ranks compute the clean and odd ranks the
            perturbed gradient.
    """

    name: str = ROBUST
    rho: float | None = None
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    perturbed_weight: float | None = None
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    level_range: list[float | str] | None = None
    draws: int | None = None
    eta: float | None = None
    beta: float | None = None
    gradient: str | None = None
    chips: int | None = None
    per_micro_batch: bool = False
    two_batches: bool = False
    same_dropout: bool = False
    split_ranks: bool = False

    def __post_init__(self) -> None:
        check_choice("method.name", self.name, METHODS)
        if self.rho is not None:
            check_number("method.rho", self.rho, minimum=0)
        if self.perturbed_weight is not None:
            check_number("method.perturbed_weight", self.perturbed_weight, above=0, maximum=1)
        if self.chips is not None:
            check_integer("method.chips", self.chips, minimum=1)
        # A setting of another method would be ignored without a word.
        for setting, methods in _METHODS_OF_SETTING.items():
            given = getattr(self, setting) not in (unset(self, setting), ScheduleConfig("constant"))
            if given and self.name not in methods:
                wanted = ", ".join(methods)
                raise InvalidValueError(
                    f"Expected `method.{setting}` to be given with method.name {wanted} only, but got {self.name!r}"
                )
        if self.two_batches and (self.perturbed_weight or 1) == 1 and self.name not in _ASCENDING:
            raise InvalidValueError(
                "Expected `method.two_batches` to be given with perturbed_weight < 1, since there is no clean pass "
                f"otherwise, but got {self.perturbed_weight!r}"
            )

    @property
    def adds_noise(self) -> bool:
        """Whether it trains for a noise of the weights."""
        return self.name in (ROBUST, "rwp", "arwp")


def unset(config: object, setting: str) -> object:
    """Return what a setting of a dataclass is if nobody sets it."""
    declared = config.__dataclass_fields__[setting]  # type: ignore[attr-defined]
    return declared.default if declared.default_factory is MISSING else declared.default_factory()
