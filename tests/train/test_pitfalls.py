"""What other implementations get wrong: every row of the list of pitfalls, with a test that fails without its rule."""

from __future__ import annotations

import ast
import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from small_models import Tied, closure_of, features, images, mlp, same_bits, seeded, snapshot
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations

import noiserobust as nr
from noiserobust.noise.base import Noise
from noiserobust.train.passes import Passes

PITFALLS: dict[str, dict[str, tuple[str, ...]]] = {
    "BatchNorm buffers in a perturbed pass": {
        "test_normalisation_statistics.py": (
            "test_statistics_are_those_of_plain_forward_passes",
            "test_a_pure_method_tracks_its_only_pass",
            "test_kept_statistics_survive_forward_passes_and_exceptions",
            "test_an_exception_in_the_perturbed_pass_restores_the_statistics_of_the_clean_one",
            "test_the_noisy_pass_would_have_changed_the_statistics",
        ),
        "test_pitfalls.py": ("test_several_draws_count_a_batch_once",),
    },
    "mixed precision": {
        "test_pitfalls.py": (
            "test_scaled_fp16_steps_are_those_of_fp32",
            "test_without_unscaling_the_weights_would_be_far_off",
            "test_an_overflow_in_the_first_pass_skips_the_ascent_and_the_step",
            "test_an_overflow_in_the_perturbed_pass_skips_the_step",
            "test_the_memory_is_in_unscaled_units",
            "test_a_disabled_scaler_changes_nothing",
            "test_bf16_steps_are_nearly_those_of_fp32",
        ),
        "test_perturbed_optimizer.py": ("test_an_enclosing_autocast_does_not_serve_stale_weights",),
        "test_data_parallel.py": ("test_an_overflow_on_one_rank_skips_the_step_on_all",),
    },
    "gradient accumulation": {
        "test_pitfalls.py": (
            "test_micro_batches_make_the_step_of_the_whole_batch",
            "test_micro_batches_of_a_step_share_their_noise",
            "test_micro_batches_may_ascend_each_along_its_own_gradient",
            "test_zero_grad_of_a_micro_batch_would_lose_those_before",
        ),
        "test_data_parallel.py": ("test_micro_batches_on_ranks_make_the_step_of_the_whole_batch",),
    },
    "clipping": {
        "test_pitfalls.py": (
            "test_only_the_gradient_that_updates_is_clipped",
            "test_clipping_each_pass_would_give_another_update",
            "test_scaled_gradients_are_clipped_in_units_of_the_loss",
        )
    },
    "DDP": {
        "test_data_parallel.py": (
            "test_ranks_with_half_a_batch_each_take_the_step_of_one_process",
            "test_split_ranks_take_the_step_of_one_process",
            "test_noisy_ranks_have_noise_of_their_own",
            "test_each_rank_ascends_along_its_own_gradient",
            "test_passes_that_want_local_gradients_do_not_communicate",
            "test_statistics_come_from_clean_ranks",
            "test_sharded_parameters_are_refused",
        )
    },
    "torch.compile": {
        "test_pitfalls.py": (
            "test_a_compiled_model_sees_the_perturbed_weights_and_is_compiled_once",
            "test_swapping_tensors_would_change_addresses",
            "test_a_compiled_parametrised_model_is_compiled_a_bounded_number_of_times",
            "test_code_that_inductor_made_sees_the_perturbed_weights",
        ),
        "../test_perturb.py": ("test_a_compiled_model_that_has_run_clean_runs_noisy",),
    },
    "tied weights": {
        "test_perturbed_optimizer.py": ("test_tied_weights_are_perturbed_once",),
        "../test_perturb.py": ("test_tied_weights_are_noisy_once",),
        "test_pitfalls.py": ("test_tied_weights_have_one_memory",),
    },
    "frozen parameters, None gradients": {
        "test_perturbed_optimizer.py": (
            "test_frozen_weights_feel_the_noise_but_stay_what_they_were",
            "test_sam_leaves_frozen_weights_alone",
        ),
        "test_update_rules.py": ("test_sam_leaves_parameters_without_a_gradient_out_of_the_norm_and_in_place",),
        "test_pitfalls.py": ("test_frozen_and_unused_weights_are_restored",),
    },
    "parametrised weights": {
        "test_perturbed_optimizer.py": ("test_parametrised_weights_are_trained_and_restored",),
        "../test_perturb.py": ("test_noise_falls_on_the_effective_weight",),
        "test_pitfalls.py": (
            "test_methods_that_need_the_gradient_of_the_weight_itself_refuse_parametrised_ones",
            "test_power_iteration_advances_once_a_step",
        ),
    },
    "closures": {
        "test_update_rules.py": ("test_step_returns_the_clean_loss_or_that_of_the_only_pass",),
        "test_perturbed_optimizer.py": (
            "test_step_wants_a_closure_or_a_perturbed_block_each_time",
            "test_a_closure_that_does_not_call_backward_is_refused",
            "test_closure_and_context_manager_give_identical_weights",
        ),
        "test_pitfalls.py": (
            "test_a_step_calls_its_closure_once_a_pass_and_returns_the_clean_loss",
            "test_what_is_no_closure_is_refused",
            "test_closures_and_blocks_agree_while_a_ramp_is_at_zero",
        ),
    },
    "LR schedulers": {
        "test_perturbed_optimizer.py": ("test_schedulers_work_on_either_optimizer_without_a_warning",),
        "test_pitfalls.py": ("test_a_first_step_that_the_scaler_skips_gives_no_warning", "test_hooks_run_once_a_step"),
    },
    "resume": {
        "test_perturbed_optimizer.py": (
            "test_a_restored_state_goes_on_with_the_same_noise",
            "test_a_state_without_the_number_of_steps_would_repeat_noise",
            "test_no_state_is_given_out_while_the_weights_are_perturbed",
            "test_no_copy_is_made_while_the_weights_are_perturbed",
        ),
        "test_pitfalls.py": (
            "test_a_saved_state_goes_on_with_memory_and_schedule",
            "test_no_state_is_given_out_by_a_closure_at_perturbed_weights",
        ),
    },
    "numerics": {
        "test_update_rules.py": (
            "test_a_step_of_length_zero_leaves_weights_and_memory_as_they_were",
            "test_sam_in_half_precision_loses_no_gradient_norm",
        ),
        "test_pitfalls.py": (
            "test_filters_of_zeros_stay_finite",
            "test_gradients_of_zeros_move_nothing",
            "test_parameters_without_dimensions_are_perturbed",
            "test_the_memory_layout_does_not_matter",
            "test_bf16_weights_do_not_drift",
            "test_subtracting_the_perturbation_would_drift",
        ),
    },
    "dropout": {
        "test_pitfalls.py": (
            "test_all_passes_of_a_step_may_have_the_same_masks",
            "test_by_default_each_pass_has_masks_of_its_own",
            "test_the_same_masks_by_hand_are_refused",
        )
    },
}
"""Tests by row of the list and by file."""

