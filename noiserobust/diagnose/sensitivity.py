"""Which layers cost the accuracy: noise on only one layer, and on all but one, on the same chips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from noiserobust.diagnose.conditions import PARTS, Conditions, Study, folder_of
from noiserobust.diagnose.digital import check_reachable, digital_layers
from noiserobust.errors import InvalidValueError, check_number
from noiserobust.evaluate.api import describe, hashes_of, make_forward, subjects_of
from noiserobust.evaluate.files import EvaluateConfig, resolve_files
from noiserobust.evaluate.forward import Data
from noiserobust.evaluate.montecarlo import as_result, run
from noiserobust.evaluate.plan import Plan, parse_levels
from noiserobust.evaluate.settle import settle, settled
from noiserobust.executors import Executor, make_executor
from noiserobust.noise.base import Noise
from noiserobust.progress import progress_bar
from noiserobust.report.figures.sensitivity import draw_sensitivity
from noiserobust.report.figures.style import KINDS
from noiserobust.results.files import write_atomic
from noiserobust.results.manifest import environment
from noiserobust.results.schema import DRAWS_FILE
from noiserobust.results.sensitivity import (
    DIGITAL_FILE,
    SENSITIVITY_DTYPES,
    SENSITIVITY_FILE,
    Sensitivity,
)
from noiserobust.results.store import ResultFolder, known
from noiserobust.results.summary import summarize
from noiserobust.stats.intervals import mean_interval

LAYERS_FILE = "layers.csv"
KIND = "sensitivity"
"""What the manifest of a folder with such results says it holds."""

Found = dict[tuple[str, str], pd.DataFrame]
"""The draws by (condition, layer)."""


def layer_sensitivity(
    models: nn.Module | Sequence[nn.Module],
    data: Data,
    *,
    noise: Noise,
    level: float | str | None = None,
    draws: int = 10,
    wanted: float | None = None,
    seed: int = 0,
    precision: str = "fp32",
    device: str = "auto",
    method: str = "model",
    train_seeds: Sequence[int] | None = None,
    normalize: str = "auto",
    batch_size: int | None = None,
    executor: str | Executor = "serial",
    out: str | Path | None = None,
    progress: bool = False,
) -> Sensitivity:
    """Measure the accuracy with noise on only one layer, and on all but one, for each layer.

    A layer is one weight in the crossbar (:func:`noiserobust.find_sites`). Everything is measured on the same chips:
    draw k of a layer is the same whichever other layers are noisy, and the one that :func:`noiserobust.evaluate` uses.

    Args:
        models: one model, or several trainings of one method (one a train seed); left unchanged.
        data: as for :func:`noiserobust.evaluate`.
        noise: the noise.
        level: its severity, a number or text (``"1d"`` for a device); by default the noise's own.
        draws: chips for each model and condition, >= 1.
        wanted: mean accuracy under noise, percent, in (0, 100], for which layers to keep digital are searched; see
            :func:`noiserobust.diagnose.digital.digital_layers`.
        seed: root seed of the chips, >= 0.
        precision: ``"fp32"`` or ``"bf16"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"``, ...
        method: name of the method in the results.
        train_seeds: the train seed of each model, by default 0, 1, ...
        normalize: from stored values to network inputs, as for :func:`noiserobust.evaluate`.
        batch_size: examples a pass through the network, >= 1.
        executor: where draws are computed; the results are the same.
        out: folder for the tables, pictures and the draws of each condition; finished draws found there are kept.
        progress: whether to show progress.

    Returns:
        One row a (condition, layer); with ``wanted`` also one row a step of the search.

    Raises:
        InvalidValueError: if an argument is not valid, model, data and noise do not fit together, or not even without
            noise the accuracy is the wanted one.
        OutputError: if ``out`` cannot be written to.
        FailedJobsError: if draws could not be computed because workers died, after all others of a condition are.
    """
    subjects = subjects_of(models, method, train_seeds)
    if not isinstance(noise, Noise):
        raise InvalidValueError(f"Expected `noise` to be a noise object, but got {noise!r}")
    _check_wanted(wanted)
    where = executor if isinstance(executor, Executor) else make_executor(executor)
    plan = Plan(noise, parse_levels(noise, [noise.level if level is None else level]), draws, seed)
    forward = make_forward(data, normalize, device, precision, batch_size)
    model = subjects[0].load()
    configuration = describe(plan, forward, model, {"weights": hashes_of(subjects)})
    study = Study.of(model, subjects, forward, plan, configuration)
    return _diagnose(study, None if out is None else Path(out), wanted, where, progress)


def sensitivity_files(
    config: EvaluateConfig,
    out: Path,
    *,
    wanted: float | None = None,
    download: bool = False,
    progress: bool = False,
    executor: Executor | None = None,
) -> Sensitivity:
    """Do what :func:`layer_sensitivity` does with weights files, into a folder.

    Args:
        config: what, on what, under which noise; of one level, and without what :func:`layer_sensitivity` lacks.
        out: folder; finished draws of the same configuration are kept.
        wanted: mean accuracy under noise, percent, for which layers to keep digital are searched.
        download: whether to fetch data of a known data set that are not there.
        progress: whether to show progress.
        executor: where draws are computed; by default here, one after the other.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    _check_wanted(wanted)
    if config.until is not None or tuple(config.metrics) != ("accuracy",):
        raise InvalidValueError("Expected neither `until` nor other metrics than accuracy, but got one")
    subjects, forward, plan, configuration = resolve_files(config, download=download)
    study = Study.of(subjects[0].load(), subjects, forward, plan, configuration)
    return _diagnose(study, out, wanted, executor, progress)


