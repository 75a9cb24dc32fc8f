"""What it costs to put a network on the devices of a chip, beside aihwkit's own one-shot calls."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from timing import in_turns, medians, medians_of, ratios, show
from torch import nn

import noiserobust as nr
from noiserobust.models.registry import build_model
from noiserobust.noise.sites import find_sites
from noiserobust.perturb import displaced, noisy_weights

DAY = 86400.0
TIMES = [1.0, 3600.0, DAY, 2629800.0, 31557600.0]


def devices() -> None:
    """Run all benchmarks of devices."""
    model = build_model("resnet18")
    for name, limit in (("pcm-nandakumar-2019", "<= 1.3"), ("pcm-hermes-2", "< 1"), ("reram-cmo-fine", "< 1")):
        programming(model, name, limit)
    followed(model)


def programming(model: nn.Module, name: str, limit: str) -> None:
    """Time one chip at one time against the model of aihwkit, weight by weight."""
    noise = nr.DeviceNoise.from_profile(name, DAY)
    tasks = {f"{name} ({limit})": applied(model, noise)}
    baseline = f"aihwkit {name}"
    try:
        theirs = aihwkit_model(name)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"\naihwkit is not at hand: {error}")
        show("Programming a ResNet-18", medians(tasks, 5), next(iter(tasks)))
        return
    matrices = [site.view.matrix(site.weight()) for site in find_sites(model)]
    tasks[baseline] = lambda: [theirs.apply_noise(m, DAY) for m in matrices]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = in_turns(tasks, 5)
    show("Programming a ResNet-18 (11 M weights), one time", medians_of(seconds), baseline)
    print(f"  median ratio {ratios(seconds, baseline)[next(iter(tasks))]:.2f}")


def followed(model: nn.Module) -> None:
    """Time one chip at five times against one time."""
    for name in ("pcm-nandakumar-2019", "pcm-hermes-2", "reram-cmo-fine"):
        noise = nr.DeviceNoise.from_profile(name, DAY)
        one, five = f"{name}, one time", f"{name}, five times (<= 2)"
        seconds = in_turns({one: read(model, noise, [DAY]), five: read(model, noise, TIMES)}, 5)
        show("A chip followed through time: ResNet-18", medians_of(seconds), one)


def applied(model: nn.Module, noise: nr.Noise) -> Callable[[], object]:
    """Return what puts a model on a chip and takes it back."""
    sites = find_sites(model)

    def task() -> None:
        with displaced(noisy_weights(sites, noise, nr.Stream(0))):
            pass

    return task


def read(model: nn.Module, noise: nr.DeviceNoise, times: list[float]) -> Callable[[], object]:
    """Return what programs a chip and puts the model on it at each of the times."""

    def task() -> None:
        chip = noise.program(model)
        for t in times:
            with nr.perturbed(model, chip.at(t)):
                pass

    return task


def aihwkit_model(name: str) -> Any:
    """Return aihwkit's model of a profile."""
    from aihwkit.inference.noise.hermes import HermesNoiseModel
    from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
    from aihwkit.inference.noise.reram import ReRamCMONoiseModel

    return {
        "pcm-nandakumar-2019": lambda: PCMLikeNoiseModel(g_max=25.0),
        "pcm-hermes-2": lambda: HermesNoiseModel(num_devices=2),
        "reram-cmo-fine": lambda: ReRamCMONoiseModel(acceptance_range=0.2, g_max=88.2, g_min=9.0),
    }[name]()
