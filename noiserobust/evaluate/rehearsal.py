"""What an evaluation would do, and how long it would take: nothing is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noiserobust.data.arrays import ArrayData
from noiserobust.evaluate.draws import Draws
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.montecarlo import Part, missing_jobs
from noiserobust.evaluate.plan import Plan, Subject
from noiserobust.evaluate.precision import rehearse_until
from noiserobust.evaluate.settle import settle, settled
from noiserobust.results.store import finished_rows, known

_FEW, _MANY = 256, 2048  # examples on which a draw is timed
_SLOW = 3.0  # seconds for few examples, from which no more are timed


@dataclass(frozen=True)
class Rehearsal:
    """A plan and its estimated time.

    Args:
        to_do: draws that are to be computed; with ``until`` as many as are expected.
        done: draws that are there already.
        examples: of the data set.
        settled: how the network would be run; see :mod:`noiserobust.evaluate.settle`.
        seconds: for all that is to be done, on all cores of this machine.
        sampled: with ``until``, for each noisy level of the first weights how many chips are expected and on how many
            examples each.
    """

    to_do: int
    done: int
    examples: int
    settled: dict[str, Any]
    seconds: float
    sampled: dict[float, tuple[int, int]] | None = None


def rehearse(
    out: Path, subjects: Sequence[Subject], forward: Forward, plan: Plan, configuration: dict[str, Any], part: Part
) -> Rehearsal:
    """Return what an evaluation into a folder would do; a few draws are computed for their time.

    Args:
        out: where results would go; what is there already is not computed again.
        subjects: trained weights.
        forward: data, device, precision.
        plan: noise, levels, draws.
        configuration: everything that determines the results.
        part: which part of how many is computed.

    Raises:
        InvalidValueError: if the folder holds results of another configuration, or data, weights and noise do not fit.
    """
    rows = finished_rows(out, configuration)
    how = (known(out, "settled") if rows else None) or settle(subjects[0], forward, plan)
    forward, examples = settled(forward, how), configuration["data"]["n_examples"]
    if plan.until is not None:
        cost = known(out, "chip_cost") if rows else None
        sampled, seconds, to_do = rehearse_until(subjects, forward, plan, rows, cost)
        return Rehearsal(to_do, len(rows), examples, how, seconds, sampled)
    jobs, missing = missing_jobs(subjects, forward, plan, rows, part)
    seconds = 0.0
    for noisy in (False, True):
        of_kind = [job for job in missing if bool(plan.levels[job[1]].noise) is noisy]
        if of_kind:
            seconds += len(of_kind) * _seconds(subjects, forward, plan, of_kind[-1], examples)
    return Rehearsal(len(missing), jobs - len(missing), examples, how, seconds)


def _seconds(
    subjects: Sequence[Subject], forward: Forward, plan: Plan, job: tuple[int, int, int], examples: int
) -> float:
    """Return how long a draw takes, from some of its examples."""

    def timed(number: int) -> float:
        draws = Draws(subjects, _some(forward, number), plan)
        draws.network(job[0])
        start = time.perf_counter()
        draws(job)
        return time.perf_counter() - start

    few, many = min(_FEW, examples), min(_MANY, examples)
    first = timed(few)
    if first > _SLOW or few == examples:
        return first * examples / few
    first, second = timed(few), timed(many)  # what is done for the first time takes longer
    each = max((second - first) / (many - few), 0.0) if many > few else second / many
    return second + (examples - many) * each


def _some(forward: Forward, number: int) -> Forward:
    if isinstance(forward.data, ArrayData):
        return replace(forward, data=forward.data.subset(range(number)))
    return replace(forward, at_most=number)
