"""Trials of a search: what each has come to, and doing one, which ends early when it is poor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from noiserobust.config import TrainConfig
from noiserobust.diagnose.recorder import Recorder
from noiserobust.errors import InvalidValueError, MissingDependencyError, NoiseRobustError, OutputError
from noiserobust.evaluate.heldout import held_out_score
from noiserobust.results.files import read_json, write_json
from noiserobust.results.trainings import read_trainings
from noiserobust.sweep.plan import Job, training_folder
from noiserobust.sweep.work import logged_job
from noiserobust.train.recipe import build_method
from noiserobust.train.runs import train_seeds

if TYPE_CHECKING:
    import optuna

TRIALS_FOLDER = "trials"
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class Record:
    """What a trial has come to.

    Args:
        number: of the trial, from 0.
        params: the point of the space.
        state: complete; pruned, ended early because it was poor; or failed.
        value: held-out accuracy on the device in percent, the mean over train seeds; None unless complete.
        passes: forward-backward passes over a batch that were spent, all train seeds together.
        accuracies: after each epoch, by the compute spent until then in epochs of one pass a step.
        error: why it failed.
    """

    number: int
    params: Mapping[str, Any]
    state: str
    value: float | None
    passes: int
    accuracies: Mapping[int, float] = field(default_factory=dict)
    error: str = ""


def record_path(out: Path, number: int) -> Path:
    """Return where the record of a trial is."""
    return out / TRIALS_FOLDER / f"{number:04d}.json"


def write_record(out: Path, record: Record) -> None:
    """Write the record of a trial.

    Raises:
        OutputError: if it cannot be written.
    """
    write_json(record_path(out, record.number), asdict(record))


def read_record(out: Path, number: int) -> Record | None:
    """Return the record of a trial, None if it is not over.

    Raises:
        InvalidValueError: if the file holds something else.
    """
    path = record_path(out, number)
    if not path.exists():
        return None
    content = read_json(path)
    try:
        accuracies = {int(step): float(value) for step, value in content["accuracies"].items()}
        record = Record(**{**content, "accuracies": accuracies})
        if record.number != number or record.state not in (COMPLETE, PRUNED, FAILED):
            raise ValueError(record.state)
        if (record.value is None) is (record.state == COMPLETE) or not isinstance(record.params, dict):
            raise ValueError(record.value)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise InvalidValueError(f"Expected {path} to hold the record of trial {number}, but it does not") from None
    return record


@dataclass(frozen=True)
class Attempt:
    """Does trials by number; copied to each worker.

    Args:
        configs: the training of each trial.
        params: the point of each.
        seeds: train seeds of a trial.
        before: records of all earlier rounds, with which a trial is compared.
        out: folder of the search.
        device: where to compute.
        threads: CPU threads of a trial.
        prune: whether poor trials end early.
    """

    configs: Mapping[int, TrainConfig]
    params: Mapping[int, Mapping[str, Any]]
    seeds: Sequence[int]
    before: Sequence[Record]
    out: Path
    device: torch.device
    threads: int
    prune: bool = True

    def __call__(self, number: int) -> Record:
        """Do a trial, or what is left of it.

        Raises:
            OutputError: if nothing can be written.
        """
        config = self.configs[number]
        state, error = COMPLETE, ""
        jobs = [Job(config, seed) for seed in self.seeds]
        for place, job in enumerate(jobs):

            def look(seed: int, rows: Sequence[Mapping[str, Any]], place: int = place) -> None:
                if not self.prune or (place == len(jobs) - 1 and len(rows) == config.epochs):
                    return  # what is done is done
                earlier = self._accuracies(jobs[:place], config)
                now = _by_compute(config, place, [float(row["held_out_perturbed_accuracy"]) for row in rows])
                if is_poor({**earlier, **now}, self.before, config.epochs * _passes(config)):
                    raise _Poor

            with logged_job(self.out, job, self.threads):
                try:
                    folder = training_folder(self.out, job.name)
                    how: dict[str, Any] = {"make_score": held_out_score, "make_recorder": Recorder.of}
                    how |= {"device": self.device, "after_epoch": look}
                    train_seeds(config, [job.seed], folder, **how)
                except OutputError:
                    raise
                except _Poor:
                    state = PRUNED
                except Exception as failure:
                    kind = "" if isinstance(failure, NoiseRobustError) else f"{type(failure).__name__}: "
                    state, error = FAILED, f"{kind}{failure}"
            if state != COMPLETE:
                break
        runs = [run for job in jobs for run in _trainings(self.out, job)]
        best = [float(run.metrics["held_out_perturbed_accuracy"].max()) for run in runs]
        value = round(sum(best) / len(best), 6) if state == COMPLETE else None
        accuracies = self._accuracies(jobs, config)
        passes = sum(run.passes or 0 for run in runs)
        return Record(number, dict(self.params[number]), state, value, passes, accuracies, error)

    def _accuracies(self, jobs: Sequence[Job], config: TrainConfig) -> dict[int, float]:
        found: dict[int, float] = {}
        for place, job in enumerate(jobs):
            for run in _trainings(self.out, job):
                found |= _by_compute(config, place, run.metrics["held_out_perturbed_accuracy"].tolist())
        return found


class _Poor(Exception):
    """A trial is not worth going on with."""


def _trainings(out: Path, job: Job) -> list[Any]:
    folder = training_folder(out, job.name)
    return [run for run in read_trainings(folder) if run.train_seed == job.seed] if folder.is_dir() else []


def _passes(config: TrainConfig) -> int:
    return build_method(config.method).passes


def _by_compute(config: TrainConfig, place: int, accuracies: Sequence[float]) -> dict[int, float]:
    """Return accuracies after epochs by the compute spent, in epochs of one pass a step: trials compare at the same."""
    each = _passes(config)
    return {(place * config.epochs + epoch) * each: value for epoch, value in enumerate(accuracies, start=1)}


def is_poor(accuracies: Mapping[int, float], others: Sequence[Record], budget: int) -> bool:
    """Return whether a trial is below the median of others after the same compute, by Optuna's median rule.

    Args:
        accuracies: of the trial, by compute.
        others: trials that are over.
        budget: compute of a training; nothing is said of a trial before half of that.
    """
    optuna = import_optuna()
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=budget // 2)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for record in others:
        study.add_trial(as_trial(record, {}))
    trial = study.ask()
    for step, value in sorted(accuracies.items()):
        trial.report(value, step)
    return bool(trial.should_prune())


def as_trial(record: Record, distributions: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    """Return a record as Optuna has it; failed trials count as ended early, so that their like is avoided."""
    optuna = import_optuna()
    states = {COMPLETE: optuna.trial.TrialState.COMPLETE}
    return optuna.trial.create_trial(
        state=states.get(record.state, optuna.trial.TrialState.PRUNED),
        value=record.value,
        params=dict(record.params) if distributions else {},
        distributions=dict(distributions),
        intermediate_values=dict(record.accuracies),
    )


def import_optuna() -> Any:
    """Return Optuna, which says nothing but warnings.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(
            f"Expected Optuna to be installed for a search, but got: {error}; try: pip install 'noiserobust[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
