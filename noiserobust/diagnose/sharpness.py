"""How much higher the loss is around trained weights: along the gradient, and under noise on average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from noiserobust.data.normalize import Normalize
from noiserobust.diagnose.examples import (
    Examples,
    check_finite,
    check_perturbed,
    examined,
    in_batches,
    loss_forward,
    loss_metric,
    standard_error,
)
from noiserobust.diagnose.probe import Batch, Loss, class_loss, displaced_by, loss_and_gradient, norm, trained
from noiserobust.errors import InvalidValueError, check_number
from noiserobust.evaluate.api import evaluate
from noiserobust.evaluate.forward import Data
from noiserobust.executors import Executor
from noiserobust.noise.base import Noise
from noiserobust.noise.sites import Select
from noiserobust.results.schema import CLEAN, TRAINING_COLUMNS
from noiserobust.rng import Stream
from noiserobust.train.gradients import put
from noiserobust.train.method import Moment
from noiserobust.train.sam import SAM

AVERAGE_DTYPES = {
    "method": "str",
    "train_seed": "int64",
    "weights": "str",
    "noise": "str",
    "level_name": "str",
    "level": "float64",
    "clean_loss": "float64",
    "perturbed_loss": "float64",
    "sharpness": "float64",
    "standard_error": "float64",
    "n_draws": "int64",
    "n_examples": "int64",
}
"""Columns of :func:`average_sharpness`, in order."""

ASCENT_DTYPES = {
    "rho": "float64",
    "clean_loss": "float64",
    "perturbed_loss": "float64",
    "sharpness": "float64",
    "standard_error": "float64",
    "gradient_norm": "float64",
    "n_batches": "int64",
    "n_examples": "int64",
}
"""Columns of :func:`ascent_sharpness`, in order."""


def average_sharpness(
    models: nn.Module | Sequence[nn.Module],
    data: Data,
    *,
    noise: Noise,
    levels: float | str | Iterable[float | str] | None = None,
    draws: int = 10,
    seed: int = 0,
    loss: Loss = class_loss,
    precision: str = "fp32",
    device: str = "auto",
    method: str = "model",
    train_seeds: Sequence[int] | None = None,
    normalize: str | Normalize = "auto",
    batch_size: int | None = None,
    select: Select | None = None,
    executor: str | Executor = "serial",
    out: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure the average-direction sharpness ``E[L(w + noise)] - L(w)``, the mean over noise draws.

    It is an evaluation of the loss: the draws are the chips of :func:`noiserobust.evaluate`, the same at every level
    and for every method, and executors, folders and precisions do what they do there. Networks are run as they are
    deployed, in evaluation mode.

    Args:
        models: one model, or several trainings of one method (one a train seed); left unchanged.
        data: as for :func:`noiserobust.evaluate`; the training or the test examples.
        noise: the noise.
        levels: severities, or one; by default the noise's own.
        draws: noise draws for each model and level, >= 1; 2 or more for a standard error.
        seed: root seed of the draws, >= 0.
        loss: mean loss of a batch, a scalar tensor, given outputs and targets; by default the cross-entropy of classes
            in nats, without label smoothing.
        precision: as for :func:`noiserobust.evaluate`.
        device: as for :func:`noiserobust.evaluate`.
        method: name of the method in the table.
        train_seeds: the train seed of each model, by default 0, 1, ...
        normalize: from stored values to network inputs, as for :func:`noiserobust.evaluate`.
        batch_size: examples a pass through the network, >= 1.
        select: which weights are noisy, as in :func:`noiserobust.find_sites`.
        executor: where draws are computed.
        out: folder for the losses of all draws; finished draws found there are kept.
        progress: whether to show progress.

    Returns:
        One row a (model, level) with noise; columns ``method, train_seed, weights, noise, level_name, level,
        clean_loss, perturbed_loss, sharpness, standard_error, n_draws, n_examples``. The standard error is that of the
        mean over draws; NaN of a single draw. It says nothing about other examples.

    Raises:
        InvalidValueError: if an argument is not valid, or model, data and noise do not fit together.
        OutputError: if ``out`` cannot be written to.
        FailedJobsError: if draws could not be computed because workers died, after all others are.

    Source: "Incorruptible neural networks", Eq. 4, with the noise read as std = sigma max|w| (see
    :class:`noiserobust.GaussianNoise`).
    """
    if not isinstance(noise, Noise):
        raise InvalidValueError(f"Expected `noise` to be a noise object, but got {noise!r}")
    if not callable(loss):
        raise InvalidValueError(f"Expected `loss` to be a function of outputs and targets, but got {loss!r}")
    result = evaluate(
        models,
        data,
        noise=noise,
        levels=with_clean([noise.level] if levels is None else levels),
        draws=draws,
        seed=seed,
        precision=precision,
        device=device,
        metrics=[loss_metric(loss)],  # type: ignore[list-item]
        method=method,
        train_seeds=train_seeds,
        normalize=normalize,
        batch_size=batch_size,
        select=select,
        executor=executor,
        out=out,
        progress=progress,
    )
    return average_of(result.draws)


