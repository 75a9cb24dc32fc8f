"""Doing all jobs of a sweep, wherever they are done, and joining what they found."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from noiserobust.data.registry import load_data
from noiserobust.errors import NoiseRobustError, OutputError, check_integer, unknown_name
from noiserobust.evaluate.metrics import parse_metrics
from noiserobust.evaluate.plan import parse_levels
from noiserobust.executors import Executor, FailedJobsError
from noiserobust.executors.serial import Serial
from noiserobust.models.registry import build_model
from noiserobust.noise.registry import build_noise, noise_from_config
from noiserobust.progress import progress_bar
from noiserobust.report.criteria import Criteria
from noiserobust.results.files import make_folder
from noiserobust.results.lock import FolderLock
from noiserobust.sweep.join import Joined, join_jobs
from noiserobust.sweep.plan import JOBS_FOLDER, Job, Sweep
from noiserobust.sweep.state import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    WAITING,
    State,
    last_lines,
    state_of,
    tried,
    write_state,
)
from noiserobust.sweep.work import Work
from noiserobust.train.recipe import build_method, build_schedule

_log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0  # seconds between looks at jobs that others are doing


@dataclass(frozen=True)
class SweepResult:
    """What a sweep has come to.

    Args:
        states: of all jobs, by name.
        joined: the files with what the finished ones found; None if none is finished.
    """

    states: dict[str, State]
    joined: Joined | None

    @property
    def failed(self) -> list[str]:
        """The jobs that could not be done."""
        return [name for name, state in self.states.items() if state.word == FAILED]


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    device: torch.device,
    executor: Executor | None = None,
    threads: int = 1,
    retry: bool = False,
    download: bool = False,
    progress: bool = False,
) -> SweepResult:
    """Do the jobs that are not done, and join what all of them found in ``out/<name>/``.

    A job that fails does not keep others from being done. Any number of sweeps may have one ``out``: a job that they
    share is done once, by whoever comes first, and the others wait for it.

    Args:
        sweep: what is to be done.
        out: folder; with an executor on several machines one that all of them see.
        device: where to compute.
        executor: where jobs are done; by default here, one after the other.
        threads: CPU threads of a job, >= 1.
        retry: whether jobs that have failed are done again.
        download: whether to fetch data of a known data set that are not there.
        progress: whether to show progress.

    Raises:
        NoiseRobustError: if a setting that can be checked beforehand is not valid, or nothing can be written.
    """
    check_integer("threads", threads, minimum=1)
    check(sweep, download=download)
    make_folder(out)
    work, waiting = Work(sweep, out.resolve(), device, threads, retry), _to_do(sweep, out, retry)
    with progress_bar(len(sweep.jobs), "job", done=len(sweep.jobs) - len(waiting), shown=progress) as bar:
        while waiting:
            elsewhere = []
            try:
                for name, word in (executor or Serial()).map(work, waiting):
                    if word == RUNNING:
                        elsewhere.append(name)
                        continue
                    bar.update()
                    if word == FAILED:
                        _log.warning(
                            "%s failed: %s", sweep.jobs[name].title, state_of(out, sweep.jobs[name], sweep).error
                        )
            except FailedJobsError as error:
                for name, reason in error.failures.items():
                    _say_failed(out, sweep.jobs[name], sweep, reason)
                    bar.update()
            waiting = _wait_for_some(sweep, out, elsewhere) if elsewhere else []
    states = {name: state_of(out, job, sweep) for name, job in sweep.jobs.items()}
    _check_kept(sweep, out, states)
    finished = [name for name, state in states.items() if state.word == FINISHED]
    return SweepResult(states, join_jobs(sweep, out, states) if finished else None)


def check(sweep: Sweep, *, download: bool = False) -> None:
    """Raise for what can be found wrong before the first job: names, noises, levels, data.

    Raises:
        NoiseRobustError: naming the job.
    """
    for evaluation in sweep.evaluations.values():
        parse_levels(build_noise(evaluation.noise), list(evaluation.levels))
        parse_metrics(evaluation.metrics)
        if evaluation.data is not None:
            load_data(evaluation.data, evaluation.split, download=download)
    criteria = Criteria(**sweep.criteria)
    methods = sorted({job.method for job in sweep.jobs.values()})
    if criteria.baseline is not None and criteria.baseline not in methods:
        raise unknown_name("baseline", criteria.baseline, methods)
    seen: set[str] = set()
    for job in sweep.jobs.values():
        config = job.config
        network = f"{config.model} {config.model_args}"
        try:
            build_method(config.method)
            build_schedule(config.method.schedule)
            noise_from_config(config.selection_noise)
            if network not in seen:
                build_model(config.model, config.model_args)
            if config.data not in seen:
                load_data(config.data, "train", download=download)
        except NoiseRobustError as error:
            raise type(error)(f"{error} (in {job.method!r})") from None
        seen |= {network, config.data}


def _to_do(sweep: Sweep, out: Path, retry: bool) -> list[str]:
    done = {FINISHED} if retry else {FINISHED, FAILED}
    return [name for name, job in sweep.jobs.items() if state_of(out, job, sweep).word not in done]


def _say_failed(out: Path, job: Job, sweep: Sweep, reason: str) -> None:
    """Write down that a job failed whose worker could not."""
    try:
        lock = FolderLock(make_folder(out / JOBS_FOLDER / job.name))
    except OutputError:  # somebody else is trying it
        return
    write_state(out, job, {"error": reason, **tried(sweep)})
    lock.release()


def _wait_for_some(sweep: Sweep, out: Path, names: Sequence[str]) -> list[str]:
    """Wait until nobody else is doing some of the jobs, and return those that are left to do."""
    _log.info("%d jobs are being done by another sweep; waiting", len(names))
    while True:
        words = {name: state_of(out, sweep.jobs[name], sweep).word for name in names}
        if any(word != RUNNING for word in words.values()):
            return [name for name, word in words.items() if word not in (FINISHED, FAILED)]
        time.sleep(_LOOK_EVERY)


def _check_kept(sweep: Sweep, out: Path, states: dict[str, State]) -> None:
    """Raise if a job that was done is not done any more, as when somebody has removed its folder meanwhile.

    Raises:
        OutputError: if so.
    """
    for name, state in states.items():
        if state.word in (STOPPED, WAITING):
            raise OutputError(
                f"Expected {out / JOBS_FOLDER / name} to hold the results of {sweep.jobs[name].title} until all jobs "
                "are done, but it does not; the same command goes on from what is there"
            )


def failures(sweep: Sweep, out: Path, states: dict[str, State]) -> list[str]:
    """Return what there is to say of the jobs that failed: why, and the last lines of each."""
    said = []
    for name, state in states.items():
        if state.word == FAILED:
            job = sweep.jobs[name]
            said += [f"{job.title} ({JOBS_FOLDER}/{name}): {state.error}"]
            said += [f"    {line}" for line in last_lines(out, job)]
    return said
