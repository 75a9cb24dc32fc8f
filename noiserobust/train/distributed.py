"""Several processes: what DistributedDataParallel needs to be told, and which rank does what."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from noiserobust.errors import InvalidValueError, StateError
from noiserobust.models.batchnorm import statistics

_SET_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """Which of several processes this is.

    Args:
        rank: of this process, >= 0.
        world: number of processes, >= 1.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads and writes results."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model, in DistributedDataParallel if there are several processes."""
        return model if self.world == 1 else DistributedDataParallel(model)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def from_leader(self, values: Tensor) -> Tensor:
        """Return the first process's values in all of them."""
        if self.world > 1:
            dist.broadcast(values, 0)
        return values

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that torchrun started, if it did; yield which one this is, and its device.

    Raises:
        InvalidValueError: if another launcher left out what torchrun sets in the environment.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(), device
        return
    missing = [name for name in _SET_BY_TORCHRUN if name not in os.environ]
    if missing:
        raise InvalidValueError(
            f"Expected the environment to hold what torchrun sets, since WORLD_SIZE is {world}, but got no "
            + ", ".join(missing)
        )
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    importlib.import_module("torch.distributed.nn")  # later its functions would hold the group as a default argument
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world), device
        dist.barrier()  # none leaves while another still sends
    finally:
        # Its threads end with its last reference, and models that are garbage in a cycle hold some. A thread that still
        # let go of a tensor while the interpreter ends would abort the process.
        gc.collect()
        dist.destroy_process_group()


def data_parallel(model: nn.Module) -> DistributedDataParallel | None:
    """Return the DistributedDataParallel that a model is, compiled or not, or None."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, DistributedDataParallel) else None


def place(model: nn.Module) -> tuple[int, int]:
    """Return which rank of a DistributedDataParallel this is, and of how many; the only one without."""
    parallel = data_parallel(model)
    if parallel is None:
        return 0, 1
    return dist.get_rank(parallel.process_group), dist.get_world_size(parallel.process_group)


def local_gradients(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which passes of a DistributedDataParallel do not average gradients over ranks."""
    parallel = data_parallel(model)
    return nullcontext() if parallel is None else parallel.no_sync()


def shares_memory(model: nn.Module) -> bool:
    """Return whether the gradients live in memory that the next backward pass overwrites."""
    parallel = data_parallel(model)
    return parallel is not None and bool(parallel.gradient_as_bucket_view)


def average_(gradients: Iterable[Tensor], model: nn.Module) -> None:
    """Replace gradients that were kept local by their mean over ranks."""
    parallel = data_parallel(model)
    if parallel is not None:
        for gradient in gradients:
            dist.all_reduce(gradient, group=parallel.process_group)
            gradient.div_(dist.get_world_size(parallel.process_group))


def share_statistics(model: nn.Module) -> None:
    """Give all ranks the running statistics of the first: each sees only its own, or none, in a split step."""
    parallel = data_parallel(model)
    buffers = statistics(model)
    if parallel is None or not buffers:
        return
    flat = torch.cat([b.detach().double().flatten() for b in buffers])  # one message; float64 holds counts too
    dist.broadcast(flat, group=parallel.process_group, group_src=0)
    with torch.no_grad():
        for buffer, value in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(value.view(buffer.shape))


def check_whole(model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Raise InvalidValueError if parameters are sharded over ranks: no rank could measure or restore them."""
    sharded = any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules())
    if sharded or any(hasattr(p, "device_mesh") for p in parameters):
        raise InvalidValueError(
            "Expected parameters to be whole on each rank (DistributedDataParallel), but they are sharded"
        )


def noisy_rank(model: nn.Module) -> int | None:
    """Return which of the noisy ranks this one is in a split of clean and perturbed pass, or None for a clean rank.

    Even ranks compute the clean gradient, odd ranks the perturbed one.

    Source: Li et al., TNNLS 2024, Algorithm 1 and the paragraph below it.

    Raises:
        StateError: without a process group.
        InvalidValueError: if the model is not in DistributedDataParallel, its batch norm goes over ranks, or the
            number of ranks is odd.
    """
    if not dist.is_initialized():
        raise StateError("Expected a process group for `split_ranks`, but there is none; start with torchrun")
    if data_parallel(model) is None:
        raise InvalidValueError(
            f"Expected `model` to be in DistributedDataParallel for `split_ranks`, but got {type(model).__name__}"
        )
    if any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        raise InvalidValueError("Expected batch norm to stay on its rank with `split_ranks`, but got SyncBatchNorm")
    rank, world = place(model)
    if world % 2:
        raise InvalidValueError(f"Expected an even number of ranks for `split_ranks`, but got {world}")
    return rank // 2 if rank % 2 else None
