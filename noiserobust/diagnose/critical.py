"""The critical perturbation length: how far a method may go before its gradient vanishes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
from scipy.optimize import brentq
from torch import nn

from noiserobust.data.normalize import Normalize
from noiserobust.diagnose.examples import Examples, check_finite, examined, in_batches, loss_forward
from noiserobust.diagnose.gradients import BATCH, GRADIENT_QUANTITIES, Perturbations
from noiserobust.diagnose.probe import Loss, class_loss
from noiserobust.errors import InvalidValueError, check_number
from noiserobust.evaluate.forward import Data
from noiserobust.noise.base import Noise
from noiserobust.train.method import Method

_LOSS, _CLEAN, _PERTURBED, _LENGTH = (
    list(GRADIENT_QUANTITIES).index(name)
    for name in ("training_loss", "gradient_norm", "perturbed_gradient_norm", "perturbation_norm")
)


@dataclass(frozen=True)
class CriticalLength:
    """Where the gradient at the perturbed weights falls below a fraction of that at the weights.

    Args:
        strength: share of the method's full strength; NaN if there is no such strength, or it cannot be said.
        level_name: what the severity of the perturbation is called.
        level: the radius or the severity of the noise at that strength; NaN if it has none.
        length: ``|w_p - w|`` there, mean over batches and draws.
        clean_gradient_norm: ``|g(w)|``, mean over batches.
        fraction: of it that was asked for.
        reason: why there is none; empty if there is.
        scan: what was looked at on the way, one row a strength, ascending; columns ``strength, ratio, length``.
    """

    strength: float
    level_name: str
    level: float
    length: float
    clean_gradient_norm: float
    fraction: float
    reason: str
    scan: pd.DataFrame = field(repr=False)


def critical_length(
    model: nn.Module,
    data: Data,
    method: Method | Noise,
    fraction: float = 0.5,
    *,
    minimum: float = 0.01,
    maximum: float = 100.0,
    factor: float = 1.5,
    tolerance: float = 1e-3,
    m: int | None = None,
    batches: int | None = 8,
    draws: int = 1,
    seed: int = 0,
    train_seed: int = 0,
    batch_statistics: bool = False,
    loss: Loss = class_loss,
    device: str = "auto",
    normalize: str | Normalize = "auto",
) -> CriticalLength:
    """Find the smallest strength at which the gradient at the perturbed weights is a fraction of that at the weights.

    The norm of the gradient of a batch, mean over batches and draws, is taken at strengths that grow by a factor until
    it is below; the root in between is then found by Brent's method. Batches and random numbers are the same at all
    strengths, so that what is sought is the root of one continuous function. A dip between two strengths of the scan is
    not seen: a smaller factor looks closer.

    The norm often grows first: a minimum lies in a valley, whose walls are steeper than its floor, and beyond them is
    the plateau where gradients vanish. Of weights at a minimum, where the gradient is small already, there may be no
    such strength, nor in evaluation mode, where scores that are not normalised anew grow without bound; the training
    under way that is asked about is better seen at the weights of its early epochs, with ``batch_statistics``.

    Args:
        model: left unchanged.
        data: as for :func:`noiserobust.evaluate`; usually the training examples.
        method: of training, such as ``SAM(0.05)``; a noise stands for :class:`noiserobust.RWP` with it.
        fraction: in (0, 1).
        minimum: strength, a share of the method's full strength, at which the scan begins, > 0.
        maximum: strength at which it ends, > ``minimum``.
        factor: from one strength of the scan to the next, > 1.
        tolerance: of the strength, relative, in [1e-12, 0.1].
        m: as for :func:`noiserobust.diagnose.gradient_table`.
        batches: as for :func:`noiserobust.diagnose.gradient_table`.
        draws: as for :func:`noiserobust.diagnose.gradient_table`.
        seed: as for :func:`noiserobust.diagnose.gradient_table`.
        train_seed: as for :func:`noiserobust.diagnose.gradient_table`.
        batch_statistics: as for :func:`noiserobust.diagnose.gradient_table`.
        loss: as for :func:`noiserobust.diagnose.gradient_table`.
        device: as for :func:`noiserobust.diagnose.gradient_table`.
        normalize: as for :func:`noiserobust.diagnose.gradient_table`.

    Raises:
        InvalidValueError: if an argument is not valid, or model, data and method do not fit together.

    Source: "Incorruptible neural networks", sections 4.4 and 5.1, which define it informally, "at which point the harm
    from the diminishing gradient overtakes the benefit of over-regularization"; this is a measurable stand-in.
    """
    perturbations = Perturbations.of(method, draws, seed, train_seed)
    search = Search(perturbations, fraction, minimum, maximum, factor, tolerance)
    forward = in_batches(loss_forward(data, loss, normalize, device, None), data, m, batches, seed, otherwise=BATCH)
    with examined(model, forward, loss, batches, batch_statistics=batch_statistics) as examples:
        return search.on(examples)


def check_fraction(name: str, value: object) -> float:
    """Return ``value`` as a float if it is a number between 0 and 1.

    Args:
        name: what the number is called in the error.
        value: the candidate.

    Raises:
        InvalidValueError: if it is anything else.
    """
    try:
        number = check_number(name, value, above=0)
    except InvalidValueError:
        number = math.inf
    if number >= 1:
        raise InvalidValueError(f"Expected `{name}` to be a finite number > 0 and < 1, but got {value!r}")
    return number


@dataclass(frozen=True)
class Search:
    """The search of :func:`critical_length`, whose arguments these are.

    Raises:
        InvalidValueError: if one is out of range.
    """

    perturbations: Perturbations
    fraction: float = 0.5
    minimum: float = 0.01
    maximum: float = 100.0
    factor: float = 1.5
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)
        check_number("minimum", self.minimum, above=0)
        check_number("maximum", self.maximum, above=self.minimum)
        check_number("factor", self.factor, above=1)
        check_number("tolerance", self.tolerance, minimum=1e-12, maximum=0.1)
        self.perturbations.check_scales()

    def on(self, examples: Examples) -> CriticalLength:
        """Return what is found for a network."""
        seen: dict[float, tuple[float, float]] = {}
        clean = math.nan

        def ratio(strength: float) -> float:
            nonlocal clean
            if strength not in seen:
                values, _ = self.perturbations.values(examples, [strength])
                means = values[:, 0].mean(dim=0).tolist()
                check_finite(means[_LOSS])
                clean = means[_CLEAN]
                seen[strength] = means[_PERTURBED] / clean if clean else math.nan, means[_LENGTH]
            return seen[strength][0]

        root, reason = self._root(ratio)
        if not reason:
            ratio(root)  # seen before, but for a root that is an end of the bracket
        level_name, level = self.perturbations.level(1.0 if reason else root)
        rows = [{"strength": s, "ratio": r, "length": length} for s, (r, length) in sorted(seen.items())]
        scan = pd.DataFrame(rows, columns=["strength", "ratio", "length"])
        if reason:
            return CriticalLength(math.nan, level_name, math.nan, math.nan, clean, self.fraction, reason, scan)
        return CriticalLength(root, level_name, level, seen[root][1], clean, self.fraction, "", scan)

    def _root(self, ratio: Callable[[float], float]) -> tuple[float, str]:
        """Return the strength, or NaN and why there is none."""
        low, high = 0.0, self.minimum  # nothing is perturbed at 0: the ratio is 1
        while True:
            try:
                self.perturbations.level(high)
            except InvalidValueError as error:
                return math.nan, f"the gradient does not fall so far up to strength {low:.4g}, and beyond: {error}"
            found = ratio(high)
            if not math.isfinite(found):
                return math.nan, f"the gradient at the weights is zero, or not finite at strength {high:.4g}"
            if found < self.fraction:
                break
            if high >= self.maximum:
                least = f"it is {found:.3g} of that at the weights"
                return math.nan, f"the gradient does not fall so far up to strength {high:.4g}, where {least}"
            low, high = high, min(high * self.factor, self.maximum)

        def excess(strength: float) -> float:
            found = 1.0 if strength == 0 else ratio(strength)
            return (found if math.isfinite(found) else 1.0) - self.fraction

        return float(brentq(excess, low, high, xtol=1e-3 * self.tolerance * high, rtol=self.tolerance)), ""
