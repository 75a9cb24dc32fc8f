"""Memory that is too short for a batch: smaller ones are taken, it is said, and the results are theirs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import EVALUATE, Forks, content
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import noiserobust as nr
from noiserobust.config import AugmentConfig, MethodConfig, NoiseConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.errors import OutOfMemoryError
from noiserobust.evaluate.api import make_forward
from noiserobust.models.weights import write_weights
from noiserobust.train.recipe import build_method
from noiserobust.train.trainer import Trainer

SHORT: dict[str, Callable[[], Exception]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nmore"),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you"),
    "numpy": lambda: MemoryError("Unable to allocate 2.00 GiB"),
    "c++": lambda: RuntimeError("std::bad_alloc"),
}


class Hungry(nn.Module):
    """Lets a limited number of examples through; passes of more fail as memory does.

    Args:
        most: examples a pass.
        when: where it fails: in the "forward" or the "backward" pass.
        short: returns the error.
    """

    def __init__(self, most: int, when: str = "forward", short: Callable[[], Exception] = SHORT["cuda"]) -> None:
        super().__init__()
        self.most, self.when, self.short = most, when, short
        self.failed = 0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most and (self.when == "forward" or (self.training and x.requires_grad)):
            if self.when == "forward":
                self.fail()
            x.register_hook(self.fail)
        return x

    def fail(self, *_: object) -> None:
        self.failed += 1
        raise self.short()


def network(*hungry: Hungry, norm: bool = True) -> nn.Sequential:
    """Return a small network with batch norm and dropout before, and with what is hungry at its end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU()]
        return nn.Sequential(*layers, nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3), *hungry)


def images(n: int) -> ArrayData:
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.normal(size=(n, 2, 4, 4)).astype(np.float32))
    return ArrayData(x, torch.from_numpy(generator.integers(0, 3, n)), "random")


def shortages(records: list[logging.LogRecord]) -> list[str]:
    return [r.getMessage() for r in records if "is short for" in r.getMessage()]