def _check_wanted(wanted: float | None) -> None:
    if wanted is not None:
        check_number("wanted", wanted, above=0, maximum=100)


def _diagnose(
    study: Study, out: Path | None, wanted: float | None, executor: Executor | None, progress: bool
) -> Sensitivity:
    if len(study.plan.levels) != 1 or study.level.noise is None:
        given = ", ".join(f"{level.value:g}" for level in study.plan.levels)
        raise InvalidValueError(f"Expected `level` to be one level with noise, but got {given}")
    how = (known(out, "settled") if out else None) or settle(study.subjects[0], study.forward, study.plan)
    clean = study.narrowed(())
    if wanted is not None and not (out and (out / PARTS / "clean" / DRAWS_FILE).exists()):
        # Before anything is written. It is one pass for each of the weights, done again below.
        check_reachable(as_result(run(clean.subjects, settled(clean.forward, how), clean.plan)).draws, wanted)
    total = clean.jobs + study.jobs + sum(study.narrowed(noisy).jobs for _, _, noisy in _each(study))
    if out is None:
        with progress_bar(total, "draw", shown=progress) as bar:
            return _measured(Conditions(study, how, None, executor, bar if progress else None), wanted)
    device = {"device": str(study.forward.device)}
    with ResultFolder(out, KIND, study.configuration, environment(device)) as folder:
        how = folder.remember("settled", lambda: how)
        # Beside the parts: without a file here, the manifest would bind nobody before the end.
        layers = pd.DataFrame({"layer": list(study.layers), "n_weights": list(study.layers.values())})
        write_atomic(out / LAYERS_FILE, layers.to_csv(index=False))
        with progress_bar(total, "draw", shown=progress) as bar:
            conditions = Conditions(study, how, out, executor, bar if progress else None)
            found = _measured(conditions, wanted)
        if found.digital is not None:
            write_atomic(out / DIGITAL_FILE, found.digital.to_csv(index=False))
        for kind, content in draw_sensitivity(found.layers, kinds=KINDS).items():
            write_atomic((out / SENSITIVITY_FILE).with_suffix(f".{kind}"), content)
        write_atomic(out / SENSITIVITY_FILE, found.layers.to_csv(index=False))
    return found


def _measured(conditions: Conditions, wanted: float | None) -> Sensitivity:
    """Evaluate all conditions, and search for layers to keep digital."""
    study = conditions.study
    found: Found = {("clean", ""): conditions.draws("clean", study.narrowed(()))}
    if wanted is not None:
        check_reachable(found["clean", ""], wanted)
    found["all", ""] = conditions.draws("all", study.narrowed(study.layers))
    for condition, layer, noisy in _each(study):
        found[condition, layer] = conditions.draws(f"{condition}/{folder_of(layer)}", study.narrowed(noisy))
    table = _table(study, found)
    return Sensitivity(table, None if wanted is None else digital_layers(conditions, table, found, wanted))


def _each(study: Study) -> list[tuple[str, str, list[str]]]:
    """Return the conditions that each layer has: their name, the layer, the noisy layers."""
    only = [("only", layer, [layer]) for layer in study.layers]
    return only + [("except", layer, [x for x in study.layers if x != layer]) for layer in study.layers]


def _table(study: Study, found: Found) -> pd.DataFrame:
    reference = {"all": "clean", "only": "clean", "except": "all"}
    rows: list[dict[str, Any]] = []
    summaries = {key: summarize(draws).set_index("method") for key, draws in found.items()}
    means = {key: draws.groupby(["method", "train_seed"])["value"].mean() for key, draws in found.items()}
    for method in study.methods:
        for (condition, layer), summary in summaries.items():
            row = {"method": method, **summary.loc[method].to_dict(), "condition": condition, "layer": layer}
            # Without a single layer left to be noisy its draws are of level 0.
            row["level"] = 0.0 if condition == "clean" else study.level.value
            row["n_weights"] = study.layers[layer] if layer else sum(study.layers.values())
            if condition in reference:
                changes = means[condition, layer][method] - means[reference[condition], ""][method]
                row["change"] = changes.mean()
                row["change_low"], row["change_high"] = mean_interval(changes, row["ci_level"])
            rows.append(row)
    table: pd.DataFrame = pd.DataFrame(rows, columns=list(SENSITIVITY_DTYPES)).astype(SENSITIVITY_DTYPES)
    return table
