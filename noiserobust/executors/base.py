"""What an executor does."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from noiserobust.errors import InvalidValueError, NoiseRobustError

JobT = TypeVar("JobT", bound=Hashable)
ResultT = TypeVar("ResultT")

TRIES = 3
"""How often a job is begun whose worker dies."""

DIED = "its worker died each time; memory may have been short, for which systems kill, and fewer `workers` need less"


class FailedJobsError(NoiseRobustError, RuntimeError):
    """Some jobs could not be done; the others were."""

    def __init__(self, failures: dict[Any, str]) -> None:
        job, reason = next(iter(failures.items()))
        self.failures = failures
        super().__init__(
            f"Expected all jobs to be done, but {len(failures)} failed, the first, {job}, with: {reason}; what is "
            "finished is kept, the same command tries the others again"
        )


class Executor(ABC):
    """Does jobs, each of which gives the same result wherever it is done."""

    @abstractmethod
    def map(self, work: Callable[[JobT], ResultT], jobs: Iterable[JobT | None]) -> Iterator[tuple[JobT, ResultT]]:
        """Yield each job with its result as soon as it is done, in any order.

        A job whose worker dies is tried again, :data:`TRIES` times in all; the others go on.

        Args:
            work: does a job; copied to each worker once. Where it is known which job is next, a method ``ahead`` of it
                is called with that before the present one.
            jobs: small, distinct; asked for when there is somebody to do them. None says that the next one is not known
                before others are done.

        Raises:
            NoiseRobustError: what a job raises of this kind, at once: bad input is bad for all.
            FailedJobsError: after all others are done, if jobs failed in another way.
        """


class Waiting(Generic[JobT]):
    """Jobs that nobody does yet.

    Args:
        jobs: as for :meth:`Executor.map`.
    """

    def __init__(self, jobs: Iterable[JobT | None]) -> None:
        self._jobs = iter(jobs)
        self._at_hand = deque[JobT]()

    def __bool__(self) -> bool:
        return self.at_hand(1) > 0

    def at_hand(self, number: int) -> int:
        """Return how many jobs can be begun now, up to a number."""
        while len(self._at_hand) < number and (job := next(self._jobs, None)) is not None:
            self._at_hand.append(job)
        return min(len(self._at_hand), number)

    def take(self) -> JobT:
        """Return the next one, of which there has to be one at hand."""
        self.at_hand(1)
        return self._at_hand.popleft()

    def next(self) -> JobT | None:
        """Return the one that will be taken next, None if it is not known."""
        return self._at_hand[0] if self.at_hand(1) else None

    def give_back(self, job: JobT) -> None:
        """Let a job be done again."""
        self._at_hand.append(job)

    def drop(self) -> list[JobT]:
        """Return all that is at hand, which nobody will do."""
        dropped = list(self._at_hand)
        self._at_hand.clear()
        return dropped


def reason(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def search_path() -> list[str]:
    """Return where this process finds modules, the folders of the user's own files among them."""
    files = [getattr(module, "__file__", None) for module in _users()]
    return [*sys.path, os.getcwd(), *(os.path.dirname(file) for file in files if file)]


def begin(path: list[str]) -> None:
    """Let a worker import what the process that asked for it can import, where files are the same."""
    sys.path += [entry for entry in path if entry not in sys.path]


def unusable(error: Exception) -> Callable[[Any], Any]:
    """Return what a worker does that could not load its work: it says so, once and for all."""
    told = f"Expected workers to be able to load what they need, but got: {reason(error)}"

    def work(job: Any) -> Any:
        raise InvalidValueError(told)

    return work


def _users() -> list[Any]:
    return [m for name, m in list(sys.modules.items()) if name.startswith("_noiserobust_user_")]


def pickled(value: Any, pickler: Any = None) -> bytes:
    """Return a value as bytes that another process understands which has none of the user's own files imported."""
    import io

    import cloudpickle

    own = _users()
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        buffer = io.BytesIO()
        (pickler or cloudpickle.Pickler)(buffer).dump(value)
        return buffer.getvalue()
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
