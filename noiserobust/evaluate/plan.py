"""What an evaluation computes: which weights, on which levels of a noise, with how many draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from noiserobust.config import READS
from noiserobust.errors import InvalidValueError, check_choice, check_integer, check_number
from noiserobust.evaluate.calibration import Calibration
from noiserobust.noise.base import CLEAN, Noise
from noiserobust.noise.sites import Select
from noiserobust.noise.timed import TimedNoise


@dataclass(frozen=True)
class Subject:
    """Trained weights to evaluate.

    Args:
        method: name of the method that trained them, for tables.
        train_seed: which of several trainings of that method they are; chips of different train seeds are independent.
        weights: what they are called in the results.
        load: returns the model with these weights.
        own: whether that model is the evaluation's own, to be changed as it likes; else it is left alone.
    """

    method: str
    train_seed: int
    weights: str
    load: Callable[[], nn.Module]
    own: bool = False


@dataclass(frozen=True)
class Level:
    """One severity of a noise; ``noise`` is None where there is none (level 0)."""

    value: float
    noise: Noise | None


@dataclass(frozen=True)
class Plan:
    """What is computed: every subject on every level with every draw.

    Args:
        noise: the noise; its own level does not matter.
        levels: severities; a level without noise has one draw.
        draws: chips per subject and level, >= 1; with ``until`` at most so many, >= 2.
        seed: root seed of the chips, >= 0.
        select: which weights are noisy, as in :func:`noiserobust.find_sites`.
        calibration: what is done to each chip before it is evaluated, or None.
        reads: how often a device is read: once a ``"pass"`` over the data, or anew for each ``"batch"``.
        analog: whether layers are simulated as full analog tiles, with the periphery of the device's profile.
        until: half-width of the interval for the mean over chips at which no more are drawn; None draws them all.
    """

    noise: Noise
    levels: Sequence[Level]
    draws: int
    seed: int
    select: Select | None = None
    calibration: Calibration | None = None
    reads: str = "pass"
    analog: bool = False
    until: float | None = None

    def __post_init__(self) -> None:
        if check_choice("reads", self.reads, READS) == "batch" and not isinstance(self.noise, TimedNoise):
            raise InvalidValueError(f"Expected a device for `reads` of a batch, but got {self.noise.name} noise")
        if self.analog and not isinstance(self.noise, TimedNoise):
            raise InvalidValueError(f"Expected a device for `analog`, but got {self.noise.name} noise")
        if self.analog and (self.reads == "batch" or self.calibration is not None):
            raise InvalidValueError("Expected `analog` without `reads` of a batch and without calibration")
        if self.reads == "batch" and self.calibration is not None:
            raise InvalidValueError("Expected no calibration with `reads` of a batch, but got one")
        if self.until is not None:
            check_number("until", self.until, above=0)
            check_integer("draws", self.draws, minimum=2)
            if self.reads == "batch":
                raise InvalidValueError("Expected no `until` with `reads` of a batch, but got one")
        # NumPy integers become plain ones, which JSON can hold.
        object.__setattr__(self, "draws", check_integer("draws", self.draws, minimum=1))
        object.__setattr__(self, "seed", check_integer("seed", self.seed, minimum=0))

    @property
    def noise_name(self) -> str:
        """What the noise is called in the results."""
        calibrated = f"+{self.calibration.kind}-calibration" if self.calibration else ""
        read = "+read-each-batch" if self.reads == "batch" else ""
        return self.noise.name + calibrated + read + ("+tile" if self.analog else "")

    def tasks(self) -> list[tuple[int, int]]:
        """Return each level, by its position, with each of its draws."""
        numbers = [self.draws if level.noise else 1 for level in self.levels]
        return [(position, draw) for position, number in enumerate(numbers) for draw in range(number)]


def parse_levels(noise: Noise, levels: Iterable[float | str]) -> list[Level]:
    """Return levels of a noise from numbers or text; ``0`` and ``"clean"`` mean without noise.

    Raises:
        InvalidValueError: if there is none, one is not valid for this noise, or one is given twice.
    """
    levels = levels.tolist() if isinstance(levels, Tensor) else levels
    given = [] if isinstance(levels, (str, bytes)) or not isinstance(levels, Iterable) else list(levels)
    if not given:
        raise InvalidValueError(f"Expected `levels` to be a non-empty list of levels, but got {levels!r}")
    parsed: dict[float, Level] = {}
    for text in given:
        value = 0.0 if text == CLEAN else _level(noise, text)
        if value in parsed:
            raise InvalidValueError(f"Expected `levels` to be distinct, but got {text!r} twice")
        parsed[value] = Level(value, noise.at(value) if value else None)
    return list(parsed.values())


def _level(noise: Noise, text: float | str) -> float:
    try:
        return noise.parse_level(text)
    except InvalidValueError as error:
        hint = f"; {CLEAN!r} is without noise" if text in (0, "0") else ""
        raise InvalidValueError(f"{error}{hint}") from None