class TestEvaluation:
    def draws(self, model: nn.Module, **more: Any) -> pd.DataFrame:
        data = images(40)
        settings = {"noise": nr.GaussianNoise(0.3), "levels": [0, 0.3], "draws": 3, "metrics": "loss", **more}
        return nr.evaluate(model, settings.pop("data", (data.x, data.y)), **settings).draws

    @pytest.mark.parametrize("kind", SHORT)
    @pytest.mark.slow
    def test_batches_are_halved_until_they_fit_and_stay_so(self, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        hungry = Hungry(5, short=SHORT[kind])
        found = self.draws(network(hungry), batch_size=32)
        expected = self.draws(network(Hungry(40)), batch_size=4)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
        said = shortages(caplog.records)
        assert [line.split(":")[0] for line in said] == [
            f"memory of cpu is short for batches of {size}, going on with {size // 2}" for size in (32, 16, 8)
        ]
        assert all("\n" not in line for line in said)

    @pytest.mark.slow
    def test_the_weights_are_those_of_the_chip_and_the_model_is_left_alone(self) -> None:
        """A pass that failed is not redone on another chip, and leaves nothing behind."""
        model = network(Hungry(5))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        self.draws(model)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_values_of_single_examples(self) -> None:
        """As for chips that are run on some of the examples."""
        data, chosen = images(40), torch.arange(3, 40, 2)
        forward = make_forward(data, "none", "cpu", "fp32", 16)
        found = [
            forward.each(forward.network(network(*hungry).eval()), lambda scores, labels: scores, chosen)
            for hungry in ([], [Hungry(5)])
        ]
        assert found[0].shape == (len(chosen), 3)
        torch.testing.assert_close(*found)

    def test_where_the_results_depend_on_the_batches_they_stay_as_they_are(self) -> None:
        profile = nr.DeviceNoise.from_profile("pcm-hermes-2")
        with pytest.raises(OutOfMemoryError, match=r"`batch_size` 32, on which the results depend, to fit into .* cpu"):
            self.draws(network(Hungry(5)), noise=profile, levels=["1d"], reads="batch", batch_size=32)

    @pytest.mark.slow
    def test_not_even_one_example(self) -> None:
        with pytest.raises(
            OutOfMemoryError, match=r"one example at a time to fit into the memory of cpu, but got: CUDA"
        ):
            self.draws(network(Hungry(0)), batch_size=8)

    def test_the_batches_of_a_loader_are_its_own(self) -> None:
        data = images(40)
        loader = DataLoader(TensorDataset(data.x, data.y), batch_size=20)
        with pytest.raises(OutOfMemoryError, match="give the DataLoader a smaller `batch_size`"):
            self.draws(network(Hungry(5)), data=loader)

    def test_an_error_that_is_none_of_memory_is_said_as_before(self) -> None:
        with pytest.raises(nr.NoiseRobustError, match=r"a batch of shape .* failed: shape mismatch"):
            self.draws(network(Hungry(5, short=lambda: RuntimeError("shape mismatch"))))


NOISE = NoiseConfig("gaussian", 0.2)
METHODS = {
    "sgd": MethodConfig("sgd"),
    "sam": MethodConfig("sam", rho=0.1),
    "asam, mixed": MethodConfig("asam", perturbed_weight=0.5),
    "rwp": MethodConfig("rwp", noise=NOISE, schedule=ScheduleConfig("linear", steps=7)),
    "m-rwp, two batches": MethodConfig("rwp", noise=NOISE, perturbed_weight=0.5, two_batches=True),
    "rwp, draws, dropout": MethodConfig("rwp", noise=NOISE, draws=2, same_dropout=True),
    "m-arwp": MethodConfig("arwp", noise=NOISE, eta=2.0, beta=0.9, perturbed_weight=0.5),
    "was": MethodConfig("was"),
}


class FailsLater(Hungry):
    """Lets some passes through before memory gets short: in the middle of a step, or after some."""

    def __init__(self, after: int, **how: Any) -> None:
        super().__init__(4, **how)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        self.after -= 1
        return super().forward(x) if self.after < 0 else x


def trainer(settings: TrainConfig, *hungry: Hungry, norm: bool = True) -> Trainer:
    return Trainer(network(*hungry, norm=norm), images(44), settings, Normalize())


def config(method: MethodConfig, **more: Any) -> TrainConfig:
    settings = {"optimizer": OptimizerConfig(lr=0.1), "epochs": 2, "batch_size": 8, **more}
    return TrainConfig("net", "random", method=method, augment=AugmentConfig(crop=1, flip=True), **settings)


def trained(training: Trainer) -> list[dict[str, Any]]:
    rows = [epoch.as_row() for epoch in training.epochs()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


MOMENTS = [(name, 0, "forward") for name in METHODS]
MOMENTS += [(name, build_method(method).passes - 1, "backward") for name, method in METHODS.items()]
"""Each method, after how many passes of its first step memory gets short, and where in the next one."""


class TestTraining:
    @pytest.mark.parametrize(("method", "after", "when"), MOMENTS)
    def test_it_goes_on_as_if_it_had_had_micro_batches_from_the_start(
        self, method: str, after: int, when: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Dropout, statistics of batch norm, noise and memory: all is as before the step that failed."""
        small = trainer(config(METHODS[method], accumulate=2, epochs=1))
        hungry = FailsLater(after, when=when)
        short = trainer(config(METHODS[method], epochs=1), hungry)
        found, expected = trained(short), trained(small)
        assert hungry.failed == 1
        assert found == expected
        assert {row["micro_batches"] for row in found} == {2}
        assert same(short.model, small.model)
        (said,) = shortages(caplog.records)
        assert said.startswith("memory of cpu is short for micro-batches of 8, going on with 2 of 4 a step: CUDA out")

    @pytest.mark.parametrize("method", ["m-rwp, two batches", "m-arwp"])
    def test_in_the_middle_of_an_epoch(self, method: str) -> None:
        """The steps before are those of whole batches, and those after of half ones; what is remembered is kept."""
        settings, hungry = config(METHODS[method]), FailsLater(7)
        short, whole = trainer(settings, hungry), trainer(settings)

        def divide() -> None:  # after three steps of two passes
            if whole.progress.epoch == 1 and whole.progress.index == 3:
                whole.parts = whole._parts(2)

        list(whole.epochs(divide))
        assert [row["micro_batches"] for row in trained(short)] == [2, 2]
        assert same(short.model, whole.model)

    @pytest.mark.slow
    def test_as_often_as_it_takes(self, caplog: pytest.LogCaptureFixture) -> None:
        short = trainer(config(METHODS["sam"], batch_size=20), Hungry(3), norm=False)
        small = trainer(config(METHODS["sam"], batch_size=20, accumulate=10), norm=False)
        assert [row["micro_batches"] for row in trained(short)] == [10, 10]  # 20, 10, 5 and no half of 5
        trained(small)
        assert same(short.model, small.model)
        assert len(shortages(caplog.records)) == 3

    def test_a_training_that_is_resumed_has_as_many(self) -> None:
        settings = config(METHODS["m-arwp"])
        first, second, small = (
            trainer(settings, FailsLater(0)),
            trainer(settings),
            trainer(replace(settings, accumulate=2)),
        )
        rows = first.epochs()
        next(rows)
        second.load_state_dict(first.state_dict())
        trained(second)
        trained(small)
        assert same(second.model, small.model)

    @pytest.mark.parametrize(
        ("norm", "said"), [(False, "micro-batch of 1 example to"), (True, "micro-batch of 2 examples to")]
    )
    @pytest.mark.slow
    def test_not_even_the_smallest(self, norm: bool, said: str) -> None:
        with pytest.raises(OutOfMemoryError, match=said):
            trained(trainer(config(METHODS["rwp"]), Hungry(0), norm=norm))

    def test_m_sharpness_is_a_matter_of_the_micro_batches(self) -> None:
        with pytest.raises(OutOfMemoryError, match="stays as it is with m-sharpness: `accumulate` says it, here 2"):
            trained(trainer(config(MethodConfig("sam", per_micro_batch=True), accumulate=2), Hungry(3)))

    def test_chips_stay_as_they_are(self, caplog: pytest.LogCaptureFixture) -> None:
        """Micro-batches of one chip share its noise: they are those of a training that had them from the start."""
        settings = config(MethodConfig("rwp", noise=NOISE, chips=2), batch_size=24, epochs=1)
        short, small = trainer(settings, Hungry(6)), trainer(replace(settings, accumulate=4))
        assert [row["micro_batches"] for row in trained(short) + trained(small)] == [4, 4]
        assert same(short.model, small.model)
        more = trainer(replace(settings, method=replace(settings.method, chips=4)))
        trained(more)
        assert not same(more.model, small.model)
        (said,) = shortages(caplog.records)
        assert "is short for micro-batches of 12, going on with 4 of 6 a step" in said

    @pytest.mark.slow
    def test_the_weights_are_the_clean_ones_after_the_error(self) -> None:
        training = trainer(config(METHODS["rwp"]), Hungry(0))
        before = {name: value.clone() for name, value in training.model.state_dict().items()}
        with pytest.raises(OutOfMemoryError):
            trained(training)
        assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())

    def test_an_error_that_is_none_of_memory_is_raised(self) -> None:
        with pytest.raises(RuntimeError, match="shape mismatch"):
            trained(trainer(config(METHODS["rwp"]), Hungry(0, short=lambda: RuntimeError("shape mismatch"))))


LIMITED = """
import os, resource
from torch import nn

def net():
    if room := os.environ.get("ROOM"):  # MiB beyond what is there by now
        there = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (there + (int(room) << 20), resource.RLIM_INFINITY))
    return nn.Sequential(nn.Conv2d(1, 2048, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8192, 10))
"""


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
class TestARealLimit:
    """The system refuses memory to a process: half a MiB an example is too much for a batch of hundreds."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "net.py").write_text(LIMITED)
        write_weights(tmp_path / "w.safetensors", nr.build_model(f"{tmp_path}/net.py:net"), {})
        return tmp_path

    def test_of_an_evaluation(self, forks: Forks, folder: Path) -> None:
        words = [*EVALUATE, "--model", "net.py:net", "--weights", "w.safetensors", "--draws", "2", "--batch-size"]
        short = forks.run(*words, "797", "--out", "short", folder=folder, ROOM="500")
        assert short.status == 0, short.err
        assert "memory of cpu is short for batches of 797, going on with 398: " in short.err
        assert forks.run(*words, "50", "--out", "small", folder=folder).status == 0
        assert content(folder / "short")["draws.csv"] == content(folder / "small")["draws.csv"]

    def test_of_a_training(self, forks: Forks, folder: Path) -> None:
        words = ["train", "--model", "net.py:net", "--data", "digits", "--epochs", "1", "--batch_size", "256"]
        words += ["--method.name", "sam", "--accumulate"]
        short = forks.run(*words, "1", "--out", "short", folder=folder, ROOM="400")
        assert short.status == 0, short.err
        assert "memory of cpu is short for micro-batches of 256, going on with 2 of 128 a step: " in short.err
        micro = pd.read_csv(folder / "short" / "seed0" / "metrics.csv")["micro_batches"].item()
        assert micro in (2, 4, 8)
        assert forks.run(*words, micro, "--out", "small", folder=folder).status == 0
        one, other = (load_file(folder / out / "seed0" / "last.safetensors") for out in ("short", "small"))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_that_is_too_tight(self, forks: Forks, folder: Path) -> None:
        words = ["train", "--model", "net.py:net", "--data", "digits", "--epochs", "1", "--method.name", "sam"]
        end = forks.run(*words, "--batch_size", "256", "--out", "out", folder=folder, ROOM="1")
        assert end.status == 2, end.err
        assert "memory" in end.complaint
        assert end.complaint.startswith("noiserobust: error: Expected ")
        assert "Traceback" not in end.err
