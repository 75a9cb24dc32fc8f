"""What is recorded while a training goes on: against plain formulas, and without a trace in the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.config import MethodConfig, NoiseConfig, RecordConfig, ScheduleConfig, TrainConfig
from noiserobust.diagnose.recorder import Recorder
from noiserobust.diagnose.sample import Looks
from noiserobust.diagnose.travel import Travel
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.heldout import held_out_score
from noiserobust.results.diagnostics import DIAGNOSTICS_DTYPES, QUANTITIES, read_diagnostics
from noiserobust.train.runs import train_seeds

MODEL = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
"""
METHODS = {
    "sgd": MethodConfig("sgd"),
    "sam": MethodConfig("sam", rho=0.3, schedule=ScheduleConfig("linear")),
    "m-rwp": MethodConfig("rwp", noise=NoiseConfig("gaussian", 0.1), perturbed_weight=0.5, draws=2),
    "arwp": MethodConfig("arwp", noise=NoiseConfig("gaussian", 0.1)),
}


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 6)).astype("float32"), rng.integers(0, 3, 60)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    (tmp_path / "model.py").write_text(MODEL)
    record = RecordConfig(every=3, batches=2, levels=[0.1, 0.3], rhos=[0.2], draws=3)
    return TrainConfig(
        f"{tmp_path}/model.py:net",
        f"npz:{tmp_path}/data.npz",
        method=MethodConfig("sgd"),
        epochs=2,
        batch_size=8,
        held_out=0.2,
        record=record,
    )


def run(config: TrainConfig, out: Path, make: Callable[..., Any] = Recorder.of, **more: Any) -> pd.DataFrame:
    given: dict[str, Any] = {"make_score": held_out_score, "device": torch.device("cpu"), "make_recorder": make}
    train_seeds(config, [1], out, **given, **more)
    recorded = out / "seed1" / "diagnostics.csv"
    return read_diagnostics(recorded) if recorded.exists() else pd.DataFrame()


@pytest.mark.parametrize("method", METHODS)
def test_a_recorded_training_ends_with_the_very_weights(method: str, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, method=METHODS[method])
    before = torch.random.get_rng_state()
    frame = run(config, tmp_path / "recorded")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not len(run(replace(config, record=RecordConfig()), tmp_path / "plain"))
    for name in ("best", "last"):
        a, b = (load_file(tmp_path / run / "seed1" / f"{name}.safetensors") for run in ("recorded", "plain"))
        assert all(torch.equal(a[key], b[key]) for key in a)
    steps = 2 * (48 // 8)
    assert list(dict.fromkeys(frame["step"])) == [0, 3, 6, 9, steps]
    assert list(dict.fromkeys(frame["epoch"])) == [0, 0.5, 1, 1.5, 2]
    absent = set() if method != "sgd" else {"cosine", "perturbed_loss", "gradient_sharpness", "full_strength_loss"}
    assert set(frame["quantity"]) == set(QUANTITIES) - absent - ({"perturbation_norm"} if method == "sgd" else set())
    assert {"loss", "accuracy", "average_sharpness"} == set(frame[frame["split"] == "held-out"]["quantity"])


def test_a_training_that_is_killed_records_what_an_undisturbed_one_does(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, method=METHODS["arwp"])
    whole = run(config, tmp_path / "whole")

    class Killed(Exception):
        pass

    def stops(*given: Any) -> Recorder:
        recorder = Recorder.of(*given)
        step = recorder.step

        def once() -> None:
            step()
            if recorder.optimizer.steps == 8:
                raise Killed

        recorder.step = once  # type: ignore[method-assign]
        return recorder

    with pytest.raises(Killed):
        run(config, tmp_path / "cut", stops, checkpoint_seconds=0)
    assert not (tmp_path / "cut/seed1/last.safetensors").exists()
    run(config, tmp_path / "cut")
    files = [(tmp_path / folder / "seed1/diagnostics.csv").read_bytes() for folder in ("whole", "cut")]
    assert files[0] == files[1]
    assert len(whole)


def test_other_recordings_are_other_configurations_and_none_leaves_no_trace(
    config: TrainConfig, tmp_path: Path
) -> None:
    run(config, tmp_path / "a")
    with pytest.raises(InvalidValueError, match=r"record\.every"):
        run(replace(config, record=replace(config.record, every=4)), tmp_path / "a")
    assert "record" not in replace(config, record=RecordConfig()).as_dict()
    with pytest.raises(InvalidValueError, match="make_recorder"):
        train_seeds(config, [0], tmp_path / "b", make_score=held_out_score, device=torch.device("cpu"))


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).double()


