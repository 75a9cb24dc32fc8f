"""The optimizer as a guest in any training loop: schedulers, checkpoints, odd parameters, wrong use."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from small_models import Tied, closure_of, cnn, features, images, mlp, same_bits, seeded, snapshot
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations

import noiserobust as nr

METHODS = {
    "sam": nr.SAM(0.3),
    "rwp": nr.RWP(nr.GaussianNoise(0.3)),
    "mixed": nr.RWP(nr.GaussianNoise(0.3), 0.5),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def make(model: nn.Module, method, lr: float = 0.1, **keywords: object) -> nr.PerturbedOptimizer:
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=0.01)
    return nr.PerturbedOptimizer(base, method, model, **keywords)


def run(opt: nr.PerturbedOptimizer, model: nn.Module, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        opt.step(closure_of(opt, model, *features(seed=step)))


@every_method
def test_closure_and_context_manager_give_identical_weights(method) -> None:
    first, second = mlp(), mlp()
    opt = make(first, method)
    run(opt, first, 3)
    other = make(second, method)
    for step in range(3):
        x, y = features(seed=step)
        other.zero_grad()
        if method.needs_clean_gradient:
            cross_entropy(second(x), y).backward()
        with other.perturbed():
            cross_entropy(second(x), y).backward()
        assert other.step() is None
    assert same_bits(snapshot(first), snapshot(second))
    assert same_bits(
        {"m": opt.state[first[0].weight]["momentum_buffer"]}, {"m": other.state[second[0].weight]["momentum_buffer"]}
    )


@every_method
def test_backward_leaves_the_gradients_that_a_step_takes(method) -> None:
    first, second = mlp(), mlp()
    opt, other = make(first, method), make(second, method)
    for step in range(3):
        before = snapshot(second)
        loss = opt.step(closure_of(opt, first, *features(seed=step)))
        for _ in range(2):  # asked again, it gives the same again
            assert torch.equal(loss, other.backward(closure_of(other, second, *features(seed=step))))
        assert same_bits(before, snapshot(second))
        seen = {name: p.grad.clone() for name, p in second.named_parameters()}
        assert same_bits(seen, {name: p.grad for name, p in first.named_parameters()})
        other.step()
        assert same_bits(snapshot(first), snapshot(second))
    with pytest.raises(nr.errors.StateError, match="to get a closure or to follow"):
        other.step()
    other.backward(closure_of(other, second, *features()))
    other.zero_grad()
    with pytest.raises(nr.errors.StateError, match="to get a closure or to follow"):
        other.step()


@pytest.mark.parametrize("on", ["wrapper", "base"])
@pytest.mark.parametrize(
    "schedule",
    [
        lambda opt: torch.optim.lr_scheduler.StepLR(opt, 2, gamma=0.5),
        lambda opt: torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=8),
        lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=8),
    ],
    ids=["step", "cosine", "one-cycle"],
)
@every_method
def test_schedulers_work_on_either_optimizer_without_a_warning(method, schedule: Callable, on: str) -> None:
    wrapped, plain = mlp(), mlp()
    opt = make(wrapped, method)
    scheduler = schedule(opt if on == "wrapper" else opt.base)
    reference = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    expected = schedule(reference)
    for step in range(6):
        assert opt.param_groups[0]["lr"] == opt.base.param_groups[0]["lr"] == reference.param_groups[0]["lr"]
        run(opt, wrapped, 1, step)
        scheduler.step()  # warnings are errors
        reference.step()
        expected.step()
    assert opt.param_groups[0]["lr"] != 0.1


def test_the_learning_rate_of_the_wrapper_is_the_one_used() -> None:
    model = mlp()
    opt = make(model, METHODS["sam"])
    opt.param_groups[0]["lr"] = 0.0
    before = snapshot(model)
    run(opt, model, 2)
    assert same_bits(before, snapshot(model))


@every_method
def test_a_restored_state_goes_on_with_the_same_noise(method) -> None:
    whole, halves = mlp(), mlp()
    opt = make(whole, method, seed=3)
    run(opt, whole, 5)
    first = make(halves, method, seed=3)
    run(first, halves, 2)
    saved, weights = copy.deepcopy(first.state_dict()), snapshot(halves)

    resumed = mlp(seed=9)
    resumed.load_state_dict(weights)
    opt = make(resumed, method, lr=0.7, seed=3)
    scheduler = torch.optim.lr_scheduler.ConstantLR(opt, factor=1.0)
    opt.load_state_dict(saved)
    assert opt.param_groups is opt.base.param_groups
    assert opt.state is opt.base.state
    run(opt, resumed, 3, start=2)
    scheduler.step()
    assert opt.param_groups[0]["lr"] == 0.1
    assert same_bits(snapshot(whole), snapshot(resumed))


def test_a_state_without_the_number_of_steps_would_repeat_noise() -> None:
    # What the test above guards against: were `steps` not restored, the weights would differ.
    method = METHODS["rwp"]
    whole, resumed = mlp(), mlp()
    run(make(whole, method), whole, 2)
    opt = make(resumed, method)
    run(opt, resumed, 1)
    opt.steps = 0
    run(opt, resumed, 1, start=1)
    assert not same_bits(snapshot(whole), snapshot(resumed))


def test_the_state_survives_torch_save(tmp_path) -> None:
    model = mlp()
    opt = make(model, METHODS["mixed"])
    run(opt, model, 2)
    torch.save(opt.state_dict(), tmp_path / "opt.pt")
    other = make(model, METHODS["mixed"])
    other.load_state_dict(torch.load(tmp_path / "opt.pt", weights_only=True))
    assert other.steps == 2


def test_the_state_is_that_of_the_base_and_one_entry() -> None:
    model = mlp()
    opt = make(model, METHODS["rwp"], seed=2, train_seed=1)
    run(opt, model, 2)
    state = opt.state_dict()
    assert state.pop("noiserobust") == {"steps": 2, "seed": 2, "train_seed": 1, "memory": {}, "passes": 2}
    assert state.keys() == {"state", "param_groups"}
    other = make(model, METHODS["rwp"])
    other.base.load_state_dict(state)  # a plain optimizer reads it
    assert other.state[model[0].weight].keys() == {"momentum_buffer"}


def test_the_seeds_of_the_noise_are_restored_too() -> None:
    method = METHODS["rwp"]
    whole, resumed = mlp(), mlp()
    opt = make(whole, method, seed=3, train_seed=2)
    run(opt, whole, 1)
    resumed.load_state_dict(whole.state_dict())
    other = make(resumed, method)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    run(opt, whole, 1, start=1)
    run(other, resumed, 1, start=1)
    assert same_bits(snapshot(whole), snapshot(resumed))


OWN = {"steps": 1, "seed": 0, "train_seed": 0}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"noiserobust": None}, "'noiserobust'.* steps, seed, train_seed, but got None"),
        ({"noiserobust": {"steps": 1, "seed": 0}}, "steps, seed, train_seed, but got steps, seed"),
        ({"noiserobust": {**OWN, "steps": -1}}, "`steps` to be an integer >= 0"),
        ({"noiserobust": {**OWN, "train_seed": "0"}}, "`train_seed` to be an integer >= 0"),
        ({"noiserobust": {**OWN, "passes": -2}}, "`passes` to be an integer >= 0"),
    ],
)
def test_a_damaged_entry_is_refused_before_anything_is_loaded(entries: dict, said: str) -> None:
    model = mlp()
    opt = make(model, METHODS["sam"])
    state = {**make(model, METHODS["sam"], lr=0.7).state_dict(), **entries}
    with pytest.raises(nr.NoiseRobustError, match=said):
        opt.load_state_dict(state)
    assert opt.param_groups[0]["lr"] == 0.1


def test_passes_are_counted_where_closures_are_called() -> None:
    noise, four = nr.GaussianNoise(0.3), nr.OffToOn(4)
    cases = [
        (nr.Unperturbed(), {}, 6),
        (nr.SAM(0.3), {}, 12),
        (nr.SAM(0.3), {"schedule": four}, 8),  # four of six steps have no second pass
        (nr.SAM(0.3, 0.5, per_micro_batch=True), {}, 12),
        (nr.RWP(noise), {}, 6),
        (nr.RWP(noise), {"schedule": four}, 6),
        (nr.RWP(noise, 0.5), {"schedule": four}, 8),
        (nr.RWP(noise, draws=3), {}, 18),
        (nr.RWP(noise, chips=2), {}, 6),
        (nr.RWP(noise, 0.5, chips=2), {}, 12),
        (nr.RWP(noise, 0.5, draws=3), {}, 24),
        (nr.ARWP(noise, 0.5), {}, 12),
    ]
    for method, keywords, passes in cases:
        for parts in (1, 2):
            model, seen = mlp(), []
            opt = make(model, method, **keywords)
            for step in range(6):
                x, y = features(seed=step)
                batches = zip(x.chunk(parts), y.chunk(parts), strict=True)
                opt.step([closure_of(opt, model, *batch, seen) for batch in batches])
            assert (opt.passes, len(seen)) == (passes, passes * parts), (method, parts)  # micro-batches are no passes
            assert opt.state_dict()["noiserobust"]["passes"] == passes
    model = mlp()
    opt = make(model, nr.SAM(0.3), schedule=four)  # strength 0 with another batch: the second pass is run
    opt.step(closure_of(opt, model, *features()), closure_of(opt, model, *features(seed=1)))
    assert opt.passes == 2


@pytest.mark.parametrize(
    ("method", "passes"), [(METHODS["sam"], 2), (METHODS["mixed"], 2), (nr.RWP(nr.GaussianNoise(0.3), draws=3), 3)]
)
def test_passes_are_counted_by_hand_too_and_go_on_in_a_restored_state(method, passes: int) -> None:
    model = mlp()
    opt = make(model, method)
    x, y = features()
    if method.needs_clean_gradient:
        cross_entropy(model(x), y).backward()
    for _ in range(method.draws):
        with opt.perturbed():
            cross_entropy(model(x), y).backward()
    opt.step()
    assert opt.passes == passes
    other = make(model, method)
    other.load_state_dict(opt.state_dict())
    run(other, model, 1)
    assert other.passes == 2 * passes
    assert opt.passes == passes


def test_a_state_that_does_not_know_its_passes_is_loaded_and_says_so() -> None:
    model = mlp()
    opt = make(model, METHODS["sam"])
    run(opt, model, 1)
    state = opt.state_dict()
    del state["noiserobust"]["passes"]
    opt.load_state_dict(state)
    run(opt, model, 1)
    assert opt.steps == 2
    assert opt.passes is None  # not the 2 of the second step
    opt.load_state_dict(opt.state_dict())
    assert opt.passes is None


def test_a_foreign_state_is_refused_naming_the_keys() -> None:
    opt = make(mlp(), METHODS["sam"])
    with pytest.raises(
        nr.NoiseRobustError, match=r"keys state, param_groups, noiserobust, but got state, param_groups$"
    ):
        opt.load_state_dict(opt.base.state_dict())
    with pytest.raises(nr.NoiseRobustError, match=r"but got base, steps$"):
        opt.load_state_dict({"base": opt.base.state_dict(), "steps": 3})


def test_the_state_of_a_later_version_is_read() -> None:
    opt = make(mlp(), METHODS["sam"])
    state = opt.state_dict()
    opt.load_state_dict({**state, "noiserobust": {**OWN, "steps": 5, "since": "2.0"}})
    assert opt.steps == 5


def test_loading_into_the_base_leaves_the_wrapper_up_to_date() -> None:
    model = mlp()
    opt = make(model, METHODS["mixed"])
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.5)
    saved = make(model, METHODS["mixed"], lr=0.8)
    run(saved, model, 1)
    opt.base.load_state_dict(copy.deepcopy(saved.base.state_dict()))
    assert opt.param_groups is opt.base.param_groups
    assert opt.state is opt.base.state
    run(opt, model, 1)
    scheduler.step()
    assert opt.base.param_groups[0]["lr"] == 0.4


@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
@every_method
def test_a_copy_goes_on_by_itself_over_a_model_of_its_own(method, how: Callable) -> None:
    model = mlp()
    opt = make(model, method, seed=4)
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1)  # patches `step` of the original
    run(opt, model, 2)
    scheduler.step()
    before = snapshot(model)
    other = how(opt)
    run(other, other.model, 2, start=2)
    assert same_bits(before, snapshot(model))
    assert opt.steps == 2
    run(opt, model, 2, start=2)
    assert same_bits(snapshot(model), snapshot(other.model))
    assert repr(other) == repr(opt)


def test_no_copy_is_made_while_the_weights_are_perturbed() -> None:
    opt = make(mlp(), METHODS["rwp"])
    with opt.perturbed(), pytest.raises(nr.NoiseRobustError, match="perturbed"):
        copy.deepcopy(opt)


@every_method
def test_gradients_taken_after_zero_grad_do_not_pass_as_perturbed(method) -> None:
    model = mlp()
    x, y = features()
    opt = make(model, method)
    cross_entropy(model(x), y).backward()
    with opt.perturbed():
        opt.zero_grad()  # as a closure may
        cross_entropy(model(x), y).backward()
    opt.zero_grad()
    cross_entropy(model(x), y).backward()
    before = snapshot(model)
    with pytest.raises(nr.NoiseRobustError, match="perturbed"):
        opt.step()
    assert same_bits(before, snapshot(model))


def test_no_state_is_given_out_while_the_weights_are_perturbed() -> None:
    model = mlp()
    opt = make(model, METHODS["rwp"])
    with opt.perturbed(), pytest.raises(RuntimeError, match="perturbed"):
        opt.state_dict()
    opt.state_dict()


def test_step_wants_a_closure_or_a_perturbed_block_each_time() -> None:
    model = mlp()
    opt = make(model, METHODS["rwp"])
    with pytest.raises(RuntimeError, match="closure"):
        opt.step()
    x, y = features()
    with opt.perturbed():
        cross_entropy(model(x), y).backward()
    opt.step()
    with pytest.raises(RuntimeError, match="closure"):
        opt.step()


@every_method
def test_a_closure_that_does_not_call_backward_is_refused(method) -> None:
    model = mlp()
    x, y = features()
    before = snapshot(model)
    opt = make(model, method)
    with pytest.raises(nr.NoiseRobustError, match="backward"):
        opt.step(lambda: cross_entropy(model(x), y))
    assert same_bits(before, snapshot(model))


@every_method
def test_perturbed_inside_itself_is_refused_and_everything_is_restored(method) -> None:
    model = mlp()
    x, y = features()
    before = snapshot(model)
    opt = make(model, method)
    cross_entropy(model(x), y).backward()
    with opt.perturbed():
        with pytest.raises(nr.NoiseRobustError, match="inside itself"), opt.perturbed():
            pass
        assert not same_bits(before, snapshot(model))
    assert same_bits(before, snapshot(model))


def test_sam_by_hand_without_a_clean_gradient_is_refused() -> None:
    model = mlp()
    opt = make(model, METHODS["sam"])
    with pytest.raises(nr.NoiseRobustError, match=r"loss\.backward"), opt.perturbed():
        pass


def test_sparse_gradients_are_refused_by_sam() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 3), nn.Embedding(5, 3, sparse=True)), 0)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.SAM(0.1), model)
    before = snapshot(model)

    def closure() -> Tensor:
        loss = model[0](model[1](torch.tensor([1, 2]))).square().sum()
        loss.backward()
        return loss

    with pytest.raises(nr.NoiseRobustError, match="dense"):
        opt.step(closure)
    assert same_bits(before, snapshot(model))


@every_method
def test_an_added_group_is_trained_and_its_gradient_counts(method) -> None:
    model = mlp()
    base = torch.optim.SGD([model[0].weight], lr=0.1)
    opt = nr.PerturbedOptimizer(base, method, model)
    opt.add_param_group({"params": [model[2].weight], "lr": 0.01})
    assert [g["lr"] for g in base.param_groups] == [g["lr"] for g in opt.param_groups] == [0.1, 0.01]
    before = snapshot(model)
    run(opt, model, 1)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"0.weight", "2.weight"}


def test_named_parameters_are_accepted() -> None:
    model = mlp()
    base = torch.optim.SGD(model.named_parameters(), lr=0.1)
    opt = nr.PerturbedOptimizer(base, METHODS["sam"], model)
    run(opt, model, 1)
    assert opt.param_groups[0]["param_names"] == [n for n, _ in model.named_parameters()]


@pytest.mark.parametrize("method", [METHODS["rwp"], METHODS["mixed"]], ids=["rwp", "mixed"])
def test_frozen_weights_feel_the_noise_but_stay_what_they_were(method) -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    before = snapshot(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    opt = nr.PerturbedOptimizer(torch.optim.SGD(trained, lr=0.1), method, model)
    cross_entropy(model(features()[0]), features()[1]).backward()
    with opt.perturbed():
        assert not torch.equal(model[0].weight, before["0.weight"])
        cross_entropy(model(features()[0]), features()[1]).backward()
    opt.step()
    assert same_bits({"w": before["0.weight"]}, {"w": model[0].weight.detach()})
    assert not torch.equal(model[2].weight, before["2.weight"])


def test_sam_leaves_frozen_weights_alone() -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    before = snapshot(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    opt = nr.PerturbedOptimizer(torch.optim.SGD(trained, lr=0.1), METHODS["sam"], model)
    cross_entropy(model(features()[0]), features()[1]).backward()
    with opt.perturbed():
        assert torch.equal(model[0].weight, before["0.weight"])
        assert not torch.equal(model[2].weight, before["2.weight"])


@every_method
def test_tied_weights_are_perturbed_once(method) -> None:
    model = seeded(Tied, 0)
    weight = model.first.weight
    before, x, y = snapshot(model), *features()
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.0), method, model)
    cross_entropy(model(x), y).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    with opt.perturbed():
        if isinstance(method, nr.SAM):
            expected = before["first.weight"] + 0.3 * weight_grad(gradients)
        else:
            expected = method.noise.perturb(before["first.weight"], nr.Stream(0, "train", 0, 0, "first.weight"))
        torch.testing.assert_close(weight.detach(), expected)
        assert model.second.weight is weight
        cross_entropy(model(x), y).backward()
    opt.step()
    assert same_bits(before, snapshot(model))


def weight_grad(gradients: list[Tensor]) -> Tensor:
    """Return the direction of ascent of the first of all gradients."""
    return gradients[0] / sum(g.square().sum() for g in gradients).sqrt()


@every_method
@pytest.mark.parametrize("parametrise", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_weights_are_trained_and_restored(method, parametrise: Callable) -> None:
    model = mlp()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parametrise(model[0])
    x, y = features()
    base = torch.optim.SGD(model.parameters(), lr=0.0)
    opt = nr.PerturbedOptimizer(base, method, model)
    model.eval()  # spectral norm iterates in training mode only
    before, effective = snapshot(model), model[0].weight.detach().clone()
    cross_entropy(model(x), y).backward()
    with opt.perturbed():
        if not isinstance(method, nr.SAM):
            noisy = method.noise.perturb(effective, nr.Stream(0, "train", 0, 0, "0.weight"))
            torch.testing.assert_close(model[0].weight.detach(), noisy)
        assert not torch.equal(model[0].weight, effective)
        cross_entropy(model(x), y).backward()
    opt.step()
    assert same_bits(before, snapshot(model))
    base.param_groups[0]["lr"] = 0.1
    opt.step(closure_of(opt, model, x, y))
    assert not same_bits(before, snapshot(model))


@every_method
def test_an_enclosing_autocast_does_not_serve_stale_weights(method) -> None:
    x, y = features()
    model, reference = mlp(), mlp()
    opt, other = make(model, method), make(reference, method)
    seen: list[Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        opt.step(closure_of(opt, model, x, y, seen))
        opt.step(closure_of(opt, model, x, y, seen))

    def closure() -> Tensor:
        other.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(reference(x), y)
        loss.backward()
        return loss

    other.step(closure)
    other.step(closure)
    assert same_bits(snapshot(model), snapshot(reference))
    assert len({loss.item() for loss in seen}) == len(seen)


@every_method
def test_adamw_works_as_a_base(method) -> None:
    x, y = features(64)
    y = (x[:, 0] > 0).long()
    model = mlp()
    opt = nr.PerturbedOptimizer(torch.optim.AdamW(model.parameters(), lr=0.05), method, model)
    losses = [opt.step(closure_of(opt, model, x, y)).item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


@every_method
def test_gradients_are_on_inside_step_even_under_no_grad(method) -> None:
    model = mlp()
    before = snapshot(model)
    opt = make(model, method)
    with torch.no_grad():
        run(opt, model, 1)
    assert not same_bits(before, snapshot(model))


@every_method
def test_the_global_generator_is_not_touched(method) -> None:
    model = mlp()
    opt = make(model, method)
    state = torch.get_rng_state()
    run(opt, model, 2)
    assert torch.equal(state, torch.get_rng_state())


def test_seed_and_train_seed_choose_the_noise() -> None:
    states = []
    for keywords in ({}, {"seed": 1}, {"train_seed": 1}):
        model = mlp()
        run(make(model, METHODS["rwp"], **keywords), model, 1)
        states.append(snapshot(model))
    assert not any(same_bits(states[i], states[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize(
    "arguments",
    [
        lambda m: (m, nr.SAM(0.1), m),
        lambda m: (torch.optim.SGD(m.parameters(), lr=0.1), nr.GaussianNoise(0.1), m),
        lambda m: (torch.optim.SGD(m.parameters(), lr=0.1), nr.SAM, m),
    ],
)
def test_wrong_arguments_are_refused(arguments: Callable) -> None:
    with pytest.raises(nr.NoiseRobustError, match="Expected"):
        nr.PerturbedOptimizer(*arguments(mlp()))


@every_method
def test_dropout_and_batch_norm_models_train(method) -> None:
    x, y = images(48)
    y = (x.mean((1, 2, 3)) > 0).long()
    model = cnn()
    opt = make(model, method, lr=0.05)
    losses = [opt.step(closure_of(opt, model, x, y)).item() for _ in range(30)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_an_optimizer_that_asks_for_several_gradients_a_step_is_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(nr.NoiseRobustError, match="but LBFGS asks for several"):
        nr.PerturbedOptimizer(torch.optim.LBFGS(model.parameters()), nr.SAM(), model)