HERE = Path(__file__).parent
NOISE = nr.GaussianNoise(0.3)
METHODS = {
    "sam": nr.SAM(0.3),
    "mixed-sam": nr.SAM(0.3, perturbed_weight=0.4),
    "asam": nr.ASAM(0.5),
    "rwp": nr.RWP(NOISE),
    "mixed": nr.RWP(NOISE, 0.5),
    "draws": nr.RWP(NOISE, 0.5, draws=2),
    "arwp": nr.ARWP(NOISE, eta=5.0),
    "mixed-arwp": nr.ARWP(NOISE, 0.5, eta=5.0),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def some(*names: str) -> pytest.MarkDecorator:
    """Return a parametrisation of ``method`` over these."""
    return pytest.mark.parametrize("method", [METHODS[name] for name in names], ids=names)


def make(model: nn.Module, method, lr: float = 0.1, momentum: float = 0.0, **keywords: object):
    return nr.PerturbedOptimizer(
        torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum), method, model, **keywords
    )


def update(model: nn.Module, before: dict[str, Tensor]) -> Tensor:
    """Return how far all parameters have moved, as one vector."""
    return torch.cat([(p.detach() - before[n]).double().flatten() for n, p in model.named_parameters()])


def error(found: Tensor, expected: Tensor) -> float:
    """Return the distance of two vectors in lengths of the expected one."""
    return ((found - expected).norm() / expected.norm()).item()


def test_every_pitfall_has_tests_that_exist() -> None:
    tests: dict[str, set[str]] = {}
    for covered in PITFALLS.values():
        for file, names in covered.items():
            if file not in tests:
                tree = ast.parse((HERE / file).read_text())
                tests[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert set(names) <= tests[file], f"{file} lacks {set(names) - tests[file]}"


# --- BatchNorm buffers ------------------------------------------------------------------------------------------------


def normalised(momentum: float | None) -> nn.Sequential:
    return seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.Flatten(), nn.Linear(16, 3)),
        0,
    )


