"""Where jobs are done: here, in processes of this machine, or on a Ray cluster; the results are the same."""

from __future__ import annotations

from noiserobust.errors import InvalidValueError, check_choice, check_integer, check_number
from noiserobust.executors.base import Executor, FailedJobsError
from noiserobust.executors.processes import Processes
from noiserobust.executors.ray import Ray
from noiserobust.executors.serial import Serial

EXECUTORS = ("serial", "processes", "ray")

__all__ = ["EXECUTORS", "Executor", "FailedJobsError", "make_executor"]


def make_executor(
    name: str, workers: int | None = None, address: str | None = None, gpus: float | None = None
) -> Executor:
    """Return an executor.

    Args:
        name: ``"serial"``, ``"processes"`` or ``"ray"``.
        workers: how many work at the same time, >= 1; by default one for each core that this process may use, or for
            each CPU (GPU, for jobs that need one) of the cluster.
        address: of a Ray cluster, ``"auto"`` for the one this machine is part of; by default one is started here.
        gpus: of each worker of a Ray cluster, > 0, such as 0.25; by default 1 for jobs that compute on a GPU.

    Raises:
        InvalidValueError: if one of these is not valid, or does not go with the executor.
    """
    check_choice("executor", name, EXECUTORS)
    if workers is not None:
        check_integer("workers", workers, minimum=1)
    if name == "serial" and workers is not None:
        raise InvalidValueError("Expected `workers` with the executors processes and ray only, but got serial")
    if name != "ray" and address is not None:
        raise InvalidValueError(f"Expected `address` with the executor ray only, but got {name}")
    if gpus is not None:
        check_number("gpus", gpus, above=0)
        if name != "ray":
            raise InvalidValueError(f"Expected `gpus` with the executor ray only, but got {name}")
        if gpus > 1 and gpus != int(gpus):
            raise InvalidValueError(f"Expected `gpus` to be a fraction of one or a whole number, but got {gpus!r}")
    if name == "serial":
        return Serial()
    return Processes(workers) if name == "processes" else Ray(workers, address, gpus)
