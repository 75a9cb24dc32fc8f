"""A Ray cluster: this machine, or many."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from noiserobust.errors import InvalidValueError, MissingDependencyError, NoiseRobustError
from noiserobust.executors.base import (
    TRIES,
    Executor,
    FailedJobsError,
    JobT,
    ResultT,
    Waiting,
    begin,
    pickled,
    reason,
    search_path,
    unusable,
)

_log = logging.getLogger(__name__)


class Ray(Executor):
    """Does jobs in actors of a cluster.

    Args:
        workers: how many; by default as many as the CPUs of the cluster, or its GPUs if jobs compute on them, have room
            for.
        address: of the cluster, as ``ray.init`` takes it; by default one is started on this machine, for these jobs.
        gpus: of each worker, > 0; a fraction lets several have one. By default 1 if jobs compute on a GPU, else none.
    """

    def __init__(self, workers: int | None = None, address: str | None = None, gpus: float | None = None) -> None:
        self.workers = workers
        self.address = address
        self.gpus = gpus

    def map(self, work: Callable[[JobT], ResultT], jobs: Iterable[JobT | None]) -> Iterator[tuple[JobT, ResultT]]:
        """Yield each job with its result; see :class:`Executor`."""
        ray = _ray()
        mine = not ray.is_initialized()
        if mine:
            try:
                ray.init(address=self.address, log_to_driver=False, include_dashboard=False, configure_logging=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InvalidValueError(
                    f"Expected a Ray cluster at `address`, but got {self.address!r}: {reason(error)}"
                ) from None
        try:
            yield from self._map(ray, work, Waiting(jobs))
        finally:
            if mine:
                ray.shutdown()

    def _map(self, ray: Any, work: Callable[[JobT], ResultT], waiting: Waiting[JobT]) -> Iterator[tuple[JobT, ResultT]]:
        gpus = self.gpus or (1 if getattr(getattr(work, "device", None), "type", "cpu") == "cuda" else 0)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # Several share one GPU, but none has parts of two.
        room = sum(int(node.get("GPU", 0) / gpus) if gpus else int(node.get("CPU", 0)) for node in nodes)
        if not room:
            raise InvalidValueError(
                f"Expected a cluster with {f'{gpus:g} GPUs for a worker' if gpus else 'CPUs'}, but it has none"
            )
        workers = waiting.at_hand(min(self.workers or room, room)) or 1
        # Each worker has a share of the CPUs of some machine, and as many threads.
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        share = max(min(sum(cpus) // workers, max(cpus, default=1)), 1)
        Worker = ray.remote(num_cpus=share, num_gpus=gpus)(_Worker)
        packed = [ray.put(pickled(work))]  # in a list: fetched by the worker

        starting: dict[Any, Any] = {}
        free: list[Any] = []

        def start() -> None:
            actor = Worker.remote(packed, search_path(), share)
            starting[actor.ready.remote()] = actor

        for _ in range(workers):
            start()
        running: dict[Any, tuple[Any, JobT]] = {}
        broken = 0
        tries, failures = Counter[JobT](), dict[JobT, str]()
        while waiting or running:
            while free and waiting:  # one job each: who dies, dies of its own
                actor, job = free.pop(), waiting.take()
                running[actor.call.remote(job)] = actor, job
            # Where there is no room for a worker, the others do its jobs.
            for reference in ray.wait([*running, *starting])[0]:
                if reference in starting:
                    actor = starting.pop(reference)
                    try:
                        ray.get(reference)
                    except ray.exceptions.RayError as error:  # its machine is gone, or it cannot import what it needs
                        if not waiting:
                            continue
                        broken += 1
                        if broken > TRIES * workers:
                            raise FailedJobsError(dict.fromkeys(waiting.drop(), reason(error))) from None
                        start()
                    else:
                        free.append(actor)
                    continue
                actor, job = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, NoiseRobustError):
                        raise error.cause from None
                    failures[job] = reason(error.cause)
                except ray.exceptions.RayError as error:
                    _log.info("a worker died, and is replaced: %s", reason(error))
                    start()
                    tries[job] += 1
                    if tries[job] < TRIES:
                        waiting.give_back(job)
                    else:
                        failures[job] = f"its worker died each time, {reason(error)}"
                    continue
                else:
                    yield job, result
                free.append(actor)
        if failures:
            raise FailedJobsError(failures)


class _Worker:
    def __init__(self, packed: list[Any], path: list[str], threads: int) -> None:
        import pickle

        import ray
        import torch

        begin(path)
        torch.set_num_threads(threads)
        try:
            self.work = pickle.loads(ray.get(packed[0]))  # what this program itself has written
        except Exception as error:
            self.work = unusable(error)

    def ready(self) -> None:
        return

    def call(self, job: Any) -> Any:
        return self.work(job)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            f"Expected Ray to be installed for the executor ray, but got: {error}; try: pip install 'noiserobust[ray]'"
        ) from error
    return ray