@pytest.mark.parametrize("momentum", [0.1, None], ids=["momentum", "cumulative"])
@pytest.mark.parametrize("share", [1.0, 0.5], ids=["pure", "mixed"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_several_draws_count_a_batch_once(share: float, momentum: float | None, by_hand: bool) -> None:
    model, plain = normalised(momentum), normalised(momentum)
    method = nr.RWP(NOISE, share, draws=3)
    opt = make(model, method, seed=4)
    for step in range(2):
        x, y = images(seed=step)
        closure = closure_of(opt, model, x, y)
        with torch.no_grad():
            for (name, own), trained in zip(plain.named_parameters(), model.parameters(), strict=True):
                noisy = share == 1 and name in ("0.weight", "3.weight")
                stream = nr.Stream(4, "train", 0, step, name)
                own.copy_(NOISE.perturb(trained, stream) if noisy else trained)
        plain(x)
        if by_hand:
            opt.zero_grad()
            if share < 1:
                cross_entropy(model(x), y).backward()
            for _ in range(3):
                with opt.perturbed():
                    cross_entropy(model(x), y).backward()
            opt.step()
        else:
            opt.step(closure)
        assert model[1].num_batches_tracked == step + 1
        assert same_bits(dict(model[1].named_buffers()), dict(plain[1].named_buffers()))


def test_without_the_rule_each_draw_would_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noiserobust.train.passes.kept_statistics", lambda model: nullcontext())
    for share in (1.0, 0.5):
        with pytest.raises(AssertionError):
            test_several_draws_count_a_batch_once(share, 0.1, False)


# --- Mixed precision --------------------------------------------------------------------------------------------------


def scaled_closure(
    opt: nr.PerturbedOptimizer,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    dtype: torch.dtype = torch.float16,
    overflow_at: int | None = None,
    calls: list[int] | None = None,
) -> Callable[[], Tensor]:
    """Return the closure of a mixed precision training; one of its calls may overflow."""
    calls = [] if calls is None else calls

    def closure() -> Tensor:
        opt.zero_grad()
        with torch.autocast("cpu", dtype):
            loss = cross_entropy(model(x), y)
        factor = float("inf") if len(calls) == overflow_at else 1.0
        calls.append(len(calls))
        (loss if opt.scaler is None else opt.scaler.scale(loss) * factor).backward()
        return loss

    return closure


def fp32_updates(method, steps: int) -> Tensor:
    model = mlp()
    before = snapshot(model)
    opt = make(model, method)
    for step in range(steps):
        opt.step(closure_of(opt, model, *features(seed=step)))
    return update(model, before)


@pytest.mark.parametrize("by_hand", [False, True], ids=["closure", "by-hand"])
@every_method
def test_scaled_fp16_steps_are_those_of_fp32(method, by_hand: bool) -> None:
    model = mlp()
    before = snapshot(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
    opt = make(model, method, scaler=scaler)
    for step in range(3):
        closure = scaled_closure(opt, model, *features(seed=step))
        if by_hand:
            opt.zero_grad()
            if method.needs_clean_gradient:
                closure()
            for _ in range(method.draws):
                with opt.perturbed():
                    with torch.autocast("cpu", torch.float16):
                        loss = cross_entropy(model(features(seed=step)[0]), features(seed=step)[1])
                    scaler.scale(loss).backward()
            opt.step()
        else:
            loss = opt.step(closure)
            assert loss is not None
            assert 0.3 < loss.item() < 3  # not the scaled one
    assert scaler.get_scale() == 2.0**13  # the scaler was updated once a step
    expected = fp32_updates(method, 3)
    assert error(update(model, before), expected) < 5e-3
    assert error(fp32_updates(nr.Unperturbed(), 3), expected) > 2e-2  # the perturbation is seen at that tolerance


def test_without_unscaling_the_weights_would_be_far_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.amp.GradScaler, "unscale_", lambda self, optimizer: None)
    monkeypatch.setattr(torch.amp.GradScaler, "step", lambda self, optimizer: optimizer.step())
    monkeypatch.setattr(torch.amp.GradScaler, "update", lambda self: None)
    with pytest.raises(AssertionError):
        test_scaled_fp16_steps_are_those_of_fp32(METHODS["sam"], True)


def huge_scaler() -> torch.amp.GradScaler:
    """Return a scaler whose first scale overflows in float16 and whose second does not."""
    return torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=2.0**-50)


def overflowing_step(method) -> tuple[nn.Module, nr.PerturbedOptimizer, list[int], dict[str, Tensor]]:
    model = mlp()
    before = snapshot(model)
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    opt = nr.PerturbedOptimizer(base, method, model, scaler=huge_scaler(), max_grad_norm=1.0)
    calls: list[int] = []
    opt.step(scaled_closure(opt, model, *features(), calls=calls))
    return model, opt, calls, before


PASSES = {"sam": 2, "mixed-sam": 2, "asam": 2, "rwp": 1, "mixed": 2, "draws": 3, "arwp": 1, "mixed-arwp": 2}


@pytest.mark.parametrize("name", METHODS)
def test_an_overflow_in_the_first_pass_skips_the_ascent_and_the_step(name: str) -> None:
    model, opt, calls, before = overflowing_step(METHODS[name])
    follows = METHODS[name].follows_gradient
    assert opt.passes == len(calls) == (1 if follows else PASSES[name])
    assert same_bits(before, snapshot(model))
    assert not opt.state
    assert not opt.state_dict()["noiserobust"]["memory"]
    assert opt.scaler is not None
    assert opt.scaler.get_scale() == 2.0**10

    calls.clear()
    opt.step(scaled_closure(opt, model, *features(), calls=calls))
    assert len(calls) == PASSES[name]
    assert not same_bits(before, snapshot(model))
    assert all(p.isfinite().all() for p in model.parameters())


def test_without_the_check_the_ascent_would_go_to_weights_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Passes, "_finite", lambda self: True)
    with pytest.raises(AssertionError):
        test_an_overflow_in_the_first_pass_skips_the_ascent_and_the_step("sam")
    with pytest.raises(AssertionError):
        test_an_overflow_in_the_first_pass_skips_the_ascent_and_the_step("arwp")


def test_an_overflow_by_hand_leaves_the_weights_finite_and_skips_the_step() -> None:
    model = mlp()
    before = snapshot(model)
    opt = make(model, METHODS["sam"], scaler=huge_scaler())
    closure = scaled_closure(opt, model, *features())
    closure()
    with opt.perturbed():
        assert same_bits(before, snapshot(model))
        with torch.autocast("cpu", torch.float16):
            loss = cross_entropy(model(features()[0]), features()[1])
        opt.scaler.scale(loss).backward()
    opt.step()
    assert same_bits(before, snapshot(model))
    assert opt.scaler.get_scale() == 2.0**10


@some("sam", "mixed-sam", "mixed", "mixed-arwp")
def test_an_overflow_in_the_perturbed_pass_skips_the_step(method) -> None:
    model = mlp()
    before = snapshot(model)
    opt = make(model, method, momentum=0.9, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    calls: list[int] = []
    perturbed_call = 1 if method.follows_gradient else 0
    closure = scaled_closure(opt, model, *features(), overflow_at=perturbed_call, calls=calls)
    opt.step(closure)
    assert len(calls) == 2
    assert same_bits(before, snapshot(model))
    assert not opt.state
    assert not opt.state_dict()["noiserobust"]["memory"]
    assert opt.scaler.get_scale() == 2.0**9
    opt.step(closure)
    assert len(calls) == 4
    assert not same_bits(before, snapshot(model))
    assert all(p.isfinite().all() for p in model.parameters())


@some("arwp", "mixed-arwp")
def test_the_memory_is_in_unscaled_units(method) -> None:
    memories = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**12)):
        model = mlp()
        opt = make(model, method, scaler=scaler)
        for step in range(3):
            opt.step(scaled_closure(opt, model, *features(seed=step)))
        memories.append(opt.state_dict()["noiserobust"]["memory"])
    assert memories[0].keys() == {"0.weight", "2.weight"}
    for name, value in memories[0].items():
        torch.testing.assert_close(memories[1][name], value, rtol=2e-2, atol=1e-5)


