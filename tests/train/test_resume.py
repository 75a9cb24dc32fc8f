"""A training that is interrupted anywhere and goes on ends with the weights it would have had anyway, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from small_models import cnn, same_bits, snapshot

from noiserobust.config import (
    AugmentConfig,
    AverageConfig,
    ClipConfig,
    MethodConfig,
    NoiseConfig,
    OptimizerConfig,
    ScheduleConfig,
    SelectConfig,
    TrainConfig,
)
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.errors import InvalidValueError, MissingFileError, OutputError
from noiserobust.train import runs
from noiserobust.train.checkpoint import CHECKPOINT_FILE, read_checkpoint, write_checkpoint
from noiserobust.train.trainer import Trainer

NOISE = NoiseConfig("gaussian", 0.2)
METHODS = {
    "sgd": MethodConfig("sgd"),
    "sam": MethodConfig("sam", rho=0.1),
    "sam mixed, m-sharpness": MethodConfig("sam", perturbed_weight=0.5, per_micro_batch=True),
    "asam": MethodConfig("asam"),
    "rwp": MethodConfig("rwp", noise=NOISE),
    "m-rwp, two batches": MethodConfig("rwp", noise=NOISE, perturbed_weight=0.5, two_batches=True),
    "rwp, laplace, draws": MethodConfig("rwp", noise=NoiseConfig("laplace", 0.1), draws=2, same_dropout=True),
    "rwp, two chips": MethodConfig("rwp", noise=NOISE, chips=2),
    "rwp, level range": MethodConfig("rwp", noise=NOISE, level_range=[0.0, 0.3]),
    "arwp": MethodConfig("arwp", noise=NOISE, eta=2.0, beta=0.9),
    "m-arwp": MethodConfig("arwp", noise=NOISE, eta=2.0, beta=0.9, perturbed_weight=0.5),
    "was": MethodConfig("was"),
}
SCHEDULES = {
    "constant": ScheduleConfig(),
    "linear, steps": ScheduleConfig("linear", steps=7),
    "quadratic": ScheduleConfig("quadratic", fraction=0.7),
    "power": ScheduleConfig("power", power=0.5, start=0.1),
    "cosine": ScheduleConfig("cosine"),
    "off-to-on": ScheduleConfig("off-to-on", fraction=0.5),
}


def data(n: int = 44) -> ArrayData:
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.normal(size=(n, 2, 4, 4)).astype(np.float32))
    return ArrayData(x, torch.from_numpy(generator.integers(0, 3, n)), "random")


def config(method: MethodConfig, schedule: ScheduleConfig = SCHEDULES["constant"], **more: object) -> TrainConfig:
    settings = {
        "optimizer": OptimizerConfig(lr=0.1),
        "epochs": 3,
        "batch_size": 8,
        "accumulate": 2,
        "augment": AugmentConfig(crop=1, flip=True),
        **more,
    }
    if method.name != "sgd":
        method = MethodConfig(**{**vars(method), "schedule": schedule})
    return TrainConfig("net", "random", method=method, **settings)


class Rising:
    """A held-out score that needs nothing but the weights."""

    def __call__(self, model: torch.nn.Module) -> tuple[float, float]:
        return 0.0, float(sum(p.detach().double().abs().sum() for p in model.parameters()))


def trainer(settings: TrainConfig) -> Trainer:
    return Trainer(cnn(), data(), settings, Normalize(), score=Rising())


def finished(training: Trainer, tick=lambda: None) -> list[dict[str, object]]:
    rows = [epoch.as_row() for epoch in training.epochs(tick)]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


class Stop(Exception):
    pass


def interrupted_at(settings: TrainConfig, step: int, file: Path) -> tuple[Trainer, list[dict[str, object]]]:
    """Train until ``step``, throw all away but the state, and train on from it in a new trainer."""
    first = trainer(settings)
    count = 0
    rows = []

    def tick() -> None:
        nonlocal count
        count += 1
        if count == step:
            write_checkpoint(file, {"trainer": first.state_dict(), "epochs": []})
            raise Stop

    try:
        for epoch in first.epochs(tick):
            rows.append({k: v for k, v in epoch.as_row().items() if k != "seconds"})
    except Stop:
        pass
    torch.rand(7)  # what another process may have done with the global generator
    second = trainer(settings)
    second.load_state_dict(read_checkpoint(file)["trainer"])
    return second, rows + finished(second)


CASES = [(m, "constant") for m in METHODS] + [
    (m, s) for m in ("sam", "rwp", "m-arwp", "was") for s in SCHEDULES if s != "constant"
]


@pytest.mark.parametrize(("method", "schedule"), CASES)
def test_every_method_and_schedule_goes_on_to_the_same_weights(method: str, schedule: str, tmp_path: Path) -> None:
    settings = config(METHODS[method], SCHEDULES[schedule])
    whole = trainer(settings)
    expected = finished(whole)
    for step in (3, 5, 11):  # 5 steps an epoch: within the first, at the end of it, within the last
        resumed, rows = interrupted_at(settings, step, tmp_path / "state.pt")
        assert same_bits(snapshot(whole.model), snapshot(resumed.model))
        assert same_bits(whole.best_state, resumed.best_state)
        assert rows == expected


@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": OptimizerConfig("adamw", lr=0.01)},
        {"lr_schedule": "one-cycle"},
        {"lr_schedule": "constant"},
        {"clip": ClipConfig(grad_norm=0.5, weight_stds=2.0)},
        {"average": AverageConfig(0.8)},
        {"precision": "bf16"},
        {"precision": "fp16"},
    ],
    ids=str,
)
def test_every_setting_goes_on_to_the_same_weights(more: dict[str, object], tmp_path: Path) -> None:
    settings = config(METHODS["m-arwp"], SCHEDULES["quadratic"], **more)
    whole = trainer(settings)
    finished(whole)
    resumed, _ = interrupted_at(settings, 8, tmp_path / "state.pt")
    assert same_bits(snapshot(whole.model), snapshot(resumed.model))
    assert same_bits(whole.kept.state_dict(), resumed.kept.state_dict())
    assert same_bits(whole.best_state, resumed.best_state)


@pytest.mark.parametrize("forgotten", ["model", "optimizer", "lr_schedule", "progress", "generators", "best_model"])
def test_each_part_of_the_state_is_needed(forgotten: str) -> None:
    settings = config(METHODS["m-arwp"], SCHEDULES["linear, steps"])
    falling = {"score": lambda model: (0.0, -Rising()(model)[1])}  # the first epoch stays the best
    whole, first, second = (Trainer(cnn(), data(), settings, Normalize(), **falling) for _ in range(3))
    fresh = second.state_dict() | {"generators": {}}
    finished(whole)
    ticks = iter(range(8))

    def tick() -> None:
        if next(ticks) == 7:
            raise Stop

    with pytest.raises(Stop):
        finished(first, tick)
    second.load_state_dict(first.state_dict() | {forgotten: fresh[forgotten]})
    finished(second)
    same = same_bits(snapshot(whole.model), snapshot(second.model)) and same_bits(whole.best_state, second.best_state)
    assert not same


def npz_config(folder: Path, **more: object) -> TrainConfig:
    (folder / "net.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), "
        "nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3))\n"
    )
    arrays = data(80)
    np.savez(folder / "data.npz", x=arrays.x.numpy(), y=arrays.y.numpy())
    method = MethodConfig(**{**vars(METHODS["m-arwp"]), "schedule": SCHEDULES["quadratic"]})
    return TrainConfig(
        f"{folder / 'net.py'}:net",
        f"npz:{folder / 'data.npz'}",
        method=method,
        optimizer=OptimizerConfig(lr=0.1),
        batch_size=8,
        select=SelectConfig(draws=1),
        **{"epochs": 3, "augment": AugmentConfig(crop=1, flip=True), **more},
    )


def train(settings: TrainConfig, out: Path, **more: object) -> None:
    score = {"make_score": lambda *_: Rising(), "device": torch.device("cpu")}
    runs.train_seeds(settings, [0], out, **{**score, **more})


def test_resume_insists_on_a_training(tmp_path: Path) -> None:
    settings = npz_config(tmp_path)
    with pytest.raises(MissingFileError, match="to hold a training to resume"):
        train(settings, tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()
    train(settings, tmp_path / "out")
    train(settings, tmp_path / "out", resume=True)


def test_a_damaged_checkpoint_is_named_and_never_run(tmp_path: Path) -> None:
    settings = npz_config(tmp_path)
    train(settings, tmp_path / "out")
    seed = tmp_path / "out" / "seed0"
    (seed / "last.safetensors").unlink()
    for content in (b"", b"PK\x03\x04 not a checkpoint", b"cos\nsystem\n(S'touch harm'\ntR."):
        (seed / CHECKPOINT_FILE).write_bytes(content)
        with pytest.raises(InvalidValueError, match=r"\.checkpoint\.pt to hold the state of this training"):
            train(settings, tmp_path / "out")
    (seed / CHECKPOINT_FILE).unlink()
    train(settings, tmp_path / "out")
    assert (seed / "last.safetensors").exists()


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / CHECKPOINT_FILE
    write_checkpoint(file, {"trainer": {"w": torch.full((1000,), 0.3)}, "epochs": []})
    content = bytearray(file.read_bytes())
    content[content.index(np.float32(0.3).tobytes()) + 400] ^= 1
    file.write_bytes(content)
    with pytest.raises(InvalidValueError, match="or is damaged"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["trainer"].pop("optimizer"),
        lambda s: s["trainer"]["progress"].update(epoch=None),
        lambda s: s["trainer"]["model"].popitem(),
        lambda s: s.update(trainer=None),
        lambda s: s.update(epochs=None),
        lambda s: s.update(epochs=[]),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = npz_config(tmp_path)
    file = tmp_path / "out" / "seed0" / CHECKPOINT_FILE
    monkeypatch.setattr(runs, "write_weights", lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        train(settings, tmp_path / "out")
    state = read_checkpoint(file)
    change(state)
    write_checkpoint(file, state)
    with pytest.raises(InvalidValueError, match="to hold the state of this training"):
        train(settings, tmp_path / "out")


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = npz_config(tmp_path)
    train(settings, tmp_path / "whole")
    saves = iter(range(99))

    def full(path: Path, content: bytes) -> None:
        if next(saves) == 11:
            raise OutputError(f"Expected to be able to write {path}, but got: No space left on device")
        write(path, content)

    from noiserobust.train import checkpoint

    write = checkpoint.write_atomic
    monkeypatch.setattr(checkpoint, "write_atomic", full)
    with pytest.raises(OutputError, match="No space left"):
        train(settings, tmp_path / "out", checkpoint_seconds=0)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "out" / "seed0" / CHECKPOINT_FILE)["trainer"]["progress"]["epoch"] == 2
    train(settings, tmp_path / "out", resume=True)
    for name in ("best", "last"):
        one, other = (load_file(tmp_path / o / "seed0" / f"{name}.safetensors") for o in ("whole", "out"))
        assert same_bits(one, other)


RUN = """
import sys
from pathlib import Path
from test_resume import npz_config, train
train(npz_config(Path(sys.argv[1]), epochs=60), Path(sys.argv[2]), checkpoint_seconds=0)
"""


@pytest.mark.thorough
def test_twenty_kills_at_random_moments_leave_no_trace(tmp_path: Path) -> None:
    settings = npz_config(tmp_path, epochs=60)
    train(settings, tmp_path / "whole")
    out = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    moments = random.Random(0)
    steps = [(0, 0)]
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), str(out)], env=environment)
        try:
            for _ in range(moments.randint(1, 12)):  # steps, not seconds: no machine is fast enough to end first
                seen = place(out)
                while place(out) == seen and process.poll() is None:
                    time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.01))
            assert process.poll() is None, "the training ended before it could be killed"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        steps.append(place(out))
        assert steps[-1] > steps[-2]
    train(settings, out, resume=True)
    for name in ("best", "last"):
        one, other = (load_file(folder / "seed0" / f"{name}.safetensors") for folder in (tmp_path / "whole", out))
        assert same_bits(one, other)
    columns = ["epoch", "steps", "lr", "strength", "train_loss", "held_out_perturbed_accuracy", "best"]
    tables = [pd.read_csv(folder / "seed0" / "metrics.csv")[columns] for folder in (tmp_path / "whole", out)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert sorted(p.name for p in (out / "seed0").iterdir()) == ["best.safetensors", "last.safetensors", "metrics.csv"]


def place(out: Path) -> tuple[int, int]:
    """Return epoch and step of the last checkpoint."""
    file = out / "seed0" / CHECKPOINT_FILE
    if not file.exists():
        return 0, 0
    progress = read_checkpoint(file)["trainer"]["progress"]
    return progress["epoch"], progress["index"]


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["sgd", "rwp --method.perturbed_weight 0.5 --method.split_ranks true"])
def test_two_processes_train_as_one(method: str, tmp_path: Path) -> None:
    common = ["train", "--model", "digits-mlp", "--data", "digits", "--epochs", "2", "--seeds", "0", "1"]
    common += ["--method.name", *method.split()]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = [word for word in common if word not in ("--method.split_ranks", "true")]
    for out in ("two", "two"):  # the second time all is finished
        subprocess.run([*launch, "noiserobust", *common, "--out", str(tmp_path / out)], check=True, env=environment)
    subprocess.run(
        [sys.executable, "-m", "noiserobust", *alone, "--out", str(tmp_path / "one")], check=True, env=environment
    )
    for seed in ("seed0", "seed1"):
        one, two = (load_file(tmp_path / out / seed / "last.safetensors") for out in ("one", "two"))
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
        assert len(list((tmp_path / "two" / seed).iterdir())) == 3


THREADS = """
import sys
from pathlib import Path
import torch.distributed as dist
from noiserobust.cli import main

def threads():
    return {task.name for task in Path("/proc/self/task").iterdir()}

before, found, init, destroy = set(), [], dist.init_process_group, dist.destroy_process_group
dist.init_process_group = lambda *a: (before.update(threads()), init(*a), found.append(threads() - before))
dist.destroy_process_group = lambda: (destroy(), found.append(found[0] & threads()))
assert main(sys.argv[1:]) == 0
assert found[0] and not found[1], found
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_threads_of_the_process_group_end_with_it(tmp_path: Path) -> None:
    """One that is still there when the interpreter ends may abort the process."""
    command = ["train", "--model", "digits-mlp", "--data", "digits", "--epochs", "1", "--method.name", "rwp"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (tmp_path / "threads.py").write_text(THREADS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, tmp_path / "threads.py", *command, "--out", tmp_path / "out"], check=True, env=environment)
