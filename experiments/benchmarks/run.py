"""What the package costs beside what has to be done anyway, as ratios within one run.

    make bench

Each figure is the median over rounds in which the compared things take turns, so that a machine that slows down slows
all of them. Timings in ms or s are of this machine and this moment; the ratios are what can be compared.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import torch
from devices import devices
from diagnose import diagnose
from engine import engine, executors
from report import report
from timing import medians, show
from torch import nn
from training import training

import noiserobust as nr
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.montecarlo import run
from noiserobust.evaluate.plan import Plan, Subject, parse_levels
from noiserobust.models.registry import build_model
from noiserobust.noise.sites import find_sites
from noiserobust.perturb import displaced, noisy_weights


def command_line() -> None:
    """Time ``noiserobust --help``."""

    def spawn(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    tasks = {
        "python -c pass": spawn("-c", "pass"),
        "noiserobust --help (must stay below 400 ms)": spawn("-m", "noiserobust", "--help"),
        "import torch": spawn("-c", "import torch"),
    }
    show("Command line", medians(tasks, 5), "python -c pass")


def chips() -> None:
    """Time one noise draw of all weights of a ResNet-20."""
    model = build_model("resnet20")
    sites = find_sites(model)
    noises: dict[str, nr.Noise] = {
        "GaussianNoise": nr.GaussianNoise(0.05),
        "GaussianNoise, tile": nr.GaussianNoise(0.05, granularity="tile", tile=(128, 128)),
        "LaplaceNoise": nr.LaplaceNoise(0.05),
        "DeviceNoise pcm-nandakumar-2019": nr.DeviceNoise.from_profile("pcm-nandakumar-2019"),
    }

    def draw(noise: nr.Noise) -> Callable[[], object]:
        def task() -> None:
            with displaced(noisy_weights(sites, noise, nr.Stream(0))):
                pass

        return task

    tasks = {name: draw(noise) for name, noise in noises.items()}
    tasks["torch.randn_like of every weight, added"] = lambda: [
        s.weight() + 0.05 * torch.randn_like(s.weight()) for s in sites
    ]
    show("One chip: noise on a ResNet-20, applied and taken back", medians(tasks, 15), "GaussianNoise")


def evaluation() -> None:
    """Time a Monte-Carlo draw against the bare forward pass it contains."""
    x, y = torch.rand(2000, 3, 32, 32), torch.randint(10, (2000,))
    model = build_model("resnet20").eval()
    forward = Forward(ArrayData(x, y, "random"), Normalize(), torch.device("cpu"))
    placed = forward.place(model)
    batches = [b.contiguous(memory_format=torch.channels_last) for b in x.split(100)]
    noise = nr.GaussianNoise(0.05)
    plan = Plan(noise, parse_levels(noise, [0.05]), 1, 0)

    def bare(model: nn.Module, batches: tuple[torch.Tensor, ...] | list[torch.Tensor]) -> None:
        with torch.inference_mode():
            for batch in batches:
                model(batch)

    tasks = {
        "bare forward, same batches and layout": lambda: bare(placed, batches),
        "one draw of evaluate": lambda: run([Subject("m", 0, "w", lambda: model)], forward, plan),
        "plain loop, batch 500, contiguous": lambda: bare(model, x.split(500)),
    }
    show("Evaluation: ResNet-20, 2,000 images, fp32", medians(tasks), "bare forward, same batches and layout")


def calibration() -> None:
    """Time what each chip costs if it is calibrated first, with 500 images, beside one that is not."""
    x, y = torch.rand(2000, 3, 32, 32), torch.randint(10, (2000,))
    model = build_model("resnet20").eval()
    forward = Forward(ArrayData(x, y, "random"), Normalize(), torch.device("cpu"))
    noise = nr.DeviceNoise.from_profile("pcm-nandakumar-2019")
    levels = parse_levels(noise, ["1d"])
    subject = Subject("m", 0, "w", lambda: model)
    kinds = [None, *(nr.Calibration(kind, torch.rand(500, 3, 32, 32)) for kind in ("batchnorm", "layer", "column"))]

    def chips(calibration: nr.Calibration | None) -> Callable[[], object]:
        # Two chips: the outputs without noise are measured once for both.
        plan = Plan(noise, levels, 2, 0, calibration=calibration)
        return lambda: run([subject], forward, plan)

    tasks = {kind.kind if kind else "no calibration": chips(kind) for kind in kinds}
    show("Calibration: ResNet-20, two PCM chips, 2,000 images", medians(tasks, 3), "no calibration")


def main() -> None:
    """Run all benchmarks."""
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians over turns")
    for benchmark in (
        command_line,
        chips,
        devices,
        evaluation,
        engine,
        executors,
        calibration,
        training,
        diagnose,
        report,
    ):
        benchmark()


if __name__ == "__main__":
    main()
