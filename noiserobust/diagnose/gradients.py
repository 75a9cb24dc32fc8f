"""Gradients where a training method takes them, by the strength of its perturbation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from noiserobust.data.normalize import Normalize
from noiserobust.diagnose.examples import (
    Examples,
    check_finite,
    check_perturbed,
    examined,
    in_batches,
    loss_forward,
    standard_error,
)
from noiserobust.diagnose.probe import Batch, Loss, class_loss, cosine, displaced_by, loss_and_gradient, mixed, norm
from noiserobust.errors import InvalidValueError, check_integer, check_number
from noiserobust.evaluate.forward import Data
from noiserobust.noise.base import Noise
from noiserobust.noise.scaled import ScaledNoise
from noiserobust.rng import Stream
from noiserobust.train.method import Method, Unperturbed
from noiserobust.train.rwp import RWP

STRENGTHS = (0.25, 0.5, 1.0, 2.0)
"""Shares of a method's full strength that are looked at by default."""

BATCH = 128
"""Examples a batch, unless otherwise said."""

GRADIENT_QUANTITIES = {
    "training_loss": "L(w) as the method's gradient sees it, nats",
    "perturbed_loss": "L(w_p), w_p being the weights at which the method takes the gradient",
    "gradient_sharpness": "L(w_p) - L(w)",
    "gradient_norm": "|g(w)|",
    "perturbed_gradient_norm": "|g(w_p)|",
    "update_gradient_norm": "norm of the gradient that would update the weights: a share of either",
    "cosine": "of g(w) and g(w_p)",
    "perturbation_norm": "|w_p - w|",
}
"""What is measured on each batch, by its name in the column ``quantity``; gradients are those of the batch. Names are
those of :data:`noiserobust.results.diagnostics.QUANTITIES`."""

GRADIENT_DTYPES = {
    "strength": "float64",
    "level_name": "str",
    "level": "float64",
    "quantity": "str",
    "value": "float64",
    "standard_error": "float64",
    "n_batches": "int64",
    "n_draws": "int64",
    "n_examples": "int64",
}
"""Columns of :func:`gradient_table`, in order."""


def gradient_table(
    model: nn.Module,
    data: Data,
    method: Method | Noise,
    *,
    strengths: Iterable[float] = STRENGTHS,
    m: int | None = None,
    batches: int | None = 8,
    draws: int = 1,
    seed: int = 0,
    train_seed: int = 0,
    batch_statistics: bool = False,
    loss: Loss = class_loss,
    device: str = "auto",
    normalize: str | Normalize = "auto",
) -> pd.DataFrame:
    """Measure loss and gradient at the weights and where a training method would take its gradient, batch by batch.

    The network is looked at as it is deployed, in evaluation mode, unless ``batch_statistics``. Gradients are with
    respect to all parameters that need them. The batches, and the random numbers of a noise, are the same at all
    strengths.

    Args:
        model: left unchanged.
        data: as for :func:`noiserobust.evaluate`; usually the training examples.
        method: of training, such as ``SAM(0.05)``; a noise stands for :class:`noiserobust.RWP` with it.
        strengths: shares of the method's full strength, > 0.
        m: examples a batch, >= 1, drawn at random, those left over left out; fewer examples than that are one batch.
            By default 128, or the batches of a loader as they are.
        batches: how many at most, >= 1; None for all.
        draws: of the noise, for each batch, >= 1; a method without random numbers has one.
        seed: root seed of batches and noise.
        train_seed: which of several trainings this is; their noise is independent.
        batch_statistics: whether batch norm uses the statistics of each batch, as in training: what perturbed layers
            put out is then normalised anew, and gradients far from the weights are smaller by orders of magnitude.
            Layers that are frozen keep the stored ones: those in evaluation mode in a model that is given in training
            mode; in one given in evaluation mode those that its ``train()`` leaves so, usually none.
        loss: mean loss of a batch, a scalar tensor, given outputs and targets; by default the cross-entropy of classes
            in nats, without label smoothing.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"``, ...
        normalize: from stored values to network inputs, as for :func:`noiserobust.evaluate`.

    Returns:
        One row a (strength, quantity); columns ``strength, level_name, level, quantity, value, standard_error,
        n_batches, n_draws, n_examples``. ``level`` is the radius or the severity of the noise at that strength, NaN if
        it has none; the quantities are :data:`GRADIENT_QUANTITIES`. ``value`` is the mean over batches (each the mean
        over its draws), with its standard error; NaN of a single batch.

    Raises:
        InvalidValueError: if an argument is not valid, or model, data and method do not fit together.

    Source: "Incorruptible neural networks", section 3 (gradient sharpness) and 4 (vanishing gradients, cosine).
    """
    perturbations = Perturbations.of(method, draws, seed, train_seed)
    perturbations.check_scales()
    shares = check_strengths(strengths)
    forward = in_batches(loss_forward(data, loss, normalize, device, None), data, m, batches, seed, otherwise=BATCH)
    with examined(model, forward, loss, batches, batch_statistics=batch_statistics) as examples:
        return perturbations.table(examples, shares)