def with_clean(levels: float | str | Iterable[float | str]) -> list[float | str]:
    """Return levels, or one, with the one without noise in front, against which the others are compared."""
    alone = isinstance(levels, (int, float, str, bytes)) or not isinstance(levels, Iterable)
    given: list[Any] = [levels] if alone else list(levels)  # type: ignore[arg-type]
    rest = [level for level in given if level not in (0, "0", "clean")]
    if not rest:
        raise InvalidValueError("Expected `levels` to have a level with noise, but got none")
    return ["clean", *rest]


def average_of(draws: pd.DataFrame) -> pd.DataFrame:
    """Return the average-direction sharpness from the losses of draws.

    Args:
        draws: with the columns of ``draws.csv``, of the metric ``loss``; a level without noise for all weights.
    """
    rows: list[dict[str, Any]] = []
    for _, own in draws.groupby(["method", *TRAINING_COLUMNS], sort=False):
        clean = float(own.loc[own["level"] == CLEAN, "value"].iloc[0])
        for _, level in own[own["level"] != CLEAN].groupby("level", sort=False):
            # Draw by draw against the same clean loss: its spread is that of the difference.
            values = torch.tensor(level["value"].to_numpy(), dtype=torch.float64)
            rows.append(
                {
                    **level.iloc[0][list(AVERAGE_DTYPES)[:6]].to_dict(),
                    "clean_loss": clean,
                    "perturbed_loss": float(values.mean()),
                    "sharpness": float((values - clean).mean()),
                    "standard_error": standard_error(values - clean),
                    "n_draws": len(values),
                    "n_examples": level["n_examples"].iloc[0],
                }
            )
    table: pd.DataFrame = pd.DataFrame(rows, columns=list(AVERAGE_DTYPES)).astype(AVERAGE_DTYPES)
    return table


