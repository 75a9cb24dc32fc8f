"""Processes of this machine, which share the cores and the memory of large tensors."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from io import BytesIO
from pathlib import Path
from typing import Any

import cloudpickle

from noiserobust.endings import heed, without_ctrl_c
from noiserobust.errors import NoiseRobustError, OutputError
from noiserobust.executors.base import (
    DIED,
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
from noiserobust.results.files import write_errors
from noiserobust.results.lock import FolderLock
from noiserobust.threads import cores

_log = logging.getLogger(__name__)

_LARGE = 1 << 20  # bytes
_PREFIX = "noiserobust-"

_work: Callable[[Any], Any]  # of a worker


class Processes(Executor):
    """Does jobs in several processes, which divide the cores among them.

    Args:
        workers: how many; by default one for each core.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or cores()

    def map(self, work: Callable[[JobT], ResultT], jobs: Iterable[JobT | None]) -> Iterator[tuple[JobT, ResultT]]:
        """Yield each job with its result; see :class:`Executor`."""
        waiting, suspects, tries = Waiting(jobs), Waiting[JobT](()), Counter[JobT]()
        failures: dict[JobT, str] = {}
        with write_errors(Path(os.environ.get("TMPDIR", "temporary files"))):
            _remove_left_over()
            shared = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")
        with shared as folder:
            lock = FolderLock(Path(folder))  # until this process ends, however it ends
            packed = pickled(work, lambda file: _SharingPickler(file, Path(folder)))
            workers = waiting.at_hand(self.workers) or 1
            while waiting or suspects:
                pool = _pool(workers, packed)
                running: dict[Future[Any], JobT] = {}
                try:
                    while waiting or suspects or running:
                        heed()
                        # Who killed a worker is not known among several: suspects run alone.
                        queue, most = (suspects, 1) if suspects else (waiting, workers + 2)
                        while len(running) < most and queue:
                            job = queue.take()
                            try:
                                with without_ctrl_c():  # workers are started here
                                    future = pool.submit(_call, job)
                            except BrokenProcessPool:  # a worker has just died
                                queue.give_back(job)
                                raise
                            running[future] = job
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            job = running[future]
                            try:
                                result = future.result()
                            except (NoiseRobustError, BrokenProcessPool):
                                raise
                            except Exception as error:
                                failures[job] = reason(error)
                            else:
                                yield job, result
                            del running[future]
                except BrokenProcessPool:
                    _log.info("a worker died; %d jobs are done again", len(running))
                    alone = len(running) == 1
                    workers = self.workers  # how many jobs are to come may not be known at this moment
                    for job in running.values():
                        tries[job] += alone
                        if tries[job] < TRIES:
                            suspects.give_back(job)
                        else:
                            failures[job] = DIED
                finally:
                    pool.shutdown(wait=True, kill_workers=True)
            lock.release()
        if failures:
            raise FailedJobsError(failures)


def _pool(workers: int, packed: bytes) -> Any:
    from loky.process_executor import ProcessPoolExecutor

    threads = max(cores() // workers, 1)
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["LOKY_MAX_MEMORY_LEAK_SIZE"] = "1e18"  # a network that is loaded for its first job is no leak
    return ProcessPoolExecutor(
        workers, initializer=_begin, initargs=(packed, search_path(), threads, os.getpid()), env=environment
    )


def _begin(packed: bytes, path: list[str], threads: int, parent: int) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import torch
    from tqdm import tqdm

    begin(path)
    tqdm.set_lock(threading.RLock())  # its own, for several processes, would be left over when this one is killed
    torch.set_num_threads(threads)
    try:
        _work = _SharingUnpickler(BytesIO(packed)).load()
    except Exception as error:
        _work = unusable(error)


def _end_with(parent: int) -> None:
    """End this worker when its parent was killed: nobody would ever give it a job or an end."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _remove_left_over() -> None:
    """Remove what a killed evaluation has left in the folder for temporary files."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not pid.isdecimal() or Path("/proc", pid).exists() or not Path("/proc/self").exists():
            continue
        try:  # the process may be one that cannot be seen from here, of another container
            lock = FolderLock(folder)
        except OutputError:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _call(job: Any) -> Any:
    return _work(job)


class _SharingPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes large tensors to files, which processes map into their memory: they are there once."""

    def __init__(self, file: Any, folder: Path) -> None:
        super().__init__(file)
        self.folder = folder

    def persistent_id(self, value: Any) -> Any:
        """Return the path of the file of a large tensor, None for anything else."""
        import torch

        if type(value) is not torch.Tensor or value.device.type != "cpu" or value.requires_grad:
            return None
        if value.numel() * value.element_size() < _LARGE:
            return None
        with write_errors(self.folder):
            descriptor, path = tempfile.mkstemp(dir=self.folder)
            with open(descriptor, "wb") as file:
                try:
                    torch.save(value, file)
                except RuntimeError as error:  # it says where it was in the file, and not what the system has said
                    raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        return path


class _SharingUnpickler(pickle.Unpickler):
    def persistent_load(self, path: Any) -> Any:
        import torch

        return torch.load(path, mmap=True, weights_only=True)
