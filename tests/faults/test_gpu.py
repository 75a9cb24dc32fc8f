"""A GPU whose memory really is too short for a batch; and what it computes is what the CPU computes.

Without a CUDA device these tests are skipped. Memory is made short by the limit that torch's allocator keeps for a
process, from what smaller batches have been seen to take: no other process of the machine is disturbed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import noiserobust as nr
from noiserobust.config import MethodConfig, NoiseConfig, OptimizerConfig, TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.digits import load_digits
from noiserobust.data.normalize import Normalize
from noiserobust.errors import OutOfMemoryError
from noiserobust.evaluate.heldout import held_out_score
from noiserobust.train.runs import train_seeds
from noiserobust.train.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

DEVICE = "cuda"
BATCH = 800
NOISE = NoiseConfig("gaussian", 0.05)
METHODS = {
    "sgd": MethodConfig("sgd"),
    "sam": MethodConfig("sam", rho=0.05),
    "rwp": MethodConfig("rwp", noise=NOISE),
    "m-rwp": MethodConfig("rwp", noise=NOISE, perturbed_weight=0.5, same_dropout=True),
    "m-arwp": MethodConfig("arwp", noise=NOISE, perturbed_weight=0.5),
}


@pytest.fixture(autouse=True)
def reproducible() -> Iterator[None]:
    """Have convolutions that give the same numbers each time, in all bits of float32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def digits(split: str, times: int = 8) -> ArrayData:
    """Return the digits as colour images, each pixel made a square: networks need memory for them."""
    small = load_digits(split)
    large = small.x.repeat_interleave(times, 2).repeat_interleave(times, 3).expand(-1, 3, -1, -1)
    return ArrayData((large * 255).to(torch.uint8).contiguous(), small.y, "digits")


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Dropout(0.1), nr.build_model("resnet20"))  # masks drawn on the GPU


def give_back() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def peak(run: Callable[[], object]) -> int:
    """Return how many bytes the GPU holds at most while something runs, all that was there before included."""
    give_back()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated()