def ascent_sharpness(
    model: nn.Module,
    data: Data,
    rhos: float | Iterable[float],
    *,
    m: int | None = None,
    batches: int | None = None,
    seed: int = 0,
    loss: Loss = class_loss,
    device: str = "auto",
    normalize: str | Normalize = "auto",
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Measure the ascent-direction sharpness ``L(w + rho g / |g|) - L(w)``, g being the gradient of L at w.

    With ``m`` it is m-sharpness: L and g are those of a batch of m examples, and the mean over batches is returned.
    The smaller m the larger it is; with m the batch size of a training by SAM, it is its gradient sharpness.

    The network is looked at as it is deployed: in evaluation mode. The norm is over all parameters that need
    gradients, biases and normalisation parameters included, as SAM has it.

    Args:
        model: left unchanged.
        data: as for :func:`noiserobust.evaluate`; the training or the test examples.
        rhos: radii, > 0, in units of the weights.
        m: examples a batch, >= 1, drawn at random, those left over left out; by default L is that of all examples.
            Not with a loader, which has batches of its own.
        batches: with ``m`` or a loader, whose batches then ascend each along its own gradient: at most so many, >= 1;
            by default all.
        seed: root seed of the choice of batches.
        loss: mean loss of a batch, a scalar tensor, given outputs and targets; by default the cross-entropy of classes
            in nats, without label smoothing.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"``, ...
        normalize: from stored values to network inputs, as for :func:`noiserobust.evaluate`.
        batch_size: examples a pass through the network without ``m``, >= 1; the result is the same, up to rounding.

    Returns:
        One row a radius; columns ``rho, clean_loss, perturbed_loss, sharpness, standard_error, gradient_norm,
        n_batches, n_examples``. The standard error is that of the mean over batches; NaN of a single one.

    Raises:
        InvalidValueError: if an argument is not valid, or model, data and loss do not fit together.

    Source: "Incorruptible neural networks", Eq. 3, and its m-sharpness; Foret et al., ICLR 2021, section 4.1.
    """
    forward = in_batches(loss_forward(data, loss, normalize, device, batch_size), data, m, batches, seed)
    radii = check_rhos(rhos)
    with examined(model, forward, loss, batches) as examples:
        return ascent_of(examples, radii, by_batch=m is not None or batches is not None)


def check_rhos(rhos: float | Iterable[float]) -> list[float]:
    """Return radii as a list.

    Raises:
        InvalidValueError: if there is none, one is not a finite number > 0, or one is given twice.
    """
    given = [rhos] if isinstance(rhos, (int, float, str)) or not isinstance(rhos, Iterable) else list(rhos)
    radii = [check_number("rhos", rho, above=0) for rho in given]
    if not radii or len(set(radii)) < len(radii):
        raise InvalidValueError(f"Expected `rhos` to be distinct radii, at least one, but got {given!r}")
    return radii


def ascent_of(examples: Examples, rhos: Sequence[float], *, by_batch: bool) -> pd.DataFrame:
    """Return the table of :func:`ascent_sharpness`.

    Args:
        examples: batches for a placed model.
        rhos: radii.
        by_batch: whether each batch ascends along its own gradient; else all along that of their mean.
    """
    rows = _by_batch(examples, rhos) if by_batch else _of_all(examples, rhos)
    table: pd.DataFrame = pd.DataFrame(rows, columns=list(ASCENT_DTYPES)).astype(ASCENT_DTYPES)
    return table


def _of_all(examples: Examples, rhos: Sequence[float]) -> list[dict[str, Any]]:
    clean, gradient, number = examples.mean_gradient()
    check_finite(clean)
    parameters = trained(examples.model)
    put(dict(zip(parameters, gradient, strict=True)))
    length = check_finite(float(norm(gradient)), "gradient")
    found = {"clean_loss": clean, "gradient_norm": length, "n_batches": 1, "n_examples": number}
    rows = []
    for rho in rhos:
        with SAM(rho).displace(Moment((), parameters, Stream(0), 1.0, {}, {})):
            perturbed, _ = examples.mean_loss()
        check_perturbed(perturbed, f"rho = {rho:g}")
        row = {"rho": rho, "perturbed_loss": perturbed, "sharpness": perturbed - clean, "standard_error": math.nan}
        rows.append({**found, **row})
    return rows


def _by_batch(examples: Examples, rhos: Sequence[float]) -> list[dict[str, Any]]:
    def looked(batch: Batch, n: int) -> tuple[torch.Tensor, int]:
        clean, gradient = loss_and_gradient(examples.model, batch, examples.loss)
        given: dict[str, Any] = {"stream": Stream(0), "loss": examples.loss, "gradient": False}
        up = [displaced_by(SAM(rho), examples.model, batch, gradient, **given).loss for rho in rhos]
        return torch.stack([clean.double(), norm(gradient).to(clean.device), *up]).cpu(), n

    found = examples.each(looked)
    number = sum(n for _, n in found)
    clean, norms, *ups = torch.stack([values for values, _ in found]).T
    check_finite(float(clean.mean()))
    check_finite(float(norms.mean()), "gradient")
    for rho, up in zip(rhos, ups, strict=True):
        check_perturbed(float(up.mean()), f"rho = {rho:g}")
    return [
        {
            "rho": rho,
            "clean_loss": float(clean.mean()),
            "perturbed_loss": float(up.mean()),
            "sharpness": float((up - clean).mean()),
            "standard_error": standard_error(up - clean),
            "gradient_norm": float(norms.mean()),
            "n_batches": len(found),
            "n_examples": number,
        }
        for rho, up in zip(rhos, ups, strict=True)
    ]
