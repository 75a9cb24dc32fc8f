"""The search: rounds of trials proposed by Optuna, then the winner against what it has to beat."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from noiserobust.config import TrainConfig
from noiserobust.diagnose.equivalent import TOTAL, equivalent_noise
from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.executors import Executor
from noiserobust.executors.serial import Serial
from noiserobust.models.registry import build_model
from noiserobust.models.weights import fit_weights, read_weights
from noiserobust.noise.registry import build_noise
from noiserobust.noise.timed import TimedNoise
from noiserobust.progress import progress_bar
from noiserobust.results.export import to_csv
from noiserobust.results.files import make_folder, write_atomic
from noiserobust.results.manifest import environment
from noiserobust.results.store import ResultFolder
from noiserobust.rng import Stream
from noiserobust.sweep.plan import EvaluationConfig, Job, Sweep, training_folder
from noiserobust.sweep.run import SweepResult, check, run_sweep
from noiserobust.times import write_time
from noiserobust.train.runs import BEST_FILE
from noiserobust.tune.space import AVERAGES, CLIPS, EQUIVALENT, ORDINARY, PLAIN, TUNED, Space, settings_of
from noiserobust.tune.trials import (
    COMPLETE,
    TRIALS_FOLDER,
    Attempt,
    Record,
    as_trial,
    import_optuna,
    read_record,
    write_record,
)

_log = logging.getLogger(__name__)

WINNER_FILE, TABLE_FILE, FINAL = "winner.yaml", "trials.csv", "final"
_UNGUIDED = 8  # trials before the optimiser follows what it has seen
_ASKED_AGAIN = 50  # times that the optimiser is asked for a training that was not tried yet


@dataclass(frozen=True)
class TuneConfig:
    """A search.

    Args:
        base: the training that is to be improved; its method, clipping of weights and average do not count, its passes
            are the budget of each trial.
        device: a profile's name, or FILE.yaml.
        t: time since programming that is tuned for, such as ``1d``.
        trials: how many, >= 1, beside the plain training.
        together: trials of a round: proposed, and possibly done, at the same time, >= 1. It is part of the search:
            results do not depend on how many are really done at a time.
        trial_seeds: train seeds of each trial, >= 1.
        seeds: train seeds of the winner and of what it is compared with.
        times: since programming at which they are compared, beside none and ``t``.
        draws: chips for each of them, >= 1.
        prune: whether poor trials end early.
    """

    base: TrainConfig
    device: str
    t: str = "1d"
    trials: int = 24
    together: int = 4
    trial_seeds: int = 1
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    times: Sequence[str] = ("1s", "1d", "1y")
    draws: int = 10
    prune: bool = True

    def __post_init__(self) -> None:
        for name in ("trials", "together", "trial_seeds", "draws"):
            check_integer(name, getattr(self, name), minimum=1)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InvalidValueError(f"Expected `seeds` to be distinct integers >= 0, but got {list(self.seeds)!r}")
        for seed in self.seeds:
            check_integer("seeds", seed, minimum=0)
        if not self.base.held_out:
            raise InvalidValueError(
                "Expected `held_out` to be > 0, for trials are compared on held-out data, but got 0"
            )

    def describe(self) -> dict[str, Any]:
        """Return everything that determines the search, JSON-able."""
        base = replace(self.base, label=None).as_dict()
        space = {"clips": list(CLIPS), "averages": list(AVERAGES)}  # of earlier versions it was another
        own = ("device", "t", "trials", "together", "trial_seeds", "draws", "prune")
        return {
            "base": base,
            "space": space,
            **{n: getattr(self, n) for n in own},
            "seeds": list(self.seeds),
            "times": list(self.times),
        }


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Args:
        winner: the training; ``winner.yaml`` reproduces it.
        table: one row a trial; the same as ``trials.csv``.
        comparison: what is compared in the end.
        final: how far that is: the winner, the plain training, one with the device's equivalent sigma, and the
            default one, on test data and new chips.
    """

    winner: TrainConfig
    table: pd.DataFrame
    comparison: Sweep
    final: SweepResult


