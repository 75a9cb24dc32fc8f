"""What an optimizer step costs, in time and memory, by method, over processes, and beside aihwkit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from timing import in_turns, medians, ratios, show
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import noiserobust as nr
from noiserobust.models.registry import build_model
from noiserobust.train.method import Method

RELATIVE = nr.GaussianNoise(0.015, reference="l2")
METHODS: dict[str, Method | None] = {
    "SGD": None,
    "RWP (<= 1.05)": nr.RWP(nr.GaussianNoise(0.05)),
    "ARWP (<= 1.08)": nr.ARWP(RELATIVE),
    "m-RWP (<= 2.08)": nr.RWP(RELATIVE, perturbed_weight=0.5),
    "SAM (<= 2.08)": nr.SAM(0.05),
}


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Return random images and labels."""
    x = torch.rand(size, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(10, (size,))


def stepper(
    model: nn.Module, method: Method | None, x: Tensor, y: Tensor, bf16: bool = False, **settings: bool
) -> Callable[[], object]:
    """Return a training step."""
    base = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    optimizer = nr.PerturbedOptimizer(base, method, model, **settings) if method else base

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    return lambda: optimizer.step(closure)  # type: ignore[arg-type]


def network(name: str) -> nn.Module:
    """Return a network in channels-last layout."""
    return build_model(name).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def step_time(name: str, bf16: bool, rounds: int) -> None:
    """Time the methods on one network."""
    x, y = batch(128)
    tasks = {label: stepper(network(name), method, x, y, bf16) for label, method in METHODS.items()}
    seconds = in_turns(tasks, rounds)
    print(f"\nTraining: a step of {name}, batch 128, {'bf16' if bf16 else 'fp32'}; median ratio over {rounds} rounds")
    for label, ratio in ratios(seconds, "SGD").items():
        print(f"  {label:<44} {sorted(seconds[label])[rounds // 2] * 1000:9.1f} ms   {ratio:6.3f} x")


def step_memory() -> None:
    """Measure the peak memory of training processes against that of SGD."""
    name = "resnet18"
    weights = sum(s.weight().nbytes for s in nr.find_sites(build_model(name)))
    peaks = {}
    # Memory that is freed goes back to the system at once, so that the peak is that of what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for label in METHODS:
        command = [sys.executable, __file__, "memory", name, label]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        peaks[label] = int(done.stdout)
    print(
        f"\nMemory: peak of a process that trains {name}, batch 64, beyond SGD's, in copies of the noisy weights (<= 1)"
    )
    for label, peak in peaks.items():
        extra = (peak - peaks["SGD"]) / weights
        print(f"  {label:<44} {peak / 2**20:9.0f} MiB   {extra:6.2f} copies")


def ranks() -> None:
    """Time m-RWP split over two processes against data-parallel SGD in two processes, each with the same batch."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, "rank"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print("\nTwo processes: a step of resnet20, 128 images each, fp32, one thread each")
    print(done.stdout.rstrip())


def aihwkit() -> None:
    """Time a step of aihwkit's hardware-aware training with additive weight noise and an ideal forward pass."""
    try:
        from aihwkit.nn.conversion import convert_to_analog
        from aihwkit.optim import AnalogSGD
        from aihwkit.simulator.configs import TorchInferenceRPUConfig
        from aihwkit.simulator.parameters.enums import WeightModifierType
    except ImportError:
        return
    config = TorchInferenceRPUConfig()
    config.modifier.type = WeightModifierType.ADD_NORMAL
    config.modifier.std_dev = 0.05
    config.modifier.rel_to_actual_wmax = True
    config.forward.is_perfect = True
    analog = convert_to_analog(build_model("resnet20"), config)
    optimizer = AnalogSGD(analog.parameters(), lr=0.01, momentum=0.9)
    x, y = batch(128)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(analog(x), y).backward()
        optimizer.step()

    tasks = {
        "RWP, max-scaled noise": stepper(network("resnet20"), nr.RWP(nr.GaussianNoise(0.05)), x, y),
        "aihwkit, ADD_NORMAL (>= 8)": step,
    }
    title = "Against aihwkit's hardware-aware training: a step of resnet20, batch 128, fp32"
    show(title, medians(tasks, 5), "RWP, max-scaled noise")


def training() -> None:
    """Run all of them."""
    step_time("resnet20", bf16=False, rounds=30)
    step_time("resnet20", bf16=True, rounds=40)
    step_time("resnet18", bf16=False, rounds=12)
    step_memory()
    ranks()
    aihwkit()


def _memory(name: str, label: str) -> None:
    x, y = batch(64)
    step = stepper(network(name), METHODS[label], x, y)
    for _ in range(3):
        step()
    status = Path("/proc/self/status").read_text(encoding="ascii")  # unlike ru_maxrss, without the parent's peak
    print(1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]))


def _rank() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    x, y = batch(128)
    split = nr.RWP(RELATIVE, perturbed_weight=0.5)
    tasks = {
        "data-parallel SGD": stepper(DistributedDataParallel(network("resnet20")), None, x, y),
        "m-RWP, split (<= 1.15)": stepper(DistributedDataParallel(network("resnet20")), split, x, y, split_ranks=True),
    }
    seconds = in_turns(tasks, 15)
    if dist.get_rank() == 0:
        for label, ratio in ratios(seconds, "data-parallel SGD").items():
            print(f"  {label:<44} {sorted(seconds[label])[7] * 1000:9.1f} ms   {ratio:6.3f} x")
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _rank() if sys.argv[1] == "rank" else _memory(*sys.argv[2:])
