"""Monte-Carlo over trained weights, noise levels and noise draws."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import nn

from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.draws import Draws, Job
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.plan import Plan, Subject
from noiserobust.executors import Executor, FailedJobsError
from noiserobust.executors.serial import Serial
from noiserobust.noise.base import Noise
from noiserobust.noise.sites import find_sites
from noiserobust.perturb import noisy_weights
from noiserobust.progress import progress_bar
from noiserobust.results.claims import chip_table, tolerance_table
from noiserobust.results.store import Row, as_frame
from noiserobust.results.summary import precision, summarize
from noiserobust.rng import Stream

_log = logging.getLogger(__name__)

Part = tuple[int, int]
"""Which part of how many."""


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Args:
        draws: one row a (weights, level, draw), with the columns of ``draws.csv``.
    """

    draws: pd.DataFrame = field(repr=False)

    def summary(self, ci_level: float = 0.95) -> pd.DataFrame:
        """Return one row a (method, noise, level): mean, noise uncertainty, seed uncertainty, interval.

        Args:
            ci_level: level of the Student-t interval over train seeds, in (0, 1).
        """
        return summarize(self.draws, ci_level)

    def precision(self, ci_level: float = 0.95) -> pd.DataFrame:
        """Return one row a (weights, level) with noise: the mean over chips, its interval, and the passes it took.

        Args:
            ci_level: level of the Student-t interval over chips, in (0, 1).

        Raises:
            InvalidValueError: if draws were not sampled with ``until``.
        """
        return precision(self.draws, ci_level)

    def chips(self, spec: float, share: float = 0.05, ci_level: float = 0.95) -> pd.DataFrame:
        """Return one row a (method, noise, level) with noise: the yield at a specification, and the worst chips.

        Args:
            spec: the least value that a good chip has, such as an accuracy in percent.
            share: how many of the worst chips are looked at, in (0, 1).
            ci_level: level of the intervals, in (0, 1).

        See Also:
            :func:`noiserobust.results.claims.chip_table`
        """
        return chip_table(self.draws, spec, share, ci_level)

    def tolerance(self, drop: float, ci_level: float = 0.95) -> pd.DataFrame:
        """Return one row a (method, noise): the level at which so much is lost, and the mean over levels.

        Args:
            drop: against no noise, in units of the metric, > 0.
            ci_level: level of the intervals, in (0, 1).

        See Also:
            :func:`noiserobust.results.claims.tolerance_table`
        """
        return tolerance_table(self.draws, drop, ci_level)


def parse_part(text: str | None) -> Part:
    """Return part and number of parts from text such as ``2/8``; None is all in one.

    Raises:
        InvalidValueError: if it is none.
    """
    which, slash, parts = ("1/1" if text is None else text).partition("/")
    if not slash or not which.isdecimal() or not parts.isdecimal() or not 1 <= int(which) <= int(parts):
        raise InvalidValueError(f"Expected `shard` to be a part such as 2/8, from 1/8 to 8/8, but got {text!r}")
    return int(which), int(parts)


def run(
    subjects: Sequence[Subject],
    forward: Forward,
    plan: Plan,
    *,
    done: Sequence[Row] = (),
    keep: Callable[[Row], None] | None = None,
    progress: bool = False,
    part: Part = (1, 1),
    executor: Executor | None = None,
) -> list[Row]:
    """Evaluate.

    Args:
        subjects: trained weights.
        forward: data, device, precision.
        plan: noise, levels, draws.
        done: rows of an earlier run, not computed again.
        keep: called with each new row as soon as it is known.
        progress: whether to show progress.
        part: which part of how many is computed, the first is 1.
        executor: where draws are computed; by default here, one after the other.

    Returns:
        All rows, those of ``done`` first.

    Raises:
        InvalidValueError: if data, weights or noise do not fit together.
        FailedJobsError: if draws failed for another reason, after all others are computed.
    """
    rows = list(done)
    have = {(*_identity(row), row["metric"]) for row in rows}
    total, missing = missing_jobs(subjects, forward, plan, rows, part)
    done_now: set[Job] = set()
    _log.info("%d draws: %d are done, %d to do", total, total - len(missing), len(missing))
    with progress_bar(total, "draw", done=total - len(missing), shown=progress) as bar:
        for job, found in (executor or Serial()).map(Draws(subjects, forward, plan), missing):
            done_now.add(job)
            for row in found:
                if (*_identity(row), row["metric"]) in have:
                    continue
                if keep:
                    keep(row)
                rows.append(row)
            bar.update()
    if lost := set(missing) - done_now:
        raise FailedJobsError(dict.fromkeys(sorted(lost), "it was never done"))
    return rows


def missing_jobs(
    subjects: Sequence[Subject], forward: Forward, plan: Plan, done: Sequence[Row], part: Part
) -> tuple[int, list[Job]]:
    """Return how many jobs there are, and those that are not done."""
    finished = {_identity(row) for row in done}
    for metric in forward.metrics:  # a draw is finished if it has all of its rows
        finished &= {_identity(row) for row in done if row["metric"] == metric.name}
    jobs = _jobs(subjects, plan, part)
    return len(jobs), [job for job, identity in jobs.items() if identity not in finished]


def _jobs(subjects: Sequence[Subject], plan: Plan, part: Part) -> dict[Job, tuple[Any, ...]]:
    """Return the jobs of a part, subject by subject, with what identifies their rows."""
    which, parts = part
    jobs: dict[Job, tuple[Any, ...]] = {}
    for s, subject in enumerate(subjects):
        for i, draw in plan.tasks()[(which - 1 - s) % parts :: parts]:
            identity = subject.method, subject.train_seed, subject.weights, plan.levels[i].value, draw
            jobs[s, i, draw] = identity
    return jobs


def mean_accuracy(model: nn.Module, forward: Forward, noise: Noise, streams: Sequence[Stream]) -> float:
    """Return the mean accuracy in percent of a placed model over one chip for each stream."""
    sites = find_sites(model)
    network = forward.network(model)
    values: list[float] = []
    for stream in streams:
        with network.on(noisy_weights(sites, noise, stream)):
            values += forward.measure(network)[0].values()
    return sum(values) / len(values)


def as_result(rows: Sequence[Row]) -> EvaluationResult:
    """Return rows as a result."""
    return EvaluationResult(as_frame(rows))


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["method"], row["train_seed"], row["weights"], row["level"], row["draw"]