def tune(
    config: TuneConfig,
    out: Path,
    *,
    device: torch.device,
    executor: Executor | None = None,
    threads: int = 1,
    retry: bool = False,
    download: bool = False,
    progress: bool = False,
) -> Tuned:
    """Search, then train the winner and what it has to beat, and evaluate them on test data and chips of their own.

    Trials are proposed by Optuna's TPE, in rounds, from a stream of their own: an interrupted search goes on to the
    very result it would have had (on a CPU in fp32). A trial is worth its held-out accuracy on chips of the device, the
    same for all; one that is below the median of others after half of its passes ends.

    Args:
        config: the search.
        out: folder; trials that are over are kept.
        device: where to compute.
        executor: where trials and trainings are done; by default here, one after the other.
        threads: CPU threads of each, >= 1.
        retry: whether trainings of the last comparison that have failed are done again.
        download: whether to fetch data of a known data set that are not there.
        progress: whether to show progress.

    Raises:
        NoiseRobustError: if a setting is not valid, the folder holds another search, or nothing can be written.
    """
    import_optuna()
    space = _space(config)
    evaluation = EvaluationConfig(config.device, ["clean", *_all_times(config)], config.draws)
    check(Sweep(FINAL, {"plain": Job(space.plain(), 0)}, {"device": evaluation}), download=download)
    with ResultFolder(out, "tune", config.describe(), environment({"device": str(device)})):
        make_folder(out / TRIALS_FOLDER)
        search = _Search(config, space, out.resolve(), device, executor or Serial(), threads)
        with progress_bar(config.trials + 1, "trial", shown=progress) as bar:
            records = search.run(bar.update)
        table = trial_table(records, search.space)
        write_atomic(out / TABLE_FILE, to_csv(table))
        winner = _winner(records, search.space)
        write_atomic(out / WINNER_FILE, _as_yaml(winner, config))
        rivals = [winner, space.plain(), search.space.config(ORDINARY, EQUIVALENT), space.default()]
        jobs = {job.name: job for rival in rivals for seed in config.seeds for job in [Job(rival, seed)]}
        criteria = {"baseline": PLAIN, "target": [config.t]}
        sweep = Sweep(FINAL, jobs, {"device": evaluation}, criteria)
        final = run_sweep(sweep, out, device=device, executor=executor, threads=threads, retry=retry, progress=progress)
    return Tuned(winner, table, sweep, final)


class _Search:
    def __init__(
        self, config: TuneConfig, space: Space, out: Path, device: torch.device, executor: Executor, threads: int
    ) -> None:
        self.config, self.space, self.out = config, space, out
        self.device, self.executor, self.threads = device, executor, threads

    def run(self, tick: Any) -> list[Record]:
        """Return the records of all trials; the first is the plain training, from which sigma is known."""
        records = self._do({0: {}}, {0: self.space.plain()}, [])
        tick()
        self.space = replace(self.space, sigma=self._equivalent_sigma())
        while len(records) <= self.config.trials:
            params = self._proposed(records, min(self.config.together, self.config.trials + 1 - len(records)))
            done = self._do(params, {n: self.space.config(p) for n, p in params.items()}, records)
            tick(len(done))
            records += done
        return records

    def _do(self, params: dict[int, Any], configs: dict[int, TrainConfig], before: list[Record]) -> list[Record]:
        """Do trials that are not over, and return the records of all."""
        found = {n: r for n in params if (r := read_record(self.out, n)) is not None}
        for number, record in found.items():
            if record.params != params[number]:
                raise InvalidValueError(
                    f"Expected trial {number} of {self.out} to be {params[number]!r}, but got {record.params!r}; it "
                    "was proposed by another version of Optuna"
                )
        seeds = range(self.config.trial_seeds)
        prune = self.config.prune and bool(before)
        attempt = Attempt(configs, params, seeds, before, self.out, self.device, self.threads, prune)
        # A trial whose worker dies has no record: the same command tries it again.
        for number, record in self.executor.map(attempt, [n for n in params if n not in found]):
            if number or record.state == COMPLETE:
                write_record(self.out, record)
            found[number] = record
            told = f"{record.value:.2f}%" if record.value is not None else record.error
            _log.info("trial %d: %s %s, %s", number, record.state, told, dict(record.params) or PLAIN)
        if before == [] and found[0].state != COMPLETE:
            raise InvalidValueError(f"Expected the plain training to succeed, but got: {found[0].error}")
        return [found[number] for number in params]

    def _proposed(self, records: Sequence[Record], wanted: int) -> dict[int, dict[str, Any]]:
        """Return the points of the next round. Each round has a sampler of its own, which sees what is over."""
        optuna = import_optuna()
        first = len(records)
        seed = int(Stream(self.config.base.seed, "tune", first).generator().integers(2**31))
        with warnings.catch_warnings():
            # Which parameters there are depends on others; Optuna calls what it takes for that experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_UNGUIDED, multivariate=True, group=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for record in records[1:]:
            study.add_trial(as_trial(record, _distributions(self.space, record)))
        for point in (ORDINARY, self.space.near_default())[first - 1 :]:  # the first, whatever the others are
            study.enqueue_trial(dict(point))
        tried = [self.space.config(record.params) for record in records[1:]]
        proposed: dict[int, dict[str, Any]] = {}
        for number in range(first, first + wanted):
            for _ in range(_ASKED_AGAIN):  # where all is discrete it proposes what is known again and again
                params = self.space.suggest(study.ask())
                if self.space.config(params) not in tried:
                    break
            proposed[number] = params
            tried.append(self.space.config(params))
        return proposed

    def _equivalent_sigma(self) -> float:
        """Return the sigma of the noise that has the device's errors on the plainly trained network."""
        plain = self.space.plain()
        model = build_model(plain.model, plain.model_args)
        fit_weights(model, read_weights(training_folder(self.out, Job(plain, 0).name) / "seed0" / BEST_FILE))
        table = equivalent_noise(model, build_noise(self.config.device), [self.config.t], seed=plain.seed)
        return float(table.loc[table["layer"] == TOTAL, "sigma"].iloc[0])


