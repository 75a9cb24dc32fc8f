"""SAM and RWP against their formulas, written out in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    assert_close,
    closure_of,
    cnn,
    exact,
    features,
    gradient,
    images,
    mlp,
    mlp_loss,
    same_bits,
    seeded,
    snapshot,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import noiserobust as nr
from noiserobust.noise.base import Noise


def reference_sam(
    w: dict[str, Tensor], loss, *, steps: int, rho: float, lr: float, momentum: float, decay: float, decay_ascent=False
) -> dict[str, Tensor]:
    """SGD on the gradient at ``w + rho * g / ||g||``, with weight decay and momentum at w."""
    velocity = {k: torch.zeros_like(v) for k, v in w.items()}
    for _ in range(steps):
        g = gradient(loss, w)
        if decay_ascent:
            g = {k: g[k] + decay * w[k] for k in g}
        norm = sum((v**2).sum() for v in g.values()) ** 0.5
        ascended = gradient(loss, {k: w[k] + rho * g[k] / norm for k in w})
        velocity = {k: momentum * velocity[k] + ascended[k] + decay * w[k] for k in w}
        w = {k: w[k] - lr * velocity[k] for k in w}
    return w


def reference_rwp(
    model: nn.Module, loss, noise: Noise, *, steps: int, share: float, lr: float, decay: float, seed=0, train_seed=0
) -> dict[str, Tensor]:
    """SGD on ``(1 - share) g(w) + share g(w + noise)``; the noise is drawn by hand from the documented stream."""
    w = exact(model)
    for step in range(steps):
        stream = nr.Stream(seed, "train", train_seed, step)
        noisy = {k: noise.perturb(v, stream.child(k)) if k.endswith("weight") else v for k, v in w.items()}
        clean, perturbed = gradient(loss, w), gradient(loss, noisy)
        g = {k: (1 - share) * clean[k] + share * perturbed[k] + decay * w[k] for k in w}
        w = {k: w[k] - lr * g[k] for k in w}
    return w


def train(model: nn.Module, method, x: Tensor, y: Tensor, steps: int, *, seed=0, train_seed=0, **sgd: float) -> None:
    opt = nr.PerturbedOptimizer(
        torch.optim.SGD(model.parameters(), **sgd), method, model, seed=seed, train_seed=train_seed
    )
    for _ in range(steps):
        opt.step(closure_of(opt, model, x, y))


@settings(max_examples=15, deadline=None)
@given(rho=st.floats(0.01, 2), momentum=st.sampled_from([0.0, 0.9]), decay=st.sampled_from([0.0, 0.05]))
def test_sam_takes_the_gradient_at_the_ascended_weights(rho: float, momentum: float, decay: float) -> None:
    x, y = features()
    model = mlp()
    expected = reference_sam(exact(model), mlp_loss(x, y), steps=3, rho=rho, lr=0.1, momentum=momentum, decay=decay)
    train(model, nr.SAM(rho), x, y, 3, lr=0.1, momentum=momentum, weight_decay=decay)
    assert_close(model, expected)


def test_the_sam_reference_tells_a_rho_off_by_five_percent_a_norm_per_tensor_and_decay_in_the_ascent() -> None:
    x, y = features()
    model = mlp()
    w, loss = exact(model), mlp_loss(x, y)
    plan = {"steps": 3, "lr": 0.1, "momentum": 0.9, "decay": 0.05}
    train(model, nr.SAM(0.5), x, y, 3, lr=0.1, momentum=0.9, weight_decay=0.05)
    assert_close(model, reference_sam(w, loss, rho=0.5, **plan))
    with pytest.raises(AssertionError):
        assert_close(model, reference_sam(w, loss, rho=0.525, **plan))
    with pytest.raises(AssertionError):
        assert_close(model, reference_sam(w, loss, rho=0.5, decay_ascent=True, **plan))
    g = gradient(loss, w)
    per_tensor = gradient(loss, {k: w[k] + 0.5 * g[k] / g[k].norm() for k in w})
    one_step = {k: w[k] - 0.1 * (per_tensor[k] + 0.05 * w[k]) for k in w}
    fresh = mlp()
    train(fresh, nr.SAM(0.5), x, y, 1, lr=0.1, momentum=0.9, weight_decay=0.05)
    with pytest.raises(AssertionError):
        assert_close(fresh, one_step)


def test_sam_with_radius_zero_is_the_base_optimizer() -> None:
    x, y = features()
    plain, wrapped = mlp(), mlp()
    opt = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        closure_of(opt, plain, x, y)()
        opt.step()
    train(wrapped, nr.SAM(0.0), x, y, 3, lr=0.1, momentum=0.9)
    assert same_bits(snapshot(plain), snapshot(wrapped))


def test_sam_leaves_parameters_without_a_gradient_out_of_the_norm_and_in_place() -> None:
    x, y = features()
    model = mlp()
    model.unused = nn.Linear(6, 6)
    before = snapshot(model.unused)
    expected = reference_sam(
        {k: v for k, v in exact(model).items() if "unused" not in k},
        mlp_loss(x, y),
        steps=2,
        rho=0.3,
        lr=0.1,
        momentum=0.0,
        decay=0.0,
    )
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.SAM(0.3), model)

    def closure() -> Tensor:
        opt.zero_grad()
        loss = cross_entropy(model[2](model[1](model[0](x))), y)
        loss.backward()
        return loss

    for _ in range(2):
        opt.step(closure)
    assert same_bits(before, snapshot(model.unused))
    del model.unused
    assert_close(model, expected)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 1e-6), (torch.float16, 300.0), (torch.bfloat16, 1e-10)])
def test_sam_in_half_precision_loses_no_gradient_norm(dtype: torch.dtype, size: float) -> None:
    # In float16 squares of 1e-6 underflow, squares of 300 overflow, and 1 / norm overflows at 1e-6.
    parameter = nn.Parameter(torch.zeros(4, dtype=dtype))
    model = nn.Module()
    model.w = parameter
    opt = nr.PerturbedOptimizer(torch.optim.SGD([parameter], lr=1.0), nr.SAM(2.0), model)
    parameter.grad = torch.full((4,), size, dtype=dtype)
    with opt.perturbed():
        torch.testing.assert_close(parameter.detach().float(), torch.ones(4), rtol=0.02, atol=0)


NOISES = [
    nr.GaussianNoise(0.3),
    nr.GaussianNoise(0.2, reference="l2"),
    nr.LaplaceNoise(0.2),
    nr.GaussianNoise(0.2, granularity="tensor"),
]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.name)
def test_rwp_mixes_clean_and_noisy_gradient_with_the_documented_noise(noise: Noise, share: float) -> None:
    x, y = features()
    model = mlp()
    plan = {"steps": 3, "share": share, "lr": 0.1, "decay": 0.05, "seed": 7, "train_seed": 2}
    expected = reference_rwp(model, mlp_loss(x, y), noise, **plan)
    train(model, nr.RWP(noise, share), x, y, 3, seed=7, train_seed=2, lr=0.1, weight_decay=0.05)
    assert_close(model, expected)


@pytest.mark.parametrize(
    "planted",
    [{"share": 0.315}, {"noise": nr.GaussianNoise(0.315)}, {"share": 0.7}, {"seed": 8}, {"train_seed": 3}],
    ids=str,
)
def test_the_rwp_reference_tells_planted_errors(planted: dict[str, object]) -> None:
    x, y = features()
    model = mlp()
    plan = {
        "noise": nr.GaussianNoise(0.3),
        "steps": 2,
        "share": 0.3,
        "lr": 0.1,
        "decay": 0.0,
        "seed": 7,
        "train_seed": 2,
    }
    wrong = reference_rwp(model, mlp_loss(x, y), **{**plan, **planted})
    train(model, nr.RWP(nr.GaussianNoise(0.3), 0.3), x, y, 2, seed=7, train_seed=2, lr=0.1)
    with pytest.raises(AssertionError):
        assert_close(model, wrong)


def test_each_step_has_noise_of_its_own() -> None:
    x, y = features()
    model = mlp()
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.0), nr.RWP(nr.GaussianNoise(0.3)), model)
    losses = [opt.step(closure_of(opt, model, x, y)).item() for _ in range(4)]
    assert len(set(losses)) == 4


@pytest.mark.parametrize(
    ("method", "calls"),
    [(nr.SAM(0.2), 2), (nr.RWP(nr.GaussianNoise(0.3)), 1), (nr.RWP(nr.GaussianNoise(0.3), 0.5), 2)],
    ids=["sam", "rwp", "mixed"],
)
def test_step_returns_the_clean_loss_or_that_of_the_only_pass(method, calls: int) -> None:
    x, y = features()
    model = mlp()
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), method, model)
    clean = cross_entropy(model(x), y)
    seen: list[Tensor] = []
    loss = opt.step(closure_of(opt, model, x, y, seen))
    assert len(seen) == calls
    assert loss.item() == (clean if calls == 2 else seen[0]).item()
    assert (loss.item() == clean.item()) == (calls == 2)


def test_the_mixture_counts_a_gradient_of_only_one_pass_with_its_share() -> None:
    both, first, second = (nn.Parameter(torch.ones(2, 2)) for _ in range(3))
    model = nn.Linear(2, 2, bias=False)
    parameters = [both, first, second, model.weight]
    method = nr.RWP(nr.GaussianNoise(0.1), perturbed_weight=0.3)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(parameters, lr=1.0), method, model)
    (2 * both.sum() + 5 * first.sum() + 0 * model.weight.sum()).backward()
    with opt.perturbed():
        (4 * both.sum() + 7 * second.sum()).backward()
    torch.testing.assert_close(both.grad, torch.full((2, 2), 0.7 * 2 + 0.3 * 4))
    torch.testing.assert_close(first.grad, torch.full((2, 2), 0.7 * 5))
    torch.testing.assert_close(second.grad, torch.full((2, 2), 0.3 * 7))
    opt.step()
    torch.testing.assert_close(first.detach(), torch.full((2, 2), 1 - 3.5))
    torch.testing.assert_close(second.detach(), torch.full((2, 2), 1 - 2.1))


METHODS = [nr.SAM(0.3), nr.RWP(nr.GaussianNoise(0.3)), nr.RWP(nr.LaplaceNoise(0.2), 0.5)]


@pytest.mark.parametrize("method", METHODS, ids=["sam", "rwp", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_step_of_length_zero_leaves_weights_and_memory_as_they_were(method, dtype, layout) -> None:
    x, y = images()
    model = cnn().to(dtype).to(memory_format=layout)
    x = x.to(dtype).contiguous(memory_format=layout)
    before, places = snapshot(model), [(p.data_ptr(), p.stride()) for p in model.parameters()]
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.0), method, model)
    for _ in range(3):
        opt.step(closure_of(opt, model, x, y))
    after = snapshot(model)
    names = [name for name, _ in model.named_parameters()]
    assert same_bits({n: before[n] for n in names}, {n: after[n] for n in names})
    assert places == [(p.data_ptr(), p.stride()) for p in model.parameters()]


@pytest.mark.parametrize("method", METHODS, ids=["sam", "rwp", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_weights_really_move_inside(method, dtype) -> None:
    x, y = images()
    model = cnn().to(dtype)
    before = snapshot(model)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.0), method, model)
    cross_entropy(model(x.to(dtype)), y).backward()
    with opt.perturbed():
        assert not torch.equal(model[0].weight, before["0.weight"])
        assert torch.equal(model[5].bias, before["5.bias"]) == (not isinstance(method, nr.SAM))


@pytest.mark.parametrize("method", METHODS, ids=["sam", "rwp", "mixed"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_in_any_pass_restores_the_weights_and_leaves_the_optimizer_usable(method, error) -> None:
    x, y = features()
    for failing in range(2 if method.needs_clean_gradient else 1):
        model, undisturbed = mlp(), mlp()
        before = snapshot(model)
        opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), method, model)
        calls = 0

        def failing_closure(model=model, opt=opt, failing=failing) -> Tensor:
            nonlocal calls
            loss = closure_of(opt, model, x, y)()
            calls += 1
            if calls == failing + 1:
                raise error
            return loss

        with pytest.raises(error):
            opt.step(failing_closure)
        assert same_bits(before, snapshot(model))
        assert opt.steps == 0
        with pytest.raises(nr.NoiseRobustError, match="closure"):
            opt.step()
        opt.step(closure_of(opt, model, x, y))
        other = nr.PerturbedOptimizer(torch.optim.SGD(undisturbed.parameters(), lr=0.1), method, undisturbed)
        other.step(closure_of(other, undisturbed, x, y))
        assert same_bits(snapshot(model), snapshot(undisturbed))


def test_an_exception_inside_perturbed_by_hand_restores_the_weights() -> None:
    model = mlp()
    before = snapshot(model)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.RWP(nr.GaussianNoise(0.3)), model)
    with pytest.raises(ZeroDivisionError), opt.perturbed():
        raise ZeroDivisionError
    assert same_bits(before, snapshot(model))
    with pytest.raises(nr.NoiseRobustError, match="closure"):
        opt.step()


def test_device_noise_can_be_trained_with() -> None:
    x, y = features(64)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 1).long()
    model = mlp()
    noise = nr.DeviceNoise.from_profile("pcm-nandakumar-2019", t="1d")
    base = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    opt = nr.PerturbedOptimizer(base, nr.RWP(noise), model)
    losses = [opt.step(closure_of(opt, model, x, y)).item() for _ in range(40)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    before = snapshot(model)
    base.param_groups[0]["lr"] = 0.0
    base.param_groups[0]["momentum"] = 0.0
    opt.step(closure_of(opt, model, x, y))
    assert same_bits(before, snapshot(model))


@pytest.mark.parametrize(
    ("select", "noisy"),
    [("2.*", {"2.weight"}), (lambda name, module, weight: name.startswith("2."), {"2.weight", "2.bias"})],
    ids=["pattern", "function"],
)
def test_only_selected_weights_are_noisy(select, noisy: set[str]) -> None:
    model = mlp()
    before = snapshot(model)
    method = nr.RWP(nr.GaussianNoise(0.3), select=select)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), method, model)
    with opt.perturbed():
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == noisy


@pytest.mark.parametrize(
    "make",
    [
        lambda: nr.SAM(-0.1),
        lambda: nr.SAM(float("nan")),
        lambda: nr.SAM("0.1"),
        lambda: nr.RWP(0.1),
        lambda: nr.RWP(nr.GaussianNoise(0.1), 0.0),
        lambda: nr.RWP(nr.GaussianNoise(0.1), 1.1),
    ],
)
def test_arguments_out_of_range_are_refused(make) -> None:
    with pytest.raises(nr.NoiseRobustError, match="Expected"):
        make()


def test_a_model_without_crossbar_weights_is_refused_for_rwp_only() -> None:
    model = seeded(lambda: nn.BatchNorm1d(6), 0)
    with pytest.raises(nr.NoiseRobustError, match="Conv, Linear or Embedding"):
        nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.RWP(nr.GaussianNoise(0.1)), model)
    nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.SAM(0.1), model)
