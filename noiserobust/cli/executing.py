"""Arguments of where jobs are done, for the verbs that have many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from noiserobust.errors import check_integer

if TYPE_CHECKING:
    import torch

    from noiserobust.executors import Executor


def add_executing(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--executor", type=str, default="serial", help="serial, processes (of this machine) or ray")
    parser.add_argument("--workers", type=int, help="jobs at a time, of processes and ray; default: one for each core")
    parser.add_argument("--address", type=str, help="of a Ray cluster; auto: the one that this machine is part of")
    parser.add_argument(
        "--gpus", type=float, help="GPUs of each job with ray; 0.25 lets four jobs share one; default: 1 on a GPU"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each job, >= 1; default: 1")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda:0, ...")


def executing(settings: Namespace) -> tuple[Executor, torch.device]:
    """Return where jobs are done, and on what device.

    Raises:
        InvalidValueError: if one of the arguments is not valid, or does not go with the others.
    """
    import torch

    from noiserobust.evaluate.forward import pick_device
    from noiserobust.executors import make_executor

    check_integer("threads", settings.threads, minimum=1)
    executor = make_executor(settings.executor, settings.workers, settings.address, settings.gpus)
    # The GPUs of a cluster need not be those of this machine.
    elsewhere = settings.gpus is not None and settings.device == "auto"
    return executor, torch.device("cuda") if elsewhere else pick_device(settings.device)