def check_strengths(strengths: Iterable[float]) -> list[float]:
    """Return strengths as a list.

    Raises:
        InvalidValueError: if there is none, one is not a finite number > 0, or one is given twice.
    """
    given = list(strengths) if isinstance(strengths, Iterable) else [strengths]
    shares = [check_number("strengths", share, above=0) for share in given]
    if not shares or len(set(shares)) < len(shares):
        raise InvalidValueError(f"Expected `strengths` to be distinct, at least one, but got {given!r}")
    return shares


@dataclass(frozen=True)
class Perturbations:
    """What a method adds to the weights for its gradients, and what losses and gradients are there.

    Args:
        method: of training.
        draws: of its noise, for each batch.
        stream: of random numbers.
    """

    method: Method
    draws: int
    stream: Stream

    @classmethod
    def of(cls, method: Method | Noise, draws: int = 1, seed: int = 0, train_seed: int = 0) -> Perturbations:
        """Return those of what a user names.

        Raises:
            InvalidValueError: if an argument is not valid, or the method perturbs nothing.
        """
        if isinstance(method, Noise):
            method = RWP(method)
        if not isinstance(method, Method) or isinstance(method, Unperturbed):
            raise InvalidValueError(f"Expected `method` to be a noise or a method that perturbs, but got {method!r}")
        draws = check_integer("draws", draws, minimum=1)
        stream = Stream(check_integer("seed", seed, minimum=0), "diagnose", "gradients")
        own = stream.child(check_integer("train_seed", train_seed, minimum=0))
        return cls(method, 1 if method.follows_gradient else draws, own)

    def level(self, strength: float) -> tuple[str, float]:
        """Return what the severity of the perturbation is called, and the severity at a strength; NaN if it varies."""
        if isinstance(self.method, RWP):
            noise = self.method.noise.weakened(strength)
            varies = self.method.level_range is not None
            return self.method.noise.level_name, math.nan if varies else float(noise.level)
        rho = getattr(self.method, "rho", None)
        return ("", math.nan) if rho is None else ("rho", rho * strength)

    def check_scales(self) -> None:
        """Raise unless the perturbation is the longer the larger the strength, from none at 0."""
        if isinstance(self.method, RWP) and isinstance(self.method.noise, ScaledNoise) and not self.method.noise.level:
            raise InvalidValueError("Expected `method` to have a noise of a level > 0, but got 0")
        if getattr(self.method, "rho", 1) == 0:
            raise InvalidValueError("Expected `method` to have a radius > 0, but got 0")

    def table(self, examples: Examples, strengths: Sequence[float]) -> pd.DataFrame:
        """Return the table of :func:`gradient_table`."""
        values, number = self.values(examples, strengths)
        means = [dict(zip(GRADIENT_QUANTITIES, own, strict=True)) for own in values.mean(dim=0).tolist()]
        check_finite(means[0]["training_loss"])
        check_finite(means[0]["gradient_norm"], "gradient")
        rows: list[dict[str, Any]] = []
        for i, strength in enumerate(strengths):
            level_name, level = self.level(strength)
            where = f"strength {strength:g}" + ("" if math.isnan(level) else f", {level_name} = {level:g}")
            check_perturbed(means[i]["perturbed_loss"], where)
            check_perturbed(means[i]["perturbed_gradient_norm"], where, "gradient")
            own = {"strength": strength, "level_name": level_name, "level": level}
            counts = {"n_batches": len(values), "n_draws": self.draws * self.method.draws, "n_examples": number}
            for j, quantity in enumerate(GRADIENT_QUANTITIES):
                found = values[:, i, j]
                said = {"value": float(found.mean()), "standard_error": standard_error(found)}
                rows.append({**own, "quantity": quantity, **said, **counts})
        table: pd.DataFrame = pd.DataFrame(rows, columns=list(GRADIENT_DTYPES)).astype(GRADIENT_DTYPES)
        return table

    def values(self, examples: Examples, strengths: Sequence[float]) -> tuple[Tensor, int]:
        """Return the quantities of each batch and strength, float64 of shape (batches, strengths, quantities) on the
        CPU, and the number of examples."""
        model, sites = examples.model, self.method.sites(examples.model)

        def looked(number: int, batch: Batch, n: int) -> tuple[Tensor, int]:
            stream = self.stream.child(number)
            value, clean = loss_and_gradient(model, batch, examples.loss)
            here = norm(clean)
            given: dict[str, Any] = {"sites": sites, "loss": examples.loss}
            rows = []
            for strength in strengths:
                found = []
                for draw in range(self.draws):
                    there = displaced_by(
                        self.method, model, batch, clean, stream=stream.child(draw), strength=strength, **given
                    )
                    update = norm(mixed(self.method, clean, there.gradient))
                    angle = cosine(clean, there.gradient)
                    losses = [value.double(), there.loss, there.loss - value.double()]
                    norms = [here, norm(there.gradient), update, angle, there.length]
                    found.append(torch.stack([v.cpu().double() for v in (*losses, *norms)]))
                rows.append(torch.stack(found).mean(dim=0))
            return torch.stack(rows), n

        found = examples.numbered(looked)
        return torch.stack([values for values, _ in found]), sum(n for _, n in found)
