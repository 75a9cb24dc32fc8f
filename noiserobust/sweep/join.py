"""What all finished jobs of a sweep found, in one table and one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from noiserobust.report import write_report
from noiserobust.report.gather import gather
from noiserobust.results.export import to_csv
from noiserobust.results.files import make_folder, write_atomic, write_json
from noiserobust.results.manifest import environment
from noiserobust.results.schema import DRAWS_FILE, MANIFEST_FILE, SCHEMA_VERSION, SUMMARY_FILE
from noiserobust.results.store import draws_csv
from noiserobust.results.summary import summarize
from noiserobust.results.trainings import read_trainings
from noiserobust.sweep.grid import in_words
from noiserobust.sweep.plan import EvaluationConfig, Job, Sweep, evaluation_folder, training_folder
from noiserobust.sweep.state import FINISHED, State

KIND = "sweep"
TABLE_FILE, REPORT_FOLDER, APART_FOLDER = "jobs.csv", "report", "apart"


@dataclass(frozen=True)
class Joined:
    """The files of a sweep's results.

    Args:
        folder: with ``draws.csv``, ``summary.csv``, ``jobs.csv`` and ``manifest.json``.
        report: the page.
        table: the same as ``jobs.csv``.
    """

    folder: Path
    report: Path
    table: pd.DataFrame


def join_jobs(sweep: Sweep, out: Path, states: Mapping[str, State]) -> Joined:
    """Write tables and report of the jobs that are finished, at least one.

    Evaluations that no table can hold beside others (see :func:`apart`) have tables and a report of their own in
    ``apart/<name>/``.

    Raises:
        NoiseRobustError: if results are damaged or nothing can be written.
    """
    folder = make_folder(out / sweep.name)
    finished = {name: job for name, job in sweep.jobs.items() if states[name].word == FINISHED}
    trained = [training_folder(out, name) for name in finished]
    table = job_table(sweep, out, states)
    write_atomic(folder / TABLE_FILE, to_csv(table))  # first, for it can always be written
    reports = []
    for place, evaluations in apart(sweep.evaluations).items():
        there = make_folder(folder / APART_FOLDER / place) if place else folder
        evaluated = [evaluation_folder(out, name, e) for e in evaluations for name in finished]
        reports.append(_join(sweep, [*evaluated, *trained], there))
    return Joined(folder, reports[0], table)


def apart(evaluations: Mapping[str, EvaluationConfig]) -> dict[str, list[EvaluationConfig]]:
    """Return evaluations by what can be in one table, the first of them under ``""``, others by name.

    A table has a noise once, made with one set of settings (levels and draws aside), and one split of the data.
    """
    joint: list[EvaluationConfig] = []
    alone: dict[str, list[EvaluationConfig]] = {}
    for name, evaluation in evaluations.items():
        same_split = not joint or joint[0].split == evaluation.split
        if same_split and all(e.noise != evaluation.noise or _settings(e) == _settings(evaluation) for e in joint):
            joint.append(evaluation)
        else:
            alone[name] = [evaluation]
    return {"": joint, **alone}


def _settings(evaluation: EvaluationConfig) -> dict[str, Any]:
    return {name: value for name, value in evaluation.as_dict().items() if name not in ("levels", "draws")}


def _join(sweep: Sweep, sources: Sequence[Path], folder: Path) -> Path:
    """Write what evaluations and trainings have found, and return the page."""
    gathered = gather(sources)
    write_atomic(folder / DRAWS_FILE, draws_csv(gathered.draws))
    write_atomic(folder / SUMMARY_FILE, to_csv(summarize(gathered.draws)))
    manifest = {"schema_version": SCHEMA_VERSION, "kind": KIND, "configuration": sweep.describe()}
    write_json(folder / MANIFEST_FILE, {**manifest, "environment": environment()})
    return write_report(sources, folder / REPORT_FOLDER, **sweep.criteria).html


def job_table(sweep: Sweep, out: Path, states: Mapping[str, State]) -> pd.DataFrame:
    """Return one row a job: what sets it apart, how far it is, and what it found.

    Columns: ``job``, ``method``, ``train_seed``, ``state``; the settings of the grid; ``best_epoch``,
    ``held_out_accuracy``, ``held_out_perturbed_accuracy`` (percent) and ``passes`` (forward-backward passes of a
    batch); and the mean of each metric at each level of each evaluation, such as ``gaussian sigma=0.1 accuracy``.
    """
    settings = list(dict.fromkeys(key for job in sweep.jobs.values() for key in job.point))
    rows = []
    for name, job in sweep.jobs.items():
        row = {"job": name, "method": job.method, "train_seed": job.seed, "state": states[name].word}
        row |= {key: _cell(job.point.get(key)) for key in settings}
        if states[name].word == FINISHED:
            row |= _trained(training_folder(out, name), job)
            for label, evaluation in sweep.evaluations.items():
                row |= _evaluated(evaluation_folder(out, name, evaluation), label)
        rows.append(row)
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def _cell(value: Any) -> Any:
    return in_words(value) if isinstance(value, dict | list) else value


def _trained(folder: Path, job: Job) -> dict[str, Any]:
    runs = [run for run in read_trainings(folder) if run.train_seed == job.seed]
    if not runs:
        return {}
    best = runs[0].metrics[runs[0].metrics["best"].astype(bool)].iloc[-1]
    columns = ("held_out_accuracy", "held_out_perturbed_accuracy")
    return {"best_epoch": int(best["epoch"]), **{c: best[c] for c in columns}, "passes": runs[0].passes}


def _evaluated(folder: Path, label: str) -> dict[str, Any]:
    draws = gather([folder]).draws
    means = draws.groupby(["level_name", "level", "metric"], sort=True, as_index=False)[["value"]].mean()
    names = [f"{label} {row['level_name']}={row['level']:g} {row['metric']}" for row in means.to_dict("records")]
    return dict(zip(names, means["value"], strict=True))