def test_scaled_gradients_would_make_the_memory_far_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    remember = nr.ARWP.remember
    monkeypatch.setattr(nr.ARWP, "remember", lambda self, moment, scale: remember(self, moment, 1.0))
    with pytest.raises(AssertionError):
        test_the_memory_is_in_unscaled_units(METHODS["arwp"])


@some("sam", "mixed", "arwp")
def test_a_disabled_scaler_changes_nothing(method) -> None:
    models = mlp(), mlp()
    for model, scaler in zip(models, (None, torch.amp.GradScaler("cpu", enabled=False)), strict=True):
        opt = make(model, method, scaler=scaler)
        for step in range(3):
            opt.step(scaled_closure(opt, model, *features(seed=step)))
    assert same_bits(snapshot(models[0]), snapshot(models[1]))


@every_method
def test_bf16_steps_are_nearly_those_of_fp32(method) -> None:
    model = mlp()
    before = snapshot(model)
    opt = make(model, method)
    for step in range(3):
        opt.step(scaled_closure(opt, model, *features(seed=step), dtype=torch.bfloat16))
    expected = fp32_updates(method, 3)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert error(update(model, before), expected) < 2e-2
    assert error(fp32_updates(nr.Unperturbed(), 3), expected) > 2e-2


# --- Gradient accumulation --------------------------------------------------------------------------------------------


def micro(opt: nr.PerturbedOptimizer, model: nn.Module, x: Tensor, y: Tensor, parts: int, seen=None) -> list[Callable]:
    return [closure_of(opt, model, *part, seen) for part in zip(x.double().chunk(parts), y.chunk(parts), strict=True)]


@every_method
@pytest.mark.parametrize("two_batches", [False, True])
def test_micro_batches_make_the_step_of_the_whole_batch(method, two_batches: bool) -> None:
    models = mlp().double(), mlp().double()
    losses = []
    for model, parts in zip(models, (1, 3), strict=True):
        opt = make(model, method, momentum=0.9)
        for step in range(3):
            batches = [micro(opt, model, *features(seed=step), parts)]
            if two_batches:
                batches.append(micro(opt, model, *features(seed=step + 50), parts))
            losses.append(opt.step(*batches).item())
    for whole, parts in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
    assert losses[3:] == pytest.approx(losses[:3], rel=1e-10)


def test_zero_grad_of_a_micro_batch_would_lose_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        nr.PerturbedOptimizer, "zero_grad", lambda self, set_to_none=True: self.base.zero_grad(set_to_none)
    )
    with pytest.raises(AssertionError):
        test_micro_batches_make_the_step_of_the_whole_batch(METHODS["sam"], False)


@some("rwp", "mixed", "arwp")
def test_micro_batches_of_a_step_share_their_noise(method) -> None:
    model = mlp()
    opt = make(model, method, lr=0.0)
    weights: list[Tensor] = []
    x, y = features()

    def closure() -> Tensor:
        weights.append(model[0].weight.detach().clone())
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    opt.step([closure] * 3)
    first = NOISE.perturb(model[0].weight, nr.Stream(0, "train", 0, 0, "0.weight"))
    assert all(torch.equal(w, first) for w in weights[:3])
    assert all(torch.equal(w, model[0].weight) for w in weights[3:])
    weights.clear()
    opt.step([closure] * 3)
    assert not torch.equal(weights[0], first)
    assert torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_micro_batches_may_ascend_each_along_its_own_gradient(share: float) -> None:
    x, y = features()
    model = mlp().double()
    before = snapshot(model)
    expected = torch.stack([one_ascent(xi, yi, share) for xi, yi in zip(x.chunk(3), y.chunk(3), strict=True)]).mean(0)
    opt = make(model, nr.SAM(0.3, perturbed_weight=share, per_micro_batch=True), lr=1.0)
    opt.step(micro(opt, model, x, y, 3))
    torch.testing.assert_close(-update(model, before), expected, rtol=1e-10, atol=1e-12)
    whole = mlp().double()
    opt = make(whole, nr.SAM(0.3, perturbed_weight=share), lr=1.0)
    opt.step(micro(opt, whole, x, y, 3))
    assert error(update(whole, before), update(model, before)) > 1e-3


def one_ascent(x: Tensor, y: Tensor, share: float) -> Tensor:
    """Return SAM's gradient of one micro-batch, all parameters as one vector."""
    model = mlp().double()
    clean = flat_gradient(model, x, y)
    nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(model.parameters()) + 0.3 * clean / clean.norm(), model.parameters()
    )
    return (1 - share) * clean + share * flat_gradient(model, x, y)


