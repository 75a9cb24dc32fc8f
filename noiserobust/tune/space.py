"""What is searched: the noise to train with, its strength and schedule, share of the noisy gradient, clip, average."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from noiserobust.config import (
    ROBUST,
    AverageConfig,
    ClipConfig,
    MethodConfig,
    NoiseConfig,
    ScheduleConfig,
    SelectConfig,
    TrainConfig,
)
from noiserobust.errors import InvalidValueError
from noiserobust.train.recipe import build_method

if TYPE_CHECKING:
    import optuna

Params = Mapping[str, Any]
"""A point of the space: what the optimiser has proposed, by name."""

TUNED, PLAIN, EQUIVALENT, DEFAULT = "tuned", "sgd", "rwp equivalent", ROBUST
"""Names, in tables, of the winner and of what it is compared with."""

DEVICE = "device"
STRENGTHS = (0.5, 8.0)
SHARES = (0.5, 1.0)
NONE = "none"
CLIPS = (NONE, "3.0", "2.5", "2.0", "2.0 filter", "1.5 filter")
AVERAGES = (NONE, "0.99")
ORDINARY: Params = {
    "noise": "gaussian",
    "strength": 1.0,
    "schedule": "constant",
    "share": 1.0,
    "clip": NONE,
    "average": NONE,
}
"""What would be tried without a search: Gaussian noise of the size of the device's errors."""


@dataclass(frozen=True)
class Space:
    """Trainings for a device, all with as many forward-backward passes as the plain one.

    Args:
        base: the training that is to be improved; its method, clipping of weights and average do not count.
        device: profile's name, or FILE.yaml.
        t: time since programming that the network is trained for.
        times: of the device at which a network may be trained with its own noise.
        sigma: of the max-scaled Gaussian noise that has the device's errors at ``t``; None while it is not known.

    The parameters: ``noise`` is ``gaussian``, ``laplace`` or ``device``; ``strength`` multiplies sigma, for ``laplace``
    with b = sigma / sqrt(2), and ``t`` is the time of ``device`` instead; ``schedule`` is ``constant``, or ``linear``
    or ``quadratic`` over ``fraction`` of the training; ``share`` is the perturbed gradient's, below 1 with two passes a
    step and so half of the epochs; ``clip`` limits weights to so many standard deviations, or root mean squares of each
    ``filter``, or is ``none``; ``average`` is the decay of the average, or ``none``.
    """

    base: TrainConfig
    device: str
    t: str
    times: Sequence[str]
    sigma: float | None = None

    def suggest(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        """Let an optimiser propose a point."""
        noise = trial.suggest_categorical("noise", ["gaussian", "laplace", DEVICE])
        if noise == DEVICE:
            trial.suggest_categorical("t", list(self.times))
        else:
            trial.suggest_float("strength", *STRENGTHS, log=True)
        if trial.suggest_categorical("schedule", ["constant", "linear", "quadratic"]) != "constant":
            trial.suggest_float("fraction", 0.4, 1.0)
        trial.suggest_categorical("share", list(SHARES))
        trial.suggest_categorical("clip", list(CLIPS))
        trial.suggest_categorical("average", list(AVERAGES))
        return dict(trial.params)

    def plain(self) -> TrainConfig:
        """Return the training without noise, its best epoch selected on the device like that of all others."""
        return replace(self.base, method=MethodConfig("sgd"), label=PLAIN, **self._around())

    def default(self) -> TrainConfig:
        """Return the training that is done where no method is asked for."""
        return replace(self.base, method=MethodConfig(DEFAULT), label=DEFAULT, **self._around())

    def near_default(self) -> Params:
        """Return the point that is next to it."""
        default = self.default().resolved()
        method, clip, average = default.method, default.clip, default.average
        assert isinstance(method.noise.level, float)  # as of Gaussian noise
        strength = method.noise.level / max(self._sigma(), 1e-9)
        return {
            "noise": "gaussian",
            "strength": min(max(strength, STRENGTHS[0]), STRENGTHS[1]),
            "schedule": method.schedule.name,
            "fraction": method.schedule.fraction,
            "share": 1.0,
            "clip": f"{clip.weight_stds} {clip.granularity}",
            "average": f"{average.decay}",
        }

    def config(self, params: Params, label: str = TUNED) -> TrainConfig:
        """Return the training that a point stands for.

        Raises:
            InvalidValueError: if the training has too few epochs to be halved.
        """
        fraction = params.get("fraction")
        method = MethodConfig(
            "rwp",
            noise=self._noise(params),
            schedule=ScheduleConfig(params["schedule"], fraction=None if fraction is None else round(fraction, 3)),
            perturbed_weight=None if params["share"] == 1 else params["share"],
        )
        return replace(
            self.base,
            method=method,
            epochs=self._epochs(method),
            label=label,
            **self._around(params["clip"], params["average"]),
        )

    def passes_a_step(self, config: TrainConfig) -> int:
        """Return the forward-backward passes over a batch of a step."""
        return build_method(config.method).passes

    def _epochs(self, method: MethodConfig) -> int:
        epochs = self.base.epochs // build_method(method).passes
        if not epochs:
            raise InvalidValueError(
                f"Expected `epochs` to be >= 2, so that trainings with two passes a step have one, but got "
                f"{self.base.epochs}"
            )
        return epochs

    def _noise(self, params: Params) -> NoiseConfig:
        if params["noise"] == DEVICE:
            return NoiseConfig(self.device, params["t"])
        level = self._sigma() * params["strength"] / (math.sqrt(2) if params["noise"] == "laplace" else 1)
        return NoiseConfig(params["noise"], float(f"{level:.4g}"))

    def _sigma(self) -> float:
        if self.sigma is None:
            raise InvalidValueError("Expected `sigma` to be known before points are tried, but got None")
        return self.sigma

    def _around(self, clip: str = NONE, average: str = NONE) -> dict[str, Any]:
        """Return the settings around the method."""
        limits = ClipConfig(grad_norm=self.base.clip.grad_norm)
        if clip != NONE:
            stds, *granularity = clip.split()
            limits = replace(limits, weight_stds=float(stds), granularity=granularity[0] if granularity else "tensor")
        return {
            "clip": limits,
            "average": AverageConfig(None if average == NONE else float(average)),
            "select": SelectConfig(NoiseConfig(self.device, self.t), self.base.select.draws),
        }


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return the settings of a training that are not what they are by default, nested, as a YAML file has them."""
    known = ROBUST if config.method.name == ROBUST else "sgd"  # each has other defaults
    # Other defaults depend on these two, which have their own.
    size, parts = config.batch_size, config.accumulate
    method = MethodConfig(known)
    defaults = TrainConfig(config.model, config.data, method=method, batch_size=size, accumulate=parts).as_dict()
    defaults |= {"batch_size": TrainConfig.batch_size, "accumulate": TrainConfig.accumulate}
    return _differing(config.as_dict(), {**defaults, "method": {**defaults["method"], "name": None}})


def _differing(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name in ("model", "data"):
            found[name] = value
        elif isinstance(value, dict) and isinstance(defaults.get(name), dict):
            if inner := _differing(value, defaults[name]):
                found[name] = inner
        elif value != defaults.get(name):
            found[name] = value
    return found
