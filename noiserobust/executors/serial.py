"""One job after the other, here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from noiserobust.executors.base import Executor, JobT, ResultT


class Serial(Executor):
    """Does jobs in this process, in their order; what a job raises is raised at once."""

    def map(self, work: Callable[[JobT], ResultT], jobs: Iterable[JobT]) -> Iterator[tuple[JobT, ResultT]]:
        """Yield each job with its result; see :class:`Executor`."""
        for job in jobs:
            yield job, work(job)