def batches(number: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(seed)
    return [
        (torch.from_numpy(rng.normal(size=(10, 6))), torch.from_numpy(rng.integers(0, 3, 10))) for _ in range(number)
    ]


def plain_loss(
    weights: dict[str, Tensor], model: nn.Module, batch: tuple[Tensor, Tensor], *, as_trained: bool = False
) -> Tensor:
    """The loss at other weights, with the running statistics or with those of the batch, written out."""
    x, y = batch
    x = x @ weights["0.weight"].T + weights["0.bias"]
    mean, var = (x.mean(0), x.var(0, correction=0)) if as_trained else (model[1].running_mean, model[1].running_var)
    x = ((x - mean) / (var + 1e-5) ** 0.5 * weights["1.weight"] + weights["1.bias"]).relu()
    return cross_entropy(x @ weights["4.weight"].T + weights["4.bias"], y)


@pytest.mark.parametrize("as_trained", [False, True])
def test_values_are_those_of_the_formulas(as_trained: bool) -> None:
    model, train, held_out = network(), batches(2, 0), batches(3, 1)
    for x, _ in train:
        model(x)  # statistics of its own
    rho, sigma, strength = 0.4, 0.2, 0.5
    stream = nr.Stream(7, "record", 2)
    looks = Looks(train, held_out, nr.SAM(rho), [], [sigma], [0.1], 3, stream, as_trained)
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 5.0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rows = pd.DataFrame(looks.sample(model, strength, {}))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(bool((p.grad == 5).all()) for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.parameters())
    assert all(module.training for module in model.modules())

    weights = {name: p.detach() for name, p in model.named_parameters()}
    found_of: dict[str, list[Tensor]] = {}
    for batch in train:
        for mode in (as_trained, False):
            loss_at = partial(plain_loss, model=model, batch=batch, as_trained=mode)
            gradient, loss = torch.func.grad_and_value(loss_at)(weights)
            flat = torch.cat([g.flatten() for g in gradient.values()])

            def moved(by: float, gradient: dict[str, Tensor] = gradient, flat: Tensor = flat) -> dict[str, Tensor]:
                return {n: w + by * gradient[n] / flat.norm() for n, w in weights.items()}

            there, ascended = torch.func.grad_and_value(loss_at)(moved(rho * strength))
            other = torch.cat([g.flatten() for g in there.values()])
            values = {
                "gradient_norm": flat.norm(),
                "update_gradient_norm": other.norm(),
                "cosine": flat @ other / flat.norm() / other.norm(),
                "perturbed_loss": ascended,
                "gradient_sharpness": ascended - loss,
                "full_strength_loss": loss_at(moved(rho)),
            }
            if mode == as_trained:
                for name, value in values.items():
                    found_of.setdefault(name, []).append(value)
            if mode == as_trained:
                found_of.setdefault("training_loss", []).append(loss)
        found_of.setdefault("loss", []).append(loss)  # of the network as it is deployed
        found_of.setdefault("ascent_sharpness", []).append(loss_at(moved(0.1)) - loss)
    wanted = {("train", name): float(torch.stack(values).mean()) for name, values in found_of.items()}
    wanted["train", "perturbation_norm"] = rho * strength
    wanted["held-out", "loss"] = float(torch.stack([plain_loss(weights, model, b) for b in held_out]).mean())
    for split, data in (("train", train), ("held-out", held_out)):
        changes = []
        for draw in range(3):
            noisy = dict(weights)
            for name in ("0.weight", "4.weight"):
                z = torch.from_numpy(stream.child("draw", draw, name).normal(tuple(weights[name].shape))).double()
                noisy[name] = weights[name] + sigma * weights[name].abs().amax(dim=1, keepdim=True) * z
            changes += [torch.stack([plain_loss(noisy, model, b) - plain_loss(weights, model, b) for b in data]).mean()]
        wanted[split, "average_sharpness"] = float(torch.stack(changes).mean())
        error = rows[(rows["split"] == split) & (rows["quantity"] == "average_sharpness")]["standard_error"].item()
        assert error == pytest.approx(float(torch.stack(changes).std()) / 3**0.5, rel=1e-6)
    found = rows.set_index(["split", "quantity"])["value"]
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, rel=1e-6), key
    right = torch.cat([model.eval()(x).argmax(1) == y for x, y in train])
    assert found["train", "accuracy"] == 100 * float(right.double().mean())


