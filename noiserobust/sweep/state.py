"""How far the jobs of a sweep are, as their folders say: anybody may look at any time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiserobust.errors import NoiseRobustError
from noiserobust.results.files import read_json, write_json
from noiserobust.results.lock import in_use
from noiserobust.results.schema import DRAWS_FILE, MANIFEST_FILE, SUMMARY_FILE
from noiserobust.sweep.plan import JOBS_FOLDER, Job, Sweep, evaluation_folder, training_folder

JOB_FILE, LOG_FILE = "job.json", "log.txt"
WAITING, RUNNING, STOPPED, FINISHED, FAILED = "waiting", "running", "stopped", "finished", "failed"
STATES = (FINISHED, RUNNING, STOPPED, WAITING, FAILED)

_TAIL = 4096  # bytes of a log that are looked at for its last lines


@dataclass(frozen=True)
class State:
    """How far a job is.

    Args:
        word: one of :data:`STATES`; ``stopped`` is one that was begun and that nobody is doing.
        error: why it failed.
        seconds: how long it took, if it is finished: all sessions together.
    """

    word: str
    error: str = ""
    seconds: float | None = None


def state_of(out: Path, job: Job, sweep: Sweep) -> State:
    """Return how far a job is; nothing is written."""
    folder = out / JOBS_FOLDER / job.name
    said = _said(folder)
    seconds = said.get("seconds")
    evaluated = (is_evaluated(evaluation_folder(out, job.name, e)) for e in sweep.evaluations.values())
    if is_trained(training_folder(out, job.name), job.seed) and all(evaluated):
        return State(FINISHED, seconds=float(seconds) if isinstance(seconds, int | float) else None)
    if in_use(folder):
        return State(RUNNING)
    if (error := failure_of(out, job, sweep)) is not None:
        return State(FAILED, error)
    return State(STOPPED if said else WAITING)


def failure_of(out: Path, job: Job, sweep: Sweep) -> str | None:
    """Return why a job failed, if what it failed at are the evaluations of this sweep."""
    said = _said(out / JOBS_FOLDER / job.name)
    same = all(said.get(name, value) == value for name, value in tried(sweep).items())
    return said["error"] if isinstance(said.get("error"), str) and same else None


def tried(sweep: Sweep) -> dict[str, list[str]]:
    """Return what is written of a sweep beside the failure of a job: another one may do better."""
    return {"evaluations": sorted(evaluation.sha256[:16] for evaluation in sweep.evaluations.values())}


def is_trained(folder: Path, seed: int) -> bool:
    """Return whether a training is there; whoever has no more use for its weights may have removed them."""
    return (folder / MANIFEST_FILE).is_file() and (folder / f"seed{seed}").is_dir()


def is_evaluated(folder: Path) -> bool:
    """Return whether all draws of an evaluation are there."""
    return (folder / DRAWS_FILE).is_file() and (folder / SUMMARY_FILE).is_file()


def write_state(out: Path, job: Job, more: Mapping[str, Any]) -> None:
    """Say in the folder of a job what it is and how far; the caller holds its lock.

    Raises:
        OutputError: if it cannot be written.
    """
    folder = out / JOBS_FOLDER / job.name
    said = {"method": job.method, "train_seed": job.seed, "settings": job.point, **more}
    write_json(folder / JOB_FILE, said)


def seconds_before(out: Path, job: Job) -> float:
    """Return how long earlier sessions have worked on a job."""
    seconds = _said(out / JOBS_FOLDER / job.name).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def last_lines(out: Path, job: Job, number: int = 5) -> list[str]:
    """Return the last lines that a job has written."""
    path = out / JOBS_FOLDER / job.name / LOG_FILE
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-number:]


def _said(folder: Path) -> dict[str, Any]:
    try:
        content = read_json(folder / JOB_FILE)
    except NoiseRobustError:
        return {}
    return content if isinstance(content, dict) else {}
