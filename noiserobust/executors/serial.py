"""One job after the other, here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from noiserobust.endings import heed
from noiserobust.executors.base import Executor, JobT, ResultT, Waiting


class Serial(Executor):
    """Does jobs in this process, in their order; what a job raises is raised at once."""

    def map(self, work: Callable[[JobT], ResultT], jobs: Iterable[JobT | None]) -> Iterator[tuple[JobT, ResultT]]:
        """Yield each job with its result; see :class:`Executor`."""
        waiting, ahead = Waiting(jobs), getattr(work, "ahead", None)
        while waiting:
            heed()
            job = waiting.take()
            if ahead and (following := waiting.next()) is not None:
                ahead(following)
            yield job, work(job)