def flat_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    loss = cross_entropy(model(x.double()), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


# --- Clipping ---------------------------------------------------------------------------------------------------------


def clipped_update(method, limit: float | None, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
    model = mlp()
    before = snapshot(model)
    opt = make(model, method, lr=1.0, max_grad_norm=limit, scaler=scaler)
    closure = closure_of(opt, model, *features())
    if scaler is not None:

        def closure() -> Tensor:
            loss = cross_entropy(model(features()[0]), features()[1])
            scaler.scale(loss).backward()
            return loss

    opt.step(closure)
    return update(model, before)


WILD = nr.RWP(nr.GaussianNoise(2.0), 0.3)


@pytest.mark.parametrize("method", [*METHODS.values(), WILD], ids=[*METHODS, "wild"])
def test_only_the_gradient_that_updates_is_clipped(method) -> None:
    free = clipped_update(method, None)
    limit = 0.3 * free.norm().item()
    assert error(clipped_update(method, limit), 0.3 * free) < 1e-4
    assert error(clipped_update(method, 2 * free.norm().item()), free) < 1e-6


def test_clipping_each_pass_would_give_another_update(monkeypatch: pytest.MonkeyPatch) -> None:
    backward = Passes._backward

    def clipping(self: Passes, closures) -> Tensor:
        loss = backward(self, closures)
        nn.utils.clip_grad_norm_(list(self._parameters()), 0.1)
        return loss

    expected = clipped_update(WILD, None)
    monkeypatch.setattr(Passes, "_backward", clipping)
    found = clipped_update(WILD, None)
    assert error(found / found.norm(), expected / expected.norm()) > 1e-2  # not the direction of the mixture


@some("arwp", "mixed-arwp")
def test_the_memory_does_not_see_the_clipping(method) -> None:
    memories = []
    for limit in (None, 1e-3):
        model = mlp()
        opt = make(model, method, max_grad_norm=limit)
        opt.step(closure_of(opt, model, *features()))
        memories.append(opt.state_dict()["noiserobust"]["memory"])
    assert same_bits(*memories)


def test_scaled_gradients_are_clipped_in_units_of_the_loss() -> None:
    for name in ("sam", "mixed"):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        found = clipped_update(METHODS[name], 0.05, scaler=scaler)
        assert found.norm().item() == pytest.approx(0.05, rel=1e-4)
        assert error(found, clipped_update(METHODS[name], 0.05)) < 1e-5


# --- torch.compile ----------------------------------------------------------------------------------------------------


@pytest.fixture
def compiler() -> Iterator[None]:
    """Start from an empty cache of compiled code, and leave an empty one; its own warnings are not ours."""
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.compiler.reset()


def train_compiled(method, compiled: nn.Module, model: nn.Module, warm: int = 1) -> list[Tensor]:
    """Train four steps, of which only the first ``warm`` may compile; return the losses of all passes."""
    seen: list[Tensor] = []
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), method, compiled)
    places = [p.data_ptr() for p in model.parameters()]
    for step in range(4):
        with torch._dynamo.config.patch(error_on_recompile=step >= warm):
            opt.step(closure_of(opt, compiled, *features(), seen))
        assert places == [p.data_ptr() for p in model.parameters()]
    return seen


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@some("sam", "mixed", "mixed-arwp")
@pytest.mark.slow
def test_a_compiled_model_sees_the_perturbed_weights_and_is_compiled_once(method, backend: str) -> None:
    model, plain = mlp(), mlp()
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    found = train_compiled(method, torch.compile(model, backend=counting), model)
    assert len(graphs) == 1
    torch.testing.assert_close(found, train_compiled(method, plain, plain))
    assert len({loss.item() for loss in found}) == len(found) == 8
    torch.testing.assert_close(snapshot(model), snapshot(plain))


def test_swapping_tensors_would_change_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(parameter: Tensor, change: Callable, memory: object, undo: list[Callable[[], None]]) -> None:
        saved = parameter.detach().clone()
        undo.append(lambda: setattr(parameter, "data", saved))
        parameter.data = saved.clone()
        change(parameter.data)

    train_compiled(METHODS["mixed"], model := mlp(), model)
    monkeypatch.setattr("noiserobust.perturb._write", swap)
    with pytest.raises(AssertionError):
        train_compiled(METHODS["mixed"], model := mlp(), model)


@pytest.mark.usefixtures("compiler")
def test_a_compiled_parametrised_model_is_compiled_a_bounded_number_of_times() -> None:
    # The noise on an effective weight is one more module while it lasts: two graphs, and guards that settle.
    models = mlp(), mlp()
    for model in models:
        parametrizations.weight_norm(model[0])
    found = train_compiled(METHODS["mixed"], torch.compile(models[0], backend="eager"), models[0], warm=2)
    torch.testing.assert_close(found, train_compiled(METHODS["mixed"], models[1], models[1]))


