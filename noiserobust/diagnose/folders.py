"""Diagnoses of weights files into folders: tables and a manifest, continued after an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from noiserobust.diagnose.critical import CriticalLength, Search
from noiserobust.diagnose.curvature import TRAINED, Curvature, Settings
from noiserobust.diagnose.examples import Examples, examined, in_batches
from noiserobust.diagnose.files import KEY_DTYPES, DiagnoseConfig, by_weights, diagnosis_folder, resolve_diagnosed
from noiserobust.diagnose.filters import filter_norms, filter_variation
from noiserobust.diagnose.gradients import BATCH, GRADIENT_DTYPES, Perturbations, check_strengths
from noiserobust.diagnose.probe import trained
from noiserobust.diagnose.sharpness import ascent_of, average_of, check_rhos, with_clean
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.api import describe, run_into
from noiserobust.evaluate.files import resolve_weights
from noiserobust.evaluate.plan import Plan, Subject, parse_levels
from noiserobust.executors import Executor
from noiserobust.noise.base import Noise
from noiserobust.results.files import write_atomic
from noiserobust.results.filters import FILTERS_DTYPES, FILTERS_FILE
from noiserobust.train.method import Method
from noiserobust.train.sam import SAM

SHARPNESS_FILE, GRADIENTS_FILE, CRITICAL_FILE = "sharpness.csv", "gradients.csv", "critical.csv"
CURVATURE_FILE, VARIATION_FILE = "curvature.csv", "variation.csv"

_SHARPNESS_DTYPES = {
    "direction": "str",
    "noise": "str",
    "level_name": "str",
    "level": "float64",
    "clean_loss": "float64",
    "perturbed_loss": "float64",
    "sharpness": "float64",
    "standard_error": "float64",
    "n_samples": "int64",
    "n_examples": "int64",
}
SHARPNESS_DTYPES = {**KEY_DTYPES, **_SHARPNESS_DTYPES}
"""Columns of ``sharpness.csv``, in order; one row a (weights, direction, level). ``direction`` is ``average``, over
``n_samples`` noise draws, or ``ascent``, at the radius ``level``, over ``n_samples`` batches."""

_CRITICAL_DTYPES = {
    "fraction": "float64",
    "strength": "float64",
    "level_name": "str",
    "level": "float64",
    "length": "float64",
    "clean_gradient_norm": "float64",
    "reason": "str",
}
CRITICAL_DTYPES = {**KEY_DTYPES, **_CRITICAL_DTYPES}
"""Columns of ``critical.csv``, in order; one row a weights file. See
:class:`noiserobust.diagnose.critical.CriticalLength`."""

_CURVATURE_DTYPES = {
    "quantity": "str",
    "layer": "str",
    "rank": "int64",
    "value": "float64",
    "standard_error": "float64",
    "n_weights": "int64",
    "n_examples": "int64",
}
CURVATURE_DTYPES = {**KEY_DTYPES, **_CURVATURE_DTYPES}
"""Columns of ``curvature.csv``, in order; one row a (weights, quantity, layer, rank). Quantities are ``eigenvalue``, of
rank 1 for the largest, ``trace``, ``noise_trace`` and ``predicted_sharpness`` = ``noise_trace`` / 2, of rank 0;
``layer`` is empty for all layers together. Empty cells are what cannot be estimated."""


def sharpness_files(
    config: DiagnoseConfig,
    out: Path,
    *,
    noise: Noise | None = None,
    levels: float | str | Iterable[float | str] = (),
    draws: int = 10,
    rhos: Sequence[float] = (),
    m: int | None = None,
    batches: int | None = None,
    download: bool = False,
    progress: bool = False,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Measure average-direction and ascent-direction sharpness of weights files.

    Args:
        config: weights and data.
        out: folder; what is finished of the same configuration is kept.
        noise: of the average direction; None leaves it out.
        levels: its severities.
        draws: of the noise, for each of the weights and levels.
        rhos: radii of the ascent direction; none leaves it out.
        m: examples a batch of the ascent direction, as for :func:`noiserobust.diagnose.ascent_sharpness`.
        batches: how many of them at most; with ``m`` or data that are a loader.
        download: whether to fetch data of a known data set that are not there.
        progress: whether to show progress.
        executor: where noise draws are computed; by default here, one after the other.

    Returns:
        The content of ``sharpness.csv``; the losses of all draws are in the folder ``average``.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    if noise is None and not rhos:
        raise InvalidValueError("Expected a noise with levels, or radii, but got neither")
    if not rhos and (m is not None or batches is not None):
        raise InvalidValueError("Expected `m` and `batches` with radii only, but got one without")
    radii = check_rhos(rhos) if rhos else []
    plan = None if noise is None else Plan(noise, parse_levels(noise, with_clean(levels)), draws, config.seed)
    found = resolve_diagnosed(config, download=download)
    forward = in_batches(found.forward, found.forward.data, m, batches, config.seed)
    configuration = dict(found.configuration)
    given: tuple[Any, ...] = ()
    if plan is not None:
        more = {k: v for k, v in found.configuration.items() if k not in ("normalize", "seed")}
        given = found.subjects, found.forward, plan, describe(plan, found.forward, found.model, more)
        average = {
            "noise": plan.noise.describe(),
            "levels": [level.value for level in plan.levels],
            "draws": plan.draws,
        }
        configuration["average"] = average
    if radii:
        trained(found.model)  # raises before anything is written, and noise draws are made
        configuration["ascent"] = {"rhos": radii, "m": m, "batches": batches}

    def ascent(subject: Subject) -> pd.DataFrame:
        with examined(subject.load(), forward, batches=batches, own=subject.own) as examples:
            table = ascent_of(examples, radii, by_batch=m is not None or batches is not None)
        named = table.rename(columns={"rho": "level", "n_batches": "n_samples"})
        rows: pd.DataFrame = named.assign(direction="ascent", noise="", level_name="rho")[list(_SHARPNESS_DTYPES)]
        return rows

    tables = []
    with diagnosis_folder(out, "sharpness", configuration, forward.device) as folder:
        if given:
            draws_found = run_into(out / "average", *given, progress=progress, executor=executor).draws
            table = average_of(draws_found).rename(columns={"n_draws": "n_samples"}).assign(direction="average")
            tables.append(table[list(SHARPNESS_DTYPES)])
        if radii:
            rows = {"progress": progress}
            tables.append(by_weights(folder, "ascent", found.subjects, ascent, _SHARPNESS_DTYPES, **rows))
        whole: pd.DataFrame = pd.concat(tables).astype(SHARPNESS_DTYPES)
        order = [(s.method, s.train_seed) for s in found.subjects]  # as given; draws are in the order of their key
        places = [order.index(key) for key in zip(whole["method"], whole["train_seed"], strict=True)]
        whole = whole.iloc[sorted(range(len(whole)), key=places.__getitem__)]
        write_atomic(out / SHARPNESS_FILE, whole.to_csv(index=False))
    return whole


def gradient_files(
    config: DiagnoseConfig,
    out: Path,
    method: Method | Noise,
    *,
    strengths: Sequence[float],
    fraction: float | None = None,
    m: int | None = None,
    batches: int | None = 8,
    draws: int = 1,
    batch_statistics: bool = False,
    download: bool = False,
    progress: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Measure the gradients of weights files where a method would take them, and the critical perturbation length.

    Args:
        config: weights and data.
        out: folder; what is finished of the same configuration is kept.
        method: SAM or a noise.
        strengths: as for :func:`noiserobust.diagnose.gradient_table`.
        fraction: as for :func:`noiserobust.diagnose.critical_length`; by default that is left out.
        m: as for :func:`noiserobust.diagnose.gradient_table`.
        batches: as for :func:`noiserobust.diagnose.gradient_table`.
        draws: as for :func:`noiserobust.diagnose.gradient_table`.
        batch_statistics: as for :func:`noiserobust.diagnose.gradient_table`; frozen are layers that ``train()`` of the
            model leaves in evaluation mode, as in a training.
        download: whether to fetch data of a known data set that are not there.
        progress: whether to show progress.

    Returns:
        The content of ``gradients.csv`` and, with a fraction, of ``critical.csv``.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    shares = check_strengths(strengths)
    perturbations = Perturbations.of(method, draws, config.seed)
    perturbations.check_scales()
    search = None if fraction is None else Search(perturbations, fraction)
    found = resolve_diagnosed(config, download=download)
    trained(found.model)
    forward = in_batches(found.forward, found.forward.data, m, batches, config.seed, otherwise=BATCH)
    said = {"noise": method.describe(), "level": method.level} if isinstance(method, Noise) else _method(method)
    asked = {"strengths": shares, "m": m, "batches": batches, "draws": draws, "batch_statistics": batch_statistics}
    configuration = {**found.configuration, "perturbation": said, **asked}
    configuration |= {} if fraction is None else {"critical": fraction}

    def look(subject: Subject) -> AbstractContextManager[Examples]:
        given: dict[str, Any] = {"own": subject.own, "batch_statistics": batch_statistics}
        return examined(subject.load(), forward, batches=batches, **given)

    def table(subject: Subject) -> pd.DataFrame:
        own = Perturbations.of(method, draws, config.seed, subject.train_seed)
        with look(subject) as examples:
            return own.table(examples, shares)

    def critical(subject: Subject) -> pd.DataFrame:
        assert search is not None
        own = replace(search, perturbations=Perturbations.of(method, draws, config.seed, subject.train_seed))
        with look(subject) as examples:
            return _critical_row(own.on(examples))

    with diagnosis_folder(out, "gradients", configuration, forward.device) as folder:
        rows: dict[str, Any] = {"progress": progress}
        whole = by_weights(folder, "gradients", found.subjects, table, GRADIENT_DTYPES, **rows)
        write_atomic(out / GRADIENTS_FILE, whole.to_csv(index=False))
        if search is None:
            return whole, None
        lengths = by_weights(folder, "critical", found.subjects, critical, _CRITICAL_DTYPES, **rows)
        write_atomic(out / CRITICAL_FILE, lengths.to_csv(index=False))
    return whole, lengths


def curvature_files(
    config: DiagnoseConfig,
    out: Path,
    *,
    top: int = 1,
    probes: int = 10,
    noise: Noise | None = None,
    select: str = TRAINED,
    download: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure the top eigenvalues and traces of the Hessian of the loss at weights files.

    Args:
        config: weights and data.
        out: folder; what is finished of the same configuration is kept.
        top: as for :func:`noiserobust.diagnose.hessian`, and so the others.
        probes: vectors of random signs.
        noise: in whose covariance the trace is taken too.
        select: ``trained`` or ``crossbar``.
        download: whether to fetch data of a known data set that are not there.
        progress: whether to show progress.

    Returns:
        The content of ``curvature.csv``.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    settings = Settings(top, probes, noise, select, seed=config.seed)
    found = resolve_diagnosed(config, download=download)
    trained(found.model)
    said = {} if noise is None else {"noise": noise.describe(), "level": noise.level}
    asked = {"top": top, "probes": probes, "select": select}

    def table(subject: Subject) -> pd.DataFrame:
        with examined(subject.load(), found.forward, own=subject.own) as examples:
            return _curvature_rows(settings.of(examples))

    with diagnosis_folder(out, "curvature", {**found.configuration, **asked, **said}, found.forward.device) as folder:
        whole = by_weights(folder, "curvature", found.subjects, table, _CURVATURE_DTYPES, progress=progress)
        write_atomic(out / CURVATURE_FILE, whole.to_csv(index=False))
    return whole


def filter_files(config: DiagnoseConfig, out: Path) -> pd.DataFrame:
    """Measure the norms of the filters of weights files.

    Args:
        config: the weights.
        out: folder, continued if it is of the same configuration.

    Returns:
        The variation of the norms within layers, the content of ``variation.csv``; all norms are in ``filters.csv``.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    found = resolve_weights(config.model, config.weights, config.model_args, config.method, config.normalize)
    dtypes = {name: kind for name, kind in FILTERS_DTYPES.items() if name not in KEY_DTYPES}
    with diagnosis_folder(out, "filters", found.described, "cpu") as folder:
        norms = by_weights(folder, "filters", found.subjects, lambda s: filter_norms(s.load()), dtypes)
        variation = filter_variation(norms)
        write_atomic(out / FILTERS_FILE, norms.to_csv(index=False))
        write_atomic(out / VARIATION_FILE, variation.to_csv(index=False))
    return variation