def trial_table(records: Sequence[Record], space: Space) -> pd.DataFrame:
    """Return one row a trial: state, held-out accuracy on the device, passes spent, and the settings it stands for."""
    rows = []
    for record in records:
        config = space.config(record.params) if record.params else space.plain()
        row: dict[str, Any] = {"trial": record.number, "state": record.state, "held_out_accuracy": record.value}
        row |= {"passes": record.passes, "epochs": config.epochs, **record.params}
        level = config.method.noise.level
        row |= {"level": "" if level is None else str(level), "error": record.error}
        rows.append(row)
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def _space(config: TuneConfig) -> Space:
    noise = build_noise(config.device)
    if not isinstance(noise, TimedNoise):
        raise InvalidValueError(f"Expected `profile` to be a device, but got {config.device!r}")
    noise.parse_level(config.t)
    times = [str(write_time(t)) for t in noise.profile.times]
    return Space(config.base, config.device, config.t, times if config.t in times else [*times, config.t])


def _all_times(config: TuneConfig) -> list[str]:
    noise = build_noise(config.device)
    found = {noise.parse_level(t): t for t in [*config.times, config.t]}
    return [found[t] for t in sorted(found)]


def _winner(records: Sequence[Record], space: Space) -> TrainConfig:
    """Return the best trial's training, among equals the earlier one."""
    best = min((r for r in records[1:] if r.value is not None), key=lambda r: (-(r.value or 0), r.number), default=None)
    if best is None:
        raise InvalidValueError("Expected a trial to come to its end, but all failed; `trials.csv` says why")
    return space.config(best.params, TUNED)


def _distributions(space: Space, record: Record) -> dict[str, Any]:
    """Return from what the parameters of a record were drawn."""
    optuna = import_optuna()
    trial = optuna.trial.FixedTrial(dict(record.params))
    space.suggest(trial)
    return dict(trial.distributions)


def _as_yaml(winner: TrainConfig, config: TuneConfig) -> str:
    said = f"# The best of {config.trials} trials for {config.device} at {config.t}.\n"
    said += f"# noiserobust train --config {WINNER_FILE} --seeds {' '.join(map(str, config.seeds))} --out runs/tuned\n"
    return said + str(yaml.safe_dump(settings_of(winner), sort_keys=False, allow_unicode=True))