def test_the_update_is_mixed_and_memory_and_draws_count() -> None:
    model, train = network(), batches(1, 0)
    stream = nr.Stream(0, "record", 0)
    noise = nr.GaussianNoise(0.3)
    values = {}
    for share in (1.0, 0.25):
        method = nr.RWP(noise, perturbed_weight=share, draws=2)
        looks = Looks(train, [], method, method.sites(model), [], [], 2, stream, False)
        values[share] = pd.DataFrame(looks.sample(model, 1.0, {})).set_index("quantity")["value"]
    weights = {name: p.detach() for name, p in model.named_parameters()}
    clean = torch.func.grad(plain_loss)(weights, model, train[0])
    there: dict[str, Tensor] = {}
    for draw in range(2):
        noisy = dict(weights)
        for name in ("0.weight", "4.weight"):
            noisy[name] = noise.perturb(weights[name], stream.child("batch", 0, "draw", draw, name))
        gradient = torch.func.grad(plain_loss)(noisy, model, train[0])
        there = {n: there.get(n, 0) + g / 2 for n, g in gradient.items()}
    for share, found in values.items():
        update = torch.cat([((1 - share) * clean[n] + share * there[n]).flatten() for n in weights])
        assert found["update_gradient_norm"] == pytest.approx(float(update.norm()), rel=1e-6)
    adaptive = nr.ARWP(noise, eta=5.0)
    memory = {"0.weight": torch.full((8, 1), 100.0), "4.weight": torch.full((3, 1), 100.0)}
    lengths = []
    for kept in ({}, memory):
        looks = Looks(train, [], adaptive, adaptive.sites(model), [], [], 2, stream)
        lengths.append(pd.DataFrame(looks.sample(model, 1.0, kept)).set_index("quantity")["value"]["perturbation_norm"])
    assert lengths[1] < lengths[0] / 10


def test_without_strength_nothing_is_perturbed() -> None:
    model, train = network(), batches(2, 0)
    looks = Looks(train, [], nr.SAM(0.5), [], [], [], 2, nr.Stream(0), False)
    found = pd.DataFrame(looks.sample(model, 0.0, {})).set_index("quantity")["value"]
    assert found["cosine"] == 1
    assert found["gradient_sharpness"] == found["perturbation_norm"] == 0
    assert found["perturbed_loss"] == found["loss"] < found["full_strength_loss"]
    assert found["update_gradient_norm"] == found["gradient_norm"]


def test_lengths_of_the_way() -> None:
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[0.0], [0.0]])
    travel = Travel(model)
    places = [(3.0, 4.0), (3.0, 0.0), (0.0, 0.0), (6.0, 8.0)]
    for number, place in enumerate(places, start=1):
        model.weight.data = torch.tensor(place)[:, None]
        travel.step(epoch_ends=number % 2 == 0)
        if number == 2:
            saved = travel.state_dict()
            travel = Travel(model)
            travel.load_state_dict(saved)
    wanted = {"path_length": 5 + 4 + 3 + 10, "epoch_path_length": 3 + 73**0.5, "displacement": 10.0}
    model.weight.data = torch.tensor([[6.0], [0.0]])
    assert Travel.lengths(travel)["epoch_path_length"] == pytest.approx(3 + 73**0.5 + 8)  # an epoch that is not over
    model.weight.data = torch.tensor([[6.0], [8.0]])
    assert travel.lengths() == pytest.approx(wanted, rel=1e-6)


def test_auto_takes_a_fortieth_of_the_passes() -> None:
    model = network().float()
    train = [(x.float(), y) for x, y in batches(1, 0)]
    for method, passes in ((nr.Unperturbed(), 1), (nr.SAM(0.1), 2)):
        opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), method, model)
        recorder = Recorder(model, opt, train, total_steps=10_000, steps_per_epoch=100)
        samples = 10_000 // recorder.every + 1 + (10_000 % recorder.every > 0)
        assert 0.02 < samples * recorder._looks.passes / (3 * passes * 10_000) <= 0.025
        short = Recorder(model, opt, train, total_steps=10, steps_per_epoch=5)
        assert short.every == 10  # the first and the last step, whatever they take


def test_a_loop_of_ones_own() -> None:
    model = network().float()
    train = [(x.float(), y) for x, y in batches(2, 0)]
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.SAM(0.1), model)
    recorder = nr.diagnose.Recorder(
        model, opt, train, total_steps=4, steps_per_epoch=2, config=RecordConfig(every=2), method="mine", train_seed=5
    )
    recorder.start()
    for step in range(4):
        x, y = train[step % 2]

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss

        opt.step(closure)
        recorder.step()
    frame = recorder.frame()
    assert list(frame) == list(DIAGNOSTICS_DTYPES)
    assert set(frame["method"]) == {"mine"}
    assert set(frame["train_seed"]) == {5}
    assert list(dict.fromkeys(frame["step"])) == [0, 2, 4]
    assert "held-out" not in set(frame["split"])