@pytest.mark.thorough
@pytest.mark.usefixtures("compiler")
def test_code_that_inductor_made_sees_the_perturbed_weights(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError:
        pytest.skip("there is no C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model, plain = mlp(), mlp()
    with torch._inductor.config.patch(compile_threads=1):
        found = train_compiled(METHODS["mixed"], torch.compile(model), model)
    torch.testing.assert_close(found, train_compiled(METHODS["mixed"], plain, plain))


# --- Tied, frozen and parametrised weights ----------------------------------------------------------------------------


def test_tied_weights_have_one_memory() -> None:
    model = seeded(Tied, 0)
    x, y = features()
    opt = make(model, nr.ARWP(NOISE), lr=0.0)
    total = torch.zeros(6, 6)

    def closure() -> Tensor:
        loss = cross_entropy(model(x), y)
        loss.backward()
        total.copy_(model.first.weight.grad)
        return loss

    opt.step(closure)
    memory = opt.state_dict()["noiserobust"]["memory"]
    assert memory.keys() == {"first.weight"}
    torch.testing.assert_close(memory["first.weight"], total.square().sum(1, keepdim=True))


@pytest.mark.parametrize("all_in_optimizer", [False, True])
@every_method
def test_frozen_and_unused_weights_are_restored(method, all_in_optimizer: bool) -> None:
    model = mlp()
    model.add_module("3", seeded(lambda: nn.Linear(3, 3), 5))  # never called: its gradient is None
    model[0].weight.requires_grad_(False)
    before, seen = snapshot(model), []
    trained = [p for p in model.parameters() if p.requires_grad or all_in_optimizer]
    opt = nr.PerturbedOptimizer(torch.optim.SGD(trained, lr=0.1, weight_decay=0.1), method, model)
    x, y = features()

    def closure() -> Tensor:
        seen.append(snapshot(model))
        loss = cross_entropy(model[2](model[1](model[0](x))), y)
        loss.backward()
        return loss

    opt.step(closure)
    moved = {n for state in seen for n in state if not torch.equal(state[n], before[n])}
    ascent = {"0.bias", "2.weight", "2.bias"}
    assert moved == (ascent if method.follows_gradient else {"0.weight", "2.weight", "3.weight"})
    after = snapshot(model)
    assert {n for n in after if not torch.equal(after[n], before[n])} == ascent
    assert model[0].weight.grad is None
    assert opt.state_dict()["noiserobust"]["memory"].keys() <= {"2.weight"}


@pytest.mark.parametrize("parametrise", [parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("method", [METHODS["mixed-arwp"], nr.WeightAugmentation()], ids=["arwp", "was"])
def test_methods_that_need_the_gradient_of_the_weight_itself_refuse_parametrised_ones(method, parametrise) -> None:
    model = nn.Sequential(parametrise(nn.Conv2d(2, 3, 3)), nn.Conv2d(3, 3, 3))
    before = snapshot(model)
    with pytest.raises(nr.NoiseRobustError, match=r"Expected 0\.weight to be a plain parameter.*parametrised"):
        make(model, method)
    assert same_bits(before, snapshot(model))
    other = nr.RWP(NOISE) if isinstance(method, nr.ARWP) else nr.WeightAugmentation(select="1.*")
    make(model, other)


@some("rwp", "mixed", "sam")
def test_power_iteration_advances_once_a_step(method) -> None:
    model, plain = mlp(), mlp()
    for network in (model, plain):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            parametrizations.spectral_norm(network[0])
    x, y = features()
    opt = make(model, method, lr=0.0)
    for _ in range(2):
        opt.step(closure_of(opt, model, x, y))
        plain(x)
    assert same_bits(snapshot(plain), snapshot(model))
    assert not torch.equal(plain.state_dict()[(u := "0.parametrizations.weight.0._u")], before_u(u))


def before_u(name: str) -> Tensor:
    model = mlp()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parametrizations.spectral_norm(model[0])
    return model.state_dict()[name]


# --- Closures and schedulers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_step_calls_its_closure_once_a_pass_and_returns_the_clean_loss(name: str) -> None:
    model, seen = mlp(), []
    x, y = features()
    clean = cross_entropy(model(x), y).item()
    opt = make(model, METHODS[name])
    loss = opt.step(closure_of(opt, model, x, y, seen)).item()
    assert len(seen) == PASSES[name]
    assert (loss == clean) == METHODS[name].needs_clean_gradient
    assert loss in [s.item() for s in seen]


@pytest.mark.parametrize("closure", [3, [], [3], "closure"], ids=str)
def test_what_is_no_closure_is_refused(closure: object) -> None:
    opt = make(mlp(), METHODS["sam"])
    with pytest.raises(nr.NoiseRobustError, match="Expected `closure`"):
        opt.step(closure)
    with pytest.raises(nr.NoiseRobustError, match=r"get a closure or to follow `with opt\.perturbed\(\)`"):
        opt.step()


def test_unequal_numbers_of_micro_batches_that_ascend_each_by_itself_are_refused() -> None:
    model = mlp()
    before = snapshot(model)
    opt = make(model, nr.SAM(0.3, per_micro_batch=True))
    closure = closure_of(opt, model, *features())
    with pytest.raises(nr.NoiseRobustError, match="Expected"):
        opt.step([closure] * 3, [closure] * 2)
    assert same_bits(before, snapshot(model))


@every_method
def test_closures_and_blocks_agree_while_a_ramp_is_at_zero(method) -> None:
    models = mlp(), mlp()
    first, other = (make(m, method, schedule=nr.LinearRamp(3)) for m in models)
    for step in range(4):
        x, y = features(seed=step)
        first.step(closure_of(first, models[0], x, y))
        other.zero_grad()
        if method.needs_clean_gradient:
            cross_entropy(models[1](x), y).backward()
        for _ in range(method.draws):
            with other.perturbed():
                cross_entropy(models[1](x), y).backward()
        other.step()
    memories = [o.state_dict()["noiserobust"]["memory"] for o in (first, other)]
    assert memories[0].keys() == memories[1].keys()
    for name in memories[0]:
        torch.testing.assert_close(memories[0][name], memories[1][name])
    torch.testing.assert_close(snapshot(models[0]), snapshot(models[1]))


def step_with_scheduler(on_base: bool) -> float:
    model = mlp()
    opt = make(model, METHODS["sam"], scaler=huge_scaler())
    scheduler = torch.optim.lr_scheduler.StepLR(opt.base if on_base else opt, 1, gamma=0.5)
    for _ in range(2):
        opt.step(scaled_closure(opt, model, *features()))
        scheduler.step()
    rate: float = opt.base.param_groups[0]["lr"]
    return rate


def test_a_first_step_that_the_scaler_skips_gives_no_warning() -> None:
    assert step_with_scheduler(on_base=False) == 0.025  # warnings are errors
    with pytest.warns(UserWarning, match=r"lr_scheduler\.step"):  # there is one to be had
        step_with_scheduler(on_base=True)


@some("sam", "mixed", "draws")
def test_hooks_run_once_a_step(method) -> None:
    model = mlp()
    opt = make(model, method)
    ran: list[str] = []
    for name, optimizer in (("base", opt.base), ("wrapper", opt)):
        optimizer.register_step_pre_hook(lambda *_, n=name: ran.append(f"{n} before"))
        optimizer.register_step_post_hook(lambda *_, n=name: ran.append(f"{n} after"))
    opt.step(closure_of(opt, model, *features()))
    assert ran == ["wrapper before", "base before", "base after", "wrapper after"]


# --- Resume -----------------------------------------------------------------------------------------------------------


def resumed(damage: Callable[[dict], None], path: Path) -> bool:
    """Interrupt a training with memory and ramp after three steps; return whether it ends the same."""
    method = nr.ARWP(NOISE, 0.5, eta=50.0, beta=0.9)
    keywords = {"momentum": 0.9, "schedule": nr.QuadraticRamp(), "total_steps": 6, "seed": 3, "train_seed": 1}
    whole = mlp()
    opt = make(whole, method, **keywords)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=6)
    for step in range(6):
        if step == 3:
            state = {"model": whole.state_dict(), "opt": opt.state_dict(), "lr": scheduler.state_dict()}
            torch.save(state, path)
        opt.step(closure_of(opt, whole, *features(seed=step)))
        scheduler.step()
    model = mlp(seed=9)
    saved = torch.load(path, weights_only=True)
    damage(saved["opt"]["noiserobust"])
    model.load_state_dict(saved["model"])
    opt = make(model, method, **{**keywords, "seed": 0, "train_seed": 0})
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=6)
    opt.load_state_dict(saved["opt"])
    scheduler.load_state_dict(saved["lr"])
    for step in range(3, 6):
        opt.step(closure_of(opt, model, *features(seed=step)))
        scheduler.step()
    return same_bits(snapshot(whole), snapshot(model))


def test_a_saved_state_goes_on_with_memory_and_schedule(tmp_path) -> None:
    assert resumed(lambda own: None, tmp_path / "state.pt")


@pytest.mark.parametrize(
    "damage",
    [
        lambda own: own.update(memory={}),
        lambda own: own["memory"]["0.weight"].mul_(2),
        lambda own: own.update(steps=2),
        lambda own: own.update(seed=4),
    ],
    ids=["no memory", "memory", "steps", "seed"],
)
def test_each_part_of_the_saved_state_matters(damage: Callable[[dict], None], tmp_path) -> None:
    assert not resumed(damage, tmp_path / "state.pt")


def test_what_is_saved_holds_no_weights() -> None:
    model = mlp()
    opt = make(model, METHODS["mixed-arwp"])
    opt.step(closure_of(opt, model, *features()))
    own = opt.state_dict()["noiserobust"]
    assert own.keys() == {"steps", "seed", "train_seed", "memory", "passes"}
    assert {name: value.shape for name, value in own["memory"].items()} == {"0.weight": (5, 1), "2.weight": (3, 1)}


@every_method
def test_no_state_is_given_out_by_a_closure_at_perturbed_weights(method) -> None:
    model = mlp()
    before, given = snapshot(model), []
    opt = make(model, method)
    plain = closure_of(opt, model, *features())

    def closure() -> Tensor:
        clean = same_bits(before, snapshot(model))
        for take in (opt.state_dict, lambda: copy.deepcopy(opt)):
            with nullcontext() if clean else pytest.raises(nr.NoiseRobustError, match="perturbed"):
                take()
        given.append(clean)
        return plain()

    opt.step(closure)
    assert given.count(False) == method.draws
    opt.state_dict()


# --- Numerics ---------------------------------------------------------------------------------------------------------


def with_zeros(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Return a perceptron with a filter of zeros, and a head of nothing else."""
    model = mlp().to(dtype)
    with torch.no_grad():
        model[0].weight[1] = 0
        model[2].weight.zero_()
        model[2].bias.zero_()
    return model


NOISES = [
    nr.GaussianNoise(0.3),
    nr.GaussianNoise(0.3, reference="l2"),
    nr.GaussianNoise(0.3, granularity="tensor"),
    nr.LaplaceNoise(0.3),
]


@pytest.mark.parametrize("noise", NOISES, ids=str)
@pytest.mark.parametrize("kind", [nr.RWP, nr.ARWP])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_filters_of_zeros_stay_finite(kind, noise: Noise, dtype: torch.dtype) -> None:
    model = with_zeros(dtype)
    x, y = features()
    opt = make(model, kind(noise, 0.5))
    cross_entropy(model(x.to(dtype)), y).backward()
    with opt.perturbed():
        assert (model[2].weight == 0).all()
        assert (model[0].weight[0] != 0).any()
        if "tensor" not in noise.name:
            assert (model[0].weight[1] == 0).all()
        cross_entropy(model(x.to(dtype)), y).backward()
    opt.step()
    opt.step(closure_of(opt, model, x.to(dtype), y))
    assert all(p.isfinite().all() for p in model.parameters())
    assert (model[2].weight != 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", [nr.SAM(0.5), nr.ASAM(0.5)], ids=["sam", "asam"])
def test_gradients_of_zeros_move_nothing(method, dtype: torch.dtype) -> None:
    model = with_zeros(dtype)
    before = snapshot(model)
    opt = make(model, method)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with opt.perturbed():
        assert same_bits(before, snapshot(model))
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
    opt.step()
    assert same_bits(before, snapshot(model))


class Gain(nn.Module):
    """A perceptron with a parameter that has no dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.layer(x)


EVERYTHING: dict[str, Callable[[str, nn.Module, Tensor], bool]] = {"select": lambda name, module, weight: True}


@pytest.mark.parametrize(
    "method",
    [
        nr.SAM(0.5),
        nr.ASAM(0.5),
        nr.RWP(NOISE, 0.5, **EVERYTHING),
        nr.RWP(nr.GaussianNoise(0.3, reference="l2"), **EVERYTHING),
        nr.ARWP(NOISE, 0.5, **EVERYTHING),
    ],
    ids=["sam", "asam", "mixed", "l2", "arwp"],
)
def test_parameters_without_dimensions_are_perturbed(method) -> None:
    model = seeded(Gain, 0)
    x, y = features()
    opt = make(model, method)
    for step in range(3):
        gains: list[float] = []

        def closure(gains=gains) -> Tensor:
            gains.append(model.gain.item())
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss

        before = model.gain.item()
        opt.step(closure)
        assert any(g != before for g in gains), step
        assert model.gain.shape == ()
        assert model.gain.isfinite()
        assert model.gain.item() != before


@every_method
def test_the_memory_layout_does_not_matter(method) -> None:
    states = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = seeded(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)), 0).double()
        model = model.to(memory_format=layout)
        opt = make(model, method)
        for step in range(3):
            x, y = images(seed=step)
            opt.step(closure_of(opt, model, x.double().contiguous(memory_format=layout), y))
        assert model[0].weight.is_contiguous(memory_format=layout)
        states.append(snapshot(model))
    torch.testing.assert_close(states[0], states[1], rtol=1e-10, atol=1e-12)


def bits_after(method, steps: int, dtype: torch.dtype = torch.bfloat16) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights before and after steps of length zero."""
    model = mlp().to(dtype)
    before = snapshot(model)
    opt = make(model, method, lr=0.0)
    x, y = features(4)
    closure = closure_of(opt, model, x.to(dtype), y)
    for _ in range(steps):
        opt.step(closure)
    return before, snapshot(model)


@some("sam", "rwp")
@pytest.mark.slow
def test_bf16_weights_do_not_drift(method) -> None:
    assert same_bits(*bits_after(method, 1000))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@some("sam", "rwp")
def test_subtracting_the_perturbation_would_drift(method, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(parameter: Tensor, change: Callable, memory: object, undo: list[Callable[[], None]]) -> None:
        with torch.no_grad():
            value = parameter.clone()
            change(value)
            offset = value - parameter
            undo.append(lambda: parameter.data.sub_(offset))
            parameter.add_(offset)

    assert same_bits(*bits_after(method, 10, dtype))
    monkeypatch.setattr("noiserobust.perturb._write", add)
    assert not same_bits(*bits_after(method, 10, dtype))


# --- Dropout ----------------------------------------------------------------------------------------------------------


def masks_of(method, steps: int = 2, parts: int = 1, **keywords: object) -> list[list[Tensor]]:
    """Return the dropout masks of each step, one a forward pass."""
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 3)), 0)
    masks: list[Tensor] = []
    model[1].register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    opt = make(model, method, **keywords)
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for step in range(steps):
            x, y = features(seed=step)
            closures = [closure_of(opt, model, *part) for part in zip(x.chunk(parts), y.chunk(parts), strict=True)]
            opt.step(closures)
            found.append(masks.copy())
            masks.clear()
    return found


@some("sam", "mixed-sam", "mixed", "draws", "mixed-arwp")
@pytest.mark.parametrize("parts", [1, 2])
def test_all_passes_of_a_step_may_have_the_same_masks(method, parts: int) -> None:
    steps = masks_of(method, parts=parts, same_dropout=True)
    for masks in steps:
        passes = [masks[i : i + parts] for i in range(0, len(masks), parts)]
        assert len(passes) == (3 if method.draws == 2 else 2)
        assert all(torch.equal(a, b) for other in passes[1:] for a, b in zip(passes[0], other, strict=True))
        assert all(not torch.equal(passes[0][0], other) for other in passes[0][1:])  # micro-batches differ
        assert 0.3 < passes[0][0].float().mean() < 0.7
    assert not torch.equal(steps[0][0], steps[1][0])


def test_the_same_masks_for_micro_batches_that_ascend_each_by_itself() -> None:
    (masks, _) = masks_of(nr.SAM(0.3, per_micro_batch=True), parts=2, same_dropout=True)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])


@some("sam", "mixed", "draws")
def test_by_default_each_pass_has_masks_of_its_own(method) -> None:
    for masks in masks_of(method):
        assert not any(torch.equal(masks[0], other) for other in masks[1:])


def test_several_chips_by_hand_are_refused() -> None:
    model = mlp()
    before = snapshot(model)
    opt = make(model, nr.RWP(nr.GaussianNoise(0.2), chips=2))
    with pytest.raises(nr.NoiseRobustError, match="closure with `chips`, but `perturbed` was entered"), opt.perturbed():
        pass
    assert same_bits(before, snapshot(model))


@some("sam", "mixed")
def test_the_same_masks_by_hand_are_refused(method) -> None:
    model = mlp()
    before = snapshot(model)
    opt = make(model, method, same_dropout=True)
    cross_entropy(model(features()[0]), features()[1]).backward()
    with pytest.raises(nr.NoiseRobustError, match="closure with `same_dropout`"), opt.perturbed():
        pass
    assert same_bits(before, snapshot(model))