def _method(method: Method) -> dict[str, Any]:
    if not isinstance(method, SAM):
        raise InvalidValueError(f"Expected `method` to be SAM or a noise, but got {method!r}")
    return {"method": method.name, "rho": method.rho}


def _critical_row(found: CriticalLength) -> pd.DataFrame:
    row = pd.DataFrame([{name: getattr(found, name) for name in _CRITICAL_DTYPES}])
    table: pd.DataFrame = row.astype(_CRITICAL_DTYPES)
    return table


def _curvature_rows(found: Curvature) -> pd.DataFrame:
    everything: dict[str, Any] = {"layer": "", "rank": 0, "n_weights": found.n_parameters}
    rows = [
        {**everything, "quantity": "eigenvalue", "rank": rank, "value": value}
        for rank, value in enumerate(found.eigenvalues, start=1)
    ]
    for name in ("trace", "noise_trace", "predicted_sharpness"):
        value, error = getattr(found, name), getattr(found, f"{name}_standard_error")
        rows.append({**everything, "quantity": name, "value": value, "standard_error": error})
    for name in ("trace", "noise_trace"):
        for layer in found.layers.to_dict("records"):
            own = {"layer": layer["layer"], "rank": 0, "n_weights": layer["n_weights"], "quantity": name}
            rows.append({**own, "value": layer[name], "standard_error": layer[f"{name}_standard_error"]})
    frame = pd.DataFrame(rows, columns=list(_CURVATURE_DTYPES)).assign(n_examples=found.n_examples)
    table: pd.DataFrame = frame.dropna(subset="value").astype(_CURVATURE_DTYPES)
    return table