@contextmanager
def room_for(needed: int) -> Iterator[None]:
    """Let this process have little more GPU memory than is needed: what else it holds may not fit its blocks."""
    give_back()
    limit = 1.25 * needed + (64 << 20)
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def shortages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "is short for" in r.getMessage()]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A network that knows the digits, so that few examples are undecided."""
    plain, optimizer = MethodConfig("sgd"), OptimizerConfig(lr=0.1)
    config = TrainConfig("net", "digits", method=plain, optimizer=optimizer, epochs=4, batch_size=100)
    model = network()
    for _ in Trainer(model, digits("train", 4), config, Normalize(), device=torch.device(DEVICE)).epochs():
        pass
    return model.cpu()


class TestEvaluation:
    def draws(self, model: nn.Module, batch_size: int, device: str = DEVICE, times: int = 8) -> pd.DataFrame:
        data = digits("test", times)
        settings = {"noise": nr.GaussianNoise(0.05), "levels": [0, 0.03, 0.06], "draws": 2}
        settings |= {"metrics": ["accuracy", "loss"], "batch_size": batch_size, "device": device}
        return nr.evaluate(model, (data.x, data.y), **settings).draws

    def test_batches_that_do_not_fit_are_halved(self, trained: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
        expected: list[pd.DataFrame] = []
        needed = peak(lambda: expected.append(self.draws(trained, BATCH // 8)))
        with room_for(needed):
            found = self.draws(trained, BATCH)
        said = shortages(caplog)
        assert said, "memory was not short"
        assert said[0].startswith(f"memory of cuda is short for batches of {BATCH}, going on with {BATCH // 2}: ")
        assert len(said) <= 3  # batches of an eighth did fit
        keys = ["metric", "level", "draw"]
        one, other = (frame.set_index(keys)["value"].unstack("metric") for frame in (found, expected[0]))
        assert (one["accuracy"] - other["accuracy"]).abs().max() <= 0.1
        assert np.allclose(one["loss"], other["loss"], rtol=1e-3)

    def test_the_rest_of_the_process_has_its_memory_again(self, trained: nn.Module) -> None:
        """Nothing of the batches that failed is kept."""
        small = peak(lambda: self.draws(trained, BATCH // 8))
        give_back()
        before = torch.cuda.memory_allocated()
        with room_for(small):
            self.draws(trained, BATCH)
        give_back()
        assert torch.cuda.memory_allocated() - before <= 1 << 20

    def test_not_even_one_example_fits(self, trained: nn.Module) -> None:
        one = torch.zeros(4, 3, 1024, 1024, dtype=torch.uint8)  # of which a layer has 64 MiB an example
        give_back()
        with (
            room_for(torch.cuda.memory_reserved()),
            pytest.raises(OutOfMemoryError, match="one example at a time to fit into the memory of cuda"),
        ):
            nr.evaluate(trained, (one, torch.arange(4)), noise=nr.GaussianNoise(0.05), batch_size=4, device=DEVICE)

    def test_the_gpu_finds_what_the_cpu_finds_on_the_same_chips(self, trained: nn.Module) -> None:
        found, expected = (self.draws(trained, 100, device, times=4) for device in ("cuda", "cpu"))
        assert list(found.columns) == list(expected.columns)
        accuracy = expected["metric"] == "accuracy"
        assert expected.value[accuracy].max() > 90
        examples = (found.value - expected.value)[accuracy].abs() / 100 * expected.n_examples[accuracy]
        assert examples.max() <= 3.001
        assert np.allclose(found.value[~accuracy], expected.value[~accuracy], rtol=1e-2)


def config(method: MethodConfig, **more: Any) -> TrainConfig:
    settings = {"optimizer": OptimizerConfig(lr=0.05), "epochs": 2, "batch_size": BATCH // 2, "held_out": 0.0, **more}
    return TrainConfig("resnet20", "digits", method=method, **settings)


def train(settings: TrainConfig, into: list[Any] | None = None) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Return what is said of each epoch, and the weights and statistics in the end."""
    training = Trainer(network(), digits("train"), settings, Normalize(), device=torch.device(DEVICE))
    rows = [epoch.as_row() for epoch in training.epochs()]
    result = rows, {name: value.detach().cpu() for name, value in training.model.state_dict().items()}
    if into is not None:
        into.append(result)
    return result


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return how far apart the weights are."""
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one if "num_b" not in name)


class TestTraining:
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    @pytest.mark.parametrize("method", METHODS)
    def test_steps_that_do_not_fit_are_divided(
        self, method: str, precision: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Weights, statistics of batch norm, dropout and the scale of losses are those of micro-batches from the start.

        Rounding may differ with the memory that convolutions have to work in; whole batches, which have other
        statistics, are much further away.
        """
        settings = config(METHODS[method], precision=precision)
        needed = peak(lambda: train(config(METHODS[method], precision=precision, accumulate=8)))
        whole = train(settings)
        with room_for(needed):
            found = train(settings)
        said = shortages(caplog)
        assert said, "memory was not short"
        assert said[0].startswith(f"memory of cuda is short for micro-batches of {BATCH // 2}, going on with 2 of ")
        (micro,) = {row["micro_batches"] for row in found[0]}
        assert micro in (2, 4, 5, 8)
        expected = train(config(METHODS[method], precision=precision, accumulate=micro))
        assert [row["passes"] for row in found[0]] == [row["passes"] for row in expected[0]]
        assert all(np.isfinite(row["train_loss"]) for row in found[0])
        assert all(value.isfinite().all() for value in found[1].values())
        assert distance(found[1], expected[1]) < 0.1 * distance(whole[1], expected[1])
        counts = [n for n in found[1] if n.endswith("num_batches_tracked")]
        assert all(torch.equal(found[1][n], expected[1][n]) for n in counts)  # passes that failed are not counted

    @pytest.mark.parametrize("method", ["sgd", "sam", "rwp"])
    def test_a_whole_training_into_a_folder(
        self, method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Also with held-out examples, whose batches are an evaluation's."""
        images = digits("train")
        np.savez(tmp_path / "data.npz", x=images.x.permute(0, 2, 3, 1).numpy(), y=images.y.numpy())

        def run(name: str, **more: Any) -> pd.DataFrame:
            settings = TrainConfig(
                "resnet20",
                f"npz:{tmp_path / 'data.npz'}",
                method=METHODS[method],
                optimizer=OptimizerConfig(lr=0.05),
                epochs=2,
                batch_size=BATCH // 2,
                held_out=0.2,
                **more,
            )
            train_seeds(settings, [0], tmp_path / name, make_score=held_out_score, device=torch.device(DEVICE))
            return pd.read_csv(tmp_path / name / "seed0" / "metrics.csv")

        needed = peak(lambda: run("small", accumulate=8))
        with room_for(needed):
            found = run("short")
        assert any("short for micro-batches of" in line for line in shortages(caplog))
        (micro,) = set(found["micro_batches"])
        expected = run("expected", accumulate=int(micro))
        assert np.allclose(found["train_loss"], expected["train_loss"], rtol=1e-2)
        one, other = (load_file(tmp_path / name / "seed0" / "last.safetensors") for name in ("short", "expected"))
        assert distance(one, other) < 0.01
