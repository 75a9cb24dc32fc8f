"""The same chips under many conditions: in each, noise falls on some layers only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from torch import nn

from noiserobust.evaluate.api import describe_noisy, run_into
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.montecarlo import as_result, run
from noiserobust.evaluate.plan import Level, Plan, Subject
from noiserobust.evaluate.settle import Settled, settled
from noiserobust.executors import Executor
from noiserobust.executors.base import JobT, ResultT
from noiserobust.executors.serial import Serial
from noiserobust.noise.sites import find_sites
from noiserobust.results.store import read_rows

PARTS = "parts"
"""Folder for the evaluations of the conditions, within that for the results."""


@dataclass(frozen=True)
class Study:
    """What is evaluated under the conditions.

    Args:
        subjects: trained weights, of one or several methods.
        forward: data, device, the precision that was asked for.
        plan: one level, with noise on all layers.
        configuration: everything that determines the evaluation of that plan; of its ``weights`` one entry a subject.
        layers: the weights that noise falls on, in the order of the model, each with its number of elements.
        parameters: number of elements of all parameters of the model.
    """

    subjects: Sequence[Subject]
    forward: Forward
    plan: Plan
    configuration: dict[str, Any]
    layers: dict[str, int]
    parameters: int

    @classmethod
    def of(
        cls,
        model: nn.Module,
        subjects: Sequence[Subject],
        forward: Forward,
        plan: Plan,
        configuration: dict[str, Any],
    ) -> Study:
        """Return the study of a model, one of the subjects'."""
        layers = {site.name: site.weight().numel() for site in find_sites(model, plan.select)}
        return cls(subjects, forward, plan, configuration, layers, sum(p.numel() for p in model.parameters()))

    @property
    def methods(self) -> list[str]:
        """The methods in the order of the subjects."""
        return list(dict.fromkeys(subject.method for subject in self.subjects))

    @property
    def level(self) -> Level:
        """The level of the noise."""
        return self.plan.levels[0]

    def narrowed(self, noisy: Iterable[str], method: str | None = None, seed: int | None = None) -> Study:
        """Return the study with noise on some of the layers only.

        Args:
            noisy: their names; none for no noise at all.
            method: whose weights are evaluated; by default all.
            seed: root seed of the chips; by default that of the plan, whose draw k of a layer is the same whichever
                other layers are noisy.
        """
        wanted = set(noisy)
        names = {name: number for name, number in self.layers.items() if name in wanted}
        seed = self.plan.seed if seed is None else seed
        # What selects all layers is not said, as in an ordinary evaluation: that may carry on with the folder.
        select = [escape(name) for name in names] if 0 < len(names) < len(self.layers) else None
        level = self.level if names else Level(0.0, None)
        plan = replace(self.plan, levels=[level], select=select, seed=seed)
        chosen = [i for i, s in enumerate(self.subjects) if method in (None, s.method)]
        configuration = {
            **self.configuration,
            "levels": [level.value],
            "seed": seed,
            "weights": [self.configuration["weights"][i] for i in chosen],
            **describe_noisy(names or self.layers, self.parameters),
        }
        subjects = [self.subjects[i] for i in chosen]
        return replace(self, subjects=subjects, plan=plan, configuration=configuration)

    @property
    def jobs(self) -> int:
        """How many draws it takes."""
        return len(self.subjects) * len(self.plan.tasks())


class Conditions:
    """Evaluates a study under conditions, each into a folder of its own, where finished draws are kept.

    Args:
        study: with noise on all layers.
        how: how networks are run, settled once for all conditions.
        out: folder for the results; None keeps them in memory only.
        executor: where draws are computed; by default here, one after the other.
        bar: shows progress, of all conditions.
    """

    def __init__(
        self, study: Study, how: Settled, out: Path | None = None, executor: Executor | None = None, bar: Any = None
    ) -> None:
        self.study, self.how, self.out, self.bar = study, how, out, bar
        self.executor = _Counting(executor or Serial(), lambda: None if bar is None else bar.update())

    def draws(self, place: str, study: Study) -> pd.DataFrame:
        """Return the draws of a condition, with the columns of ``draws.csv``.

        Args:
            place: of its folder, below the one for parts.
            study: from :meth:`Study.narrowed`.
        """
        if self.out is None:
            forward = settled(study.forward, self.how)
            return as_result(run(study.subjects, forward, study.plan, executor=self.executor)).draws
        folder = self.out / PARTS / place
        if self.bar is not None:
            # They count as done before the bar was started: what is left is estimated from the others.
            done = sum(1 for _ in read_rows(folder))
            self.bar.initial += done
            self.bar.n += done
        given = study.subjects, study.forward, study.plan, study.configuration
        return run_into(folder, *given, executor=self.executor, how=self.how).draws

    def searched(self, kind: str, study: Study) -> pd.DataFrame:
        """Return the draws of a condition of a search, whose folder is named by what is noisy and whose weights.

        Args:
            kind: folder below the one for parts.
            study: from :meth:`Study.narrowed`, of one method.
        """
        if self.bar is not None:
            self.bar.total += study.jobs
        what = "\n".join([study.methods[0], *study.configuration["noisy_weights"]])
        return self.draws(f"{kind}/{hashlib.sha256(what.encode()).hexdigest()[:16]}", study)


def folder_of(layer: str) -> str:
    """Return the name of a layer as that of a folder.

    >>> folder_of("layer1.0.weight"), folder_of("a/b.weight")
    ('layer1.0.weight', 'a%2Fb.weight')
    """
    return quote(layer, safe="")


class _Counting(Executor):
    """Another executor, of whose finished jobs somebody is told."""

    def __init__(self, executor: Executor, tell: Callable[[], object]) -> None:
        self.executor, self.tell = executor, tell

    def map(self, work: Callable[[JobT], ResultT], jobs: Iterable[JobT | None]) -> Iterator[tuple[JobT, ResultT]]:
        """Yield each job with its result; see :class:`Executor`."""
        for done in self.executor.map(work, jobs):
            yield done
            self.tell()
