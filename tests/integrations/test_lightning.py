"""The Lightning callback trains as the plain loop does, and nobody else sees its noisy weights."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import noiserobust as nr
from noiserobust.errors import InvalidValueError, MissingDependencyError, StateError

pytest.importorskip("lightning")

import lightning.pytorch as pl
from lightning.pytorch.plugins.precision import MixedPrecision

from noiserobust.integrations.lightning import NoiseCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:`training_step` returned `None`"),
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
]

NOISE = nr.GaussianNoise(0.3)
METHODS = {
    "rwp": nr.RWP(NOISE),
    "arwp": nr.ARWP(NOISE, eta=10.0),
    "was": nr.WeightAugmentation(nr.KernelTransform(p=1.0)),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
Step = Callable[["Net", Tensor, int], Tensor | None]


class Net(pl.LightningModule):
    """A small network; what its training step does with the loss can be given."""

    def __init__(self, step: Step | None = None, method=None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
            )
        self.step = step
        self.method = method
        self.seen: list[Tensor] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        self.seen.append(weights(self))
        loss = cross_entropy(self.net(batch[0]), batch[1])
        return self.step(self, loss, batch_idx) if self.step else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        base = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return nr.PerturbedOptimizer(base, self.method, self) if self.method else base


class ValidatedNet(Net):
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.seen_in_validation = weights(self)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 2, 4, 4, generator=generator), torch.randint(0, 3, (4,), generator=generator)) for _ in range(4)
    ]


def loader(batches: list[tuple[Tensor, Tensor]] | None = None) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(batches or data(), batch_size=None)


def trainer(*callbacks: pl.Callback, **keywords: object) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"accelerator": "cpu", "max_epochs": 2, "enable_checkpointing": False, **quiet, **keywords}
    return pl.Trainer(callbacks=list(callbacks), **settings)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def plain_loop(method, accumulate: int = 1, epochs: int = 2, **keywords: object) -> Net:
    net = Net()
    opt = nr.PerturbedOptimizer(net.configure_optimizers(), method, net, **keywords)

    def closure_of(x: Tensor, y: Tensor) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            loss = cross_entropy(net.net(x), y)
            loss.backward()
            return loss

        return closure

    for _ in range(epochs):
        closures = [closure_of(x, y) for x, y in data()]
        for start in range(0, len(closures), accumulate):
            opt.step(closures[start : start + accumulate])
    return net


@pytest.mark.parametrize("accumulate", [1, 2])
@every_method
def test_the_callback_trains_as_the_plain_loop(method, accumulate: int) -> None:
    schedule = nr.LinearRamp(start=0.2)  # over the whole training
    net = Net()
    callback = NoiseCallback(method, schedule=schedule, seed=3, train_seed=1)
    trainer(callback, accumulate_grad_batches=accumulate).fit(net, loader())
    keywords = {"schedule": schedule, "total_steps": 8 // accumulate, "seed": 3, "train_seed": 1}
    expected = plain_loop(method, accumulate, **keywords)
    torch.testing.assert_close(weights(net), weights(expected), rtol=1e-6, atol=1e-7)
    assert not torch.allclose(weights(net), weights(plain_loop(method, accumulate)), rtol=1e-3)


class Spy(pl.Callback):
    """Keeps the weights that each hook sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Tensor]] = []
        for hook in HOOKS:
            setattr(self, hook, lambda trainer, net, *rest, hook=hook, **more: self.look(hook, net))

    def look(self, hook: str, net: nn.Module) -> None:
        self.seen.append((hook, weights(net)))


