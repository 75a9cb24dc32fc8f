"""A draw of evaluate beside plain loops and aihwkit's torch tiles; executors beside the ideal division of work."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from timing import in_turns, medians_of, show
from torch import Tensor, nn

import noiserobust as nr
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.evaluate.draws import Draws
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.plan import Plan, Subject, parse_levels
from noiserobust.evaluate.settle import settle, settled
from noiserobust.executors import make_executor
from noiserobust.models.registry import build_model
from noiserobust.threads import cores

JOBS, SECONDS = 200, 1.0


def engine() -> None:
    """Time a draw of evaluate against a plain loop over the same images, in fp32, batches of 500."""
    n = 2000
    for name, rounds in (("resnet20", 5), ("resnet18", 2)):
        x, y = torch.rand(n, 3, 32, 32), torch.randint(10, (n,))
        model = build_model(name).eval()
        data = ArrayData(x, y, "random")
        tasks: dict[str, Callable[[], object]] = {"plain loop, fp32, batch 500": partial(plain, model, x)}
        for precision, wanted in (("fp32", 1.9), ("bf16", 3.3)):
            forward = Forward(data, Normalize(), torch.device("cpu"), precision)
            for label, noise in (
                ("Gaussian", nr.GaussianNoise(0.05)),
                ("PCM", nr.DeviceNoise.from_profile("pcm-nandakumar-2019")),
            ):
                plan = Plan(noise, parse_levels(noise, [noise.level]), 10**6, 0)
                subject = Subject("m", 0, "w", lambda model=model: model)  # type: ignore[misc]
                ready = settled(forward, settle(subject, forward, plan))
                draws = Draws([subject], ready, plan)
                tasks[f"one draw, {precision}, {label} (plain loop >= {wanted} x)"] = partial(draws, (0, 0, 0))
            network = draws.network(0)
            tasks[f"bare folded forward, {precision}"] = partial(ready.measure, network)
        seconds = in_turns(tasks, rounds)
        first = next(iter(tasks))
        show(f"Evaluation: {name}, {n:,} images", medians_of(seconds), first)
        times = medians_of(seconds)
        for task, taken in times.items():
            if "one draw" in task:
                more = taken / times[f"bare folded forward, {task.split(', ')[1]}"] - 1
                print(f"  {task}: {times[first] / taken:.2f} x as fast, {100 * more:+.1f} % noise and bookkeeping")
        fastest = min(taken for task, taken in times.items() if "one draw" in task and "Gaussian" in task)
        beside_tiles(model, x, fastest)


def plain(model: nn.Module, x: Tensor) -> None:
    """Run a model over images as most people would."""
    with torch.inference_mode():
        for batch in x.split(500):
            model(batch)


def beside_tiles(model: nn.Module, x: Tensor, draw: float) -> None:
    """Time aihwkit's torch tiles with an ideal forward pass, on the same weights and a part of the images.

    Args:
        model: the model.
        x: all images.
        draw: seconds of our draw on all of them.
    """
    try:
        from aihwkit.nn.conversion import convert_to_analog
        from aihwkit.simulator.configs import TorchInferenceRPUConfig
    except (ImportError, OSError, RuntimeError) as error:
        print(f"\naihwkit is not at hand: {error}")
        return
    configuration = TorchInferenceRPUConfig()
    configuration.forward.is_perfect = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiles = convert_to_analog(model, configuration, inplace=False).eval()
    part = x[: len(x) // 5]
    seconds = medians_of(in_turns({"tiles": partial(plain, tiles, part)}, 2))["tiles"] * len(x) / len(part)
    print(f"  aihwkit torch tiles, ideal forward: {seconds:.1f} s, our draw is {seconds / draw:.0f} x as fast (>= 45)")


def burn(job: int) -> int:
    """Keep a core busy for a second of its time."""
    end = time.process_time() + SECONDS
    while time.process_time() < end:
        sum(range(1000))
    return job


def executors() -> None:
    """Time many jobs of a second on all cores against what they would take if workers had nothing else to do."""
    ideal = JOBS * SECONDS / cores()
    times = {f"{JOBS} jobs of {SECONDS:g} s on {cores()} cores, ideal": ideal}
    for name in ("processes", "ray"):
        start = time.perf_counter()
        done = sorted(job for job, _ in make_executor(name).map(burn, range(JOBS)))
        times[f"{name} (<= 1.10)"] = time.perf_counter() - start
        assert done == list(range(JOBS))
    show("Executors, with the start and the end of workers", times, next(iter(times)), "s")
