"""Doing one job: train, evaluate, and write a log beside the results."""

from __future__ import annotations

import faulthandler
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timezone
from io import TextIOWrapper
from pathlib import Path
from typing import IO

import torch

from noiserobust.config import TrainConfig
from noiserobust.diagnose.recorder import Recorder
from noiserobust.errors import NoiseRobustError, OutputError
from noiserobust.evaluate.files import EvaluateConfig, evaluate_files
from noiserobust.evaluate.heldout import held_out_score
from noiserobust.results.files import make_folder, write_errors
from noiserobust.results.lock import FolderLock, InUseError
from noiserobust.sweep.plan import (
    JOBS_FOLDER,
    EvaluationConfig,
    Job,
    Sweep,
    check_unchanged,
    evaluation_folder,
    training_folder,
)
from noiserobust.sweep.state import (
    FAILED,
    FINISHED,
    LOG_FILE,
    RUNNING,
    failure_of,
    seconds_before,
    state_of,
    tried,
    write_state,
)
from noiserobust.train.runs import train_seeds


@dataclass(frozen=True)
class Work:
    """Does jobs of a sweep by name; copied to each worker.

    Args:
        sweep: what is to be done.
        out: folder of the sweep, which all workers see.
        device: where to compute.
        threads: CPU threads of a job, >= 1: with another number sums are rounded otherwise.
        retry: whether jobs that have failed are done again, here or elsewhere meanwhile.
    """

    sweep: Sweep
    out: Path
    device: torch.device
    threads: int = 1
    retry: bool = False

    def __call__(self, name: str) -> str:
        """Do a job, unless it is finished or somebody else is at it.

        Returns:
            ``finished``, ``failed`` (the folder says why), or ``running``: by somebody else.

        Raises:
            OutputError: if nothing can be written.
        """
        job = self.sweep.jobs[name]
        folder = make_folder(self.out / JOBS_FOLDER / name)
        try:
            lock = FolderLock(folder)
        except InUseError:
            return RUNNING
        try:
            if state_of(self.out, job, self.sweep).word == FINISHED:
                return FINISHED
            if not self.retry and failure_of(self.out, job, self.sweep) is not None:
                return FAILED
            return self._do(job)
        finally:
            lock.release()

    def _do(self, job: Job) -> str:
        before, start = seconds_before(self.out, job), time.monotonic()

        def say(**more: object) -> None:
            write_state(self.out, job, {**more, "seconds": round(before + time.monotonic() - start, 2)})

        say()
        with logged_job(self.out, job, self.threads):
            try:
                self._train_and_evaluate(job)
            except OutputError:
                raise
            except Exception as error:
                told = " ".join(
                    f"{'' if isinstance(error, NoiseRobustError) else type(error).__name__} {error}".split()
                )
                if not isinstance(error, NoiseRobustError):
                    traceback.print_exc()
                print(f"failed: {told}", file=sys.stderr)
                say(error=told, **tried(self.sweep))
                return FAILED
            print("finished")
        say()
        return FINISHED

    def _train_and_evaluate(self, job: Job) -> None:
        check_unchanged(job, self.sweep)
        config, folder = job.config, training_folder(self.out, job.name)
        (weights,) = train_seeds(
            config, [job.seed], folder, make_score=held_out_score, make_recorder=Recorder.of, device=self.device
        )
        for evaluation in self.sweep.evaluations.values():
            evaluate_files(
                evaluate_config(config, evaluation, weights, self.device, self.out),
                evaluation_folder(self.out, job.name, evaluation),
                progress=True,
            )


def evaluate_config(
    config: TrainConfig, evaluation: EvaluationConfig, weights: Path, device: torch.device, root: Path
) -> EvaluateConfig:
    """Return the evaluation of the network that a training has made."""
    settings = evaluation.as_dict()
    settings["data"] = evaluation.data or config.data
    return EvaluateConfig(
        model=config.model,
        model_args=config.model_args,
        weights=[weights],
        device=str(device),
        root=root,
        **settings,
    )


@contextmanager
def logged_job(out: Path, job: Job, threads: int) -> Iterator[None]:
    """Compute with so many threads, and have everything that is printed or logged written to the log of a job.

    Raises:
        OutputError: if it cannot be written.
    """
    folder = make_folder(out / JOBS_FOLDER / job.name)
    with _logged(folder / LOG_FILE, job), _threads(threads):
        yield


@contextmanager
def _logged(path: Path, job: Job) -> Iterator[None]:
    """Have everything that is printed or logged meanwhile written to a file, a crash of the interpreter included."""
    with _Log(path) as file, redirect_stdout(file), redirect_stderr(file), _log_records(file):
        print(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC, {job.title}")
        watched = faulthandler.is_enabled()
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.disable()
            if watched:
                faulthandler.enable(sys.__stderr__ or file)


class _Log(TextIOWrapper):
    """The log of a job: without a buffer, which would fail again when it is closed, and with errors as of any file.

    Args:
        path: of the file, which is appended to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with write_errors(path):
            file = path.open("ab", buffering=0)
        super().__init__(file, encoding="utf-8", errors="backslashreplace", write_through=True)

    def write(self, text: str) -> int:
        with write_errors(self._path):
            return super().write(text)


@contextmanager
def _log_records(file: IO[str]) -> Iterator[None]:
    logger, handler = logging.getLogger("noiserobust"), logging.StreamHandler(file)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(before or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