HOOKS = (
    *("on_train_batch_start", "on_after_backward", "on_before_optimizer_step", "on_train_batch_end"),
    *("on_validation_start", "on_train_epoch_end", "on_save_checkpoint", "on_exception", "on_train_end"),
)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_only_the_training_step_sees_noisy_weights(tmp_path, accumulate: int) -> None:
    first, last = Spy(), Spy()
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    net = ValidatedNet()
    settings = {"accumulate_grad_batches": accumulate, "val_check_interval": 1, "num_sanity_val_steps": 0}
    callbacks = [first, NoiseCallback(METHODS["rwp"]), last, checkpoint]
    trainer(*callbacks, enable_checkpointing=True, **settings).fit(net, loader(), loader())
    for spy in (first, last):
        assert {hook for hook, _ in spy.seen} == set(HOOKS) - {"on_exception"}
        now = weights(Net())
        for hook, seen in spy.seen:
            if hook == "on_train_batch_end":
                now = seen  # the only place where an optimizer may have stepped
            assert torch.equal(seen, now), hook
    noisy = [torch.equal(a, b) for (h, a) in first.seen if h == "on_train_batch_start" for b in net.seen]
    assert not any(noisy)
    assert torch.equal(net.seen_in_validation, weights(net))
    saved = [torch.load(path, weights_only=True)["state_dict"] for path in tmp_path.glob("*.ckpt")]
    stepped = [seen for hook, seen in first.seen if hook == "on_train_batch_end"]
    for state in saved:
        own = Net()
        own.load_state_dict(state)
        assert any(torch.equal(weights(own), seen) for seen in stepped)


def test_micro_batches_of_a_step_share_one_draw() -> None:
    net = Net()
    trainer(NoiseCallback(METHODS["rwp"]), accumulate_grad_batches=2, max_epochs=1).fit(net, loader())
    assert torch.equal(net.seen[0], net.seen[1])
    assert not torch.equal(net.seen[1], net.seen[2])
    assert torch.equal(net.seen[2], net.seen[3])


def broken_forward(net: Net, loss: Tensor, batch_idx: int) -> Tensor:
    raise ZeroDivisionError


def broken_backward(net: Net, loss: Tensor, batch_idx: int) -> Tensor:
    loss.register_hook(lambda gradient: 1 / 0)
    return loss


def interrupted(net: Net, loss: Tensor, batch_idx: int) -> Tensor:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", [broken_forward, broken_backward, interrupted])
def test_after_an_exception_the_weights_are_what_they_were(step: Step) -> None:
    handler = signal.getsignal(signal.SIGINT)
    spy, net = Spy(), Net(step)
    ours = trainer(spy, NoiseCallback(METHODS["rwp"]))
    try:
        with pytest.raises((ZeroDivisionError, SystemExit, KeyboardInterrupt)):
            ours.fit(net, loader())
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C while it shuts down
    assert not torch.equal(net.seen[0], weights(net))
    assert torch.equal(weights(net), weights(Net()))
    assert torch.equal(dict(spy.seen)["on_exception"], weights(Net()))  # though its callback comes before ours
    assert "training_step" not in vars(ours.strategy)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_batch_leaves_clean_weights(accumulate: int) -> None:
    def skip(net: Net, loss: Tensor, batch_idx: int) -> Tensor | None:
        return None if batch_idx in (1, 2) else loss

    spy, net = Spy(), Net(skip)
    trainer(NoiseCallback(METHODS["arwp"]), spy, accumulate_grad_batches=accumulate, max_epochs=1).fit(net, loader())
    now = weights(Net())
    for hook, seen in spy.seen:
        now = seen if hook == "on_train_batch_end" else now
        assert torch.equal(seen, now), hook
    assert torch.isfinite(weights(net)).all()


@every_method
def test_a_resumed_training_goes_on_identically(method, tmp_path) -> None:
    schedule = nr.QuadraticRamp(6, start=0.1)
    whole, half, resumed = Net(), Net(), Net()
    trainer(NoiseCallback(method, schedule=schedule, seed=5)).fit(whole, loader())
    first = trainer(NoiseCallback(method, schedule=schedule, seed=5), max_epochs=1)
    first.fit(half, loader())
    first.save_checkpoint(tmp_path / "half.ckpt")
    state = torch.load(tmp_path / "half.ckpt", weights_only=True)["callbacks"]["NoiseCallback"]
    assert state.keys() == {"steps", "seed", "train_seed", "memory"}
    assert state["steps"] == 4
    # The seed comes from the checkpoint.
    second = trainer(NoiseCallback(method, schedule=schedule))
    second.fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert same(whole, resumed)
    assert not same(whole, half)


def test_a_trainer_that_trains_on_goes_on_and_a_new_one_begins_anew() -> None:
    method = METHODS["arwp"]
    whole, halves, again = Net(), Net(), Net()
    trainer(NoiseCallback(method)).fit(whole, loader())
    callback = NoiseCallback(method)
    ours = trainer(callback, max_epochs=1)
    ours.fit(halves, loader())
    state = {key: value.clone() for key, value in halves.state_dict().items()}
    trainer(callback, max_epochs=1).fit(again, loader())
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in state.items())
    callback.load_state_dict({**callback.state_dict(), "steps": -1})
    with pytest.raises(InvalidValueError, match="steps"):
        trainer(callback).fit(Net(), loader())