def test_what_tensorboard_reads(config: TrainConfig, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(config, record=replace(config.record, tensorboard=True), epochs=1)
    frame = run(config, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run/seed1/tensorboard"))
    events.Reload()
    own = frame[(frame["quantity"] == "average_sharpness") & (frame["level"] == 0.3) & (frame["split"] == "train")]
    found = events.Scalars("train/average_sharpness/0.3")
    assert [e.step for e in found] == list(own["step"])
    assert [e.value for e in found] == pytest.approx(list(own["value"]), rel=1e-6)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--record.every=0", "record.every"),
        ("--record.every=often", "record.every"),
        ("--record.draws=1", "record.draws"),
        ("--record.levels=[0.1, 0.1]", "record.levels"),
        ("--record.rhos=[-1]", "record.rhos"),
        ("--record.rhos=[1]", "`record.every` to be given with `record.rhos`"),
    ],
)
def test_settings_that_are_refused(setting: str, message: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["train", "--model", "digits-cnn", "--data", "digits", setting, "--out", str(tmp_path / "x")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_what_a_recorder_refuses() -> None:
    model, train = network(), batches(1, 0)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    opt = nr.PerturbedOptimizer(base, nr.Unperturbed(), model)
    with pytest.raises(InvalidValueError, match="`optimizer`"):
        Recorder(model, base, train, total_steps=1, steps_per_epoch=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="`train`"):
        Recorder(model, opt, [], total_steps=1, steps_per_epoch=1)
    with pytest.raises(InvalidValueError, match="list of batches"):
        Recorder(model, opt, train[0], total_steps=1, steps_per_epoch=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="total_steps"):
        Recorder(model, opt, train, total_steps=0, steps_per_epoch=1)


def test_frozen_parameters_have_no_part(config: TrainConfig) -> None:
    model, train = network(), batches(1, 0)
    model[0].weight.requires_grad_(False)
    looks = Looks(train, [], nr.Unperturbed(), [], [], [], 2, nr.Stream(0), False)
    found = pd.DataFrame(looks.sample(model, 1.0, {})).set_index("quantity")["value"]
    weights = {name: p.detach() for name, p in model.named_parameters()}
    gradient = torch.func.grad(plain_loss)(weights, model, train[0])
    gradient.pop("0.weight")
    assert found["gradient_norm"] == pytest.approx(float(torch.cat([g.flatten() for g in gradient.values()]).norm()))


def test_frozen_normalisation_and_dropout_in_evaluation_mode() -> None:
    model, train = network().train(), batches(1, 0)
    looks = Looks(train, [], nr.Unperturbed(), [], [], [], 2, nr.Stream(0))
    norms = []
    for frozen in (False, True):
        model[1].train(not frozen)
        norms.append(pd.DataFrame(looks.sample(model, 1.0, {})).set_index("quantity")["value"]["gradient_norm"])
        assert model[1].training is not frozen
    weights = {name: p.detach() for name, p in model.named_parameters()}
    for found, as_trained in zip(norms, (True, False), strict=True):
        gradient = torch.func.grad(plain_loss)(weights, model, train[0], as_trained=as_trained)
        assert found == pytest.approx(torch.cat([g.flatten() for g in gradient.values()]).norm().item(), rel=1e-6)

    class Noisy(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(super().forward(x), 0.5, training=True)

    noisy = Noisy(*model)
    before = torch.random.get_rng_state()
    first, second = (pd.DataFrame(looks.sample(noisy, 1.0, {})) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    pd.testing.assert_frame_equal(first, second)


def test_micro_batches_are_looked_at_as_they_are_passed(config: TrainConfig, tmp_path: Path) -> None:
    frame = run(replace(config, accumulate=2, epochs=1), tmp_path / "run")
    assert set(frame[frame["quantity"] == "loss"]["n_examples"]) == {2 * 8 // 2}


def test_a_state_is_not_changed_by_what_comes_after() -> None:
    model = nn.Linear(1, 1, bias=False)
    travel = Travel(model)
    state = travel.state_dict()
    kept = state["epoch"][0].clone()
    model.weight.data += 1
    travel.step(epoch_ends=True)
    assert torch.equal(state["epoch"][0], kept)


def test_a_model_that_returns_an_object_with_logits(config: TrainConfig, tmp_path: Path) -> None:
    wrapped = """
from types import SimpleNamespace

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        return SimpleNamespace(logits=self.inner(x))
"""
    (tmp_path / "wrapped.py").write_text(MODEL + wrapped)
    frame = run(replace(config, model=f"{tmp_path}/wrapped.py:Wrapped", epochs=1), tmp_path / "run")
    plain = run(replace(config, epochs=1), tmp_path / "plain")
    same = frame[frame["quantity"] == "accuracy"]["value"].to_numpy()
    assert same == pytest.approx(plain[plain["quantity"] == "accuracy"]["value"].to_numpy())