@pytest.mark.parametrize("method", [nr.SAM(0.3), nr.RWP(NOISE, 0.5)], ids=["sam", "mixed"])
def test_methods_of_two_passes_go_through_configure_optimizers(method) -> None:
    net = Net(method=method)
    trainer().fit(net, loader())
    assert same(net, plain_loop(method))


@pytest.mark.parametrize("method", [nr.SAM(0.3), nr.RWP(NOISE, 0.5), nr.RWP(NOISE, draws=2)], ids=repr)
def test_methods_of_several_passes_are_refused_by_the_callback(method) -> None:
    with pytest.raises(InvalidValueError, match=r"PerturbedOptimizer\(optimizer, method, self\) from `configure_opt"):
        NoiseCallback(method)


def test_several_chips_are_refused_by_the_callback() -> None:
    with pytest.raises(InvalidValueError, match="one chip a step, as Lightning does not divide batches"):
        NoiseCallback(nr.RWP(NOISE, chips=2))


@pytest.mark.parametrize("keywords", [{"method": "rwp"}, {"schedule": 0.5}, {"seed": -1}, {"train_seed": 0.5}])
def test_wrong_arguments_are_refused(keywords: dict) -> None:
    with pytest.raises(InvalidValueError, match="Expected `"):
        NoiseCallback(**{"method": METHODS["rwp"], **keywords})


def test_what_cannot_be_trained_is_refused() -> None:
    net = Net(method=METHODS["rwp"])
    with pytest.raises(InvalidValueError, match="but got both"):
        trainer(NoiseCallback(METHODS["rwp"])).fit(net, loader())
    net = Net()
    net.automatic_optimization = False
    with pytest.raises(InvalidValueError, match="automatic optimisation"):
        trainer(NoiseCallback(METHODS["rwp"])).fit(net, loader())
    endless = trainer(NoiseCallback(METHODS["rwp"], schedule=nr.LinearRamp(fraction=0.5)), max_epochs=-1)
    with pytest.raises(InvalidValueError, match="total_steps"):
        endless.fit(Net(), loader())


def test_no_checkpoint_is_saved_at_noisy_weights(tmp_path) -> None:
    def save(net: Net, loss: Tensor, batch_idx: int) -> Tensor:
        net.trainer.save_checkpoint(tmp_path / "noisy.ckpt")
        return loss

    with pytest.raises(StateError, match="clean weights"):
        trainer(NoiseCallback(METHODS["rwp"])).fit(Net(save), loader())
    assert not (tmp_path / "noisy.ckpt").exists()


@pytest.mark.parametrize("scale", [1024.0, 1e30])
def test_scaled_gradients_are_remembered_unscaled(scale: float) -> None:
    def scaler() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=scale)

    method, net = METHODS["arwp"], Net()
    callback = NoiseCallback(method)
    precision = MixedPrecision("16-mixed", "cpu", scaler())
    trainer(callback, plugins=[precision], max_epochs=1).fit(net, loader())
    memory = callback.state_dict()["memory"]
    expected, own = Net(), scaler()
    opt = nr.PerturbedOptimizer(expected.configure_optimizers(), method, expected, scaler=own)
    for x, y in data():
        with opt.perturbed():
            with torch.autocast("cpu", torch.half, cache_enabled=False):
                loss = cross_entropy(expected.net(x), y)
            own.scale(loss).backward()
        opt.step()
    assert torch.equal(weights(net), weights(expected))
    own_memory = opt.state_dict()["noiserobust"]["memory"]
    assert memory.keys() == own_memory.keys()
    assert all(torch.equal(memory[key], own_memory[key]) for key in memory)
    assert bool(memory) == (scale < 1e5)  # what overflows is forgotten


def test_without_lightning_the_import_says_what_to_install(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "noiserobust.integrations.lightning")
    for name in ("lightning", "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'noiserobust\[lightning\]'"):
        import noiserobust.integrations.lightning  # noqa: F401
