"""Several processes under DistributedDataParallel take the step that one process takes on the whole batch.

The processes are started once; each scenario leaves what it found in a file, which the tests below look at.
"""

from __future__ import annotations

import multiprocessing
import re
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from small_models import closure_of, exact, features, gradient, images, mlp, mlp_loss, same_bits, seeded, snapshot
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import noiserobust as nr
from noiserobust.config import OptimizerConfig, TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize
from noiserobust.train.distributed import Ranks
from noiserobust.train.trainer import Trainer

Batch = tuple[Tensor, Tensor]
Found = dict[str, Any]

NOISE = nr.GaussianNoise(0.3)
METHODS = {
    "sgd": nr.Unperturbed(),
    "rwp": nr.RWP(NOISE),
    "mixed": nr.RWP(NOISE, 0.3),
    "draws": nr.RWP(NOISE, 0.3, draws=2),
    "sam": nr.SAM(0.3),
    "mixed-sam": nr.SAM(0.3, perturbed_weight=0.4),
    "arwp": nr.ARWP(NOISE, eta=5.0),
    "mixed-arwp": nr.ARWP(NOISE, 0.5, eta=5.0),
}
PASSES = {"sgd": 1, "rwp": 1, "mixed": 2, "draws": 3, "sam": 2, "mixed-sam": 2, "arwp": 1, "mixed-arwp": 2}
STEPS = 3
SHARES = (0.5, 0.3)
HALF_SPLIT = nr.RWP(NOISE, 0.5)


# --- What every process does ------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    return mlp().double()


def normalised() -> nn.Sequential:
    return seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)), 0
    ).double()


def kernels() -> nn.Sequential:
    return seeded(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)), 0).double()


def part(batch: Batch, number: int, parts: int, micro: int = 1) -> list[Batch]:
    """Return the micro-batches of one of equal parts of a batch."""
    x, y = batch[0].double().chunk(parts)[number], batch[1].chunk(parts)[number]
    return list(zip(x.chunk(micro), y.chunk(micro), strict=True))


def train(
    model: nn.Module,
    method,
    batches: Callable[[int], Sequence[Batch]],
    *,
    lr: float = 0.1,
    momentum: float = 0.9,
    after: Callable[[], None] = lambda: None,
    **keywords: object,
) -> Found:
    """Train three steps; return weights and buffers, what the method remembers, and the losses of the last step."""
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    opt = nr.PerturbedOptimizer(base, method, model, **keywords)
    for step in range(STEPS):
        seen: list[Tensor] = []
        opt.step([closure_of(opt, model, x, y, seen) for x, y in batches(step)])
        after()
    whole = getattr(model, "_orig_mod", model)
    whole = whole.module if isinstance(whole, DistributedDataParallel) else whole
    memory = opt.state_dict()["noiserobust"]["memory"]
    return {"weights": snapshot(whole), "memory": memory, "losses": seen, "passes": opt.passes}


def parallel(model: nn.Module, **keywords: object) -> tuple[DistributedDataParallel, list[int]]:
    """Return the model in DistributedDataParallel, and a list that grows with each of its all-reductions."""
    wrapped = DistributedDataParallel(model, **keywords)
    sent: list[int] = []

    def hook(state, bucket):  # checked by torch, which cannot read annotations that are text
        sent.append(bucket.index())
        return allreduce_hook(None, bucket)

    wrapped.register_comm_hook(None, hook)
    return wrapped, sent


def share_of_batch(method, rank: int, world: int, *, micro: int = 1, view: bool = False, **keywords: object) -> Found:
    model, sent = parallel(network(), gradient_as_bucket_view=view)
    found = train(model, method, lambda step: part(features(seed=step), rank, world, micro), **keywords)
    return {**found, "sent": len(sent)}


def compiled(rank: int, world: int) -> Found:
    model, _ = parallel(network(), gradient_as_bucket_view=True)
    outer = torch.compile(model, backend="eager")
    return train(outer, METHODS["mixed"], lambda step: part(features(seed=step), rank, world))


def split(share: float, rank: int, world: int, *, micro: int = 1, view: bool = False) -> Found:
    """Train with clean and noisy ranks; each pair of them has the same examples."""
    model, sent = parallel(network(), gradient_as_bucket_view=view)
    places = []

    def batches(step: int) -> list[Batch]:
        return part(features(seed=step), rank // 2, world // 2, micro)

    def watch(module: nn.Module, inputs: object) -> None:
        places.append({n: p.detach().clone() for n, p in module.named_parameters()})

    model.module.register_forward_pre_hook(watch)
    found = train(model, nr.RWP(NOISE, share), batches, split_ranks=True)
    return {**found, "places": places, "sent": len(sent)}


def split_subgroup(rank: int, world: int) -> Found:
    """Train two models at once, one on the even and one on the odd processes, each with a clean and a noisy rank."""
    groups = [dist.new_group([first, first + 2]) for first in range(2)]  # by every process
    model = DistributedDataParallel(network(), process_group=groups[rank % 2])
    return train(model, HALF_SPLIT, lambda step: part(features(seed=step), 0, 1), split_ranks=True)


def split_normalised(rank: int, world: int) -> Found:
    model = DistributedDataParallel(normalised())
    history: list[dict[str, Tensor]] = [{n: b.clone() for n, b in model.module.named_buffers()}]
    found = train(
        model,
        HALF_SPLIT,
        lambda step: part(images(seed=step), 0, 1),
        split_ranks=True,
        after=lambda: history.append({n: b.clone() for n, b in model.module.named_buffers()}),
    )
    return {**found, "history": history}


def split_augmented(rank: int, world: int) -> Found:
    model = DistributedDataParallel(kernels())
    return train(model, AUGMENTED, lambda step: part(images(seed=step), 0, 1), split_ranks=True)


AUGMENTED = nr.WeightAugmentation(perturbed_weight=0.5)


def overflow_on_the_last_rank(method, rank: int, world: int) -> Found:
    """Train two steps; in the first one the last rank alone overflows."""
    model = DistributedDataParallel(mlp())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), method, model, scaler=scaler)
    history = [snapshot(model.module)]
    calls = 0
    for step in range(2):
        x, y = features(seed=step)
        x, y = x.chunk(world)[rank], y.chunk(world)[rank]

        def closure(x: Tensor = x, y: Tensor = y, step: int = step) -> Tensor:
            nonlocal calls
            loss = cross_entropy(model(x), y)
            factor = float("inf") if rank == world - 1 and step == 0 else 1.0
            calls += 1
            (scaler.scale(loss) * factor).backward()
            return loss

        opt.step(closure)
        history.append(snapshot(model.module))
    return {"history": history, "scale": scaler.get_scale(), "calls": calls, "weights": history[-1]}


def refusal(make: Callable[[], object]) -> Found:
    """Return the error that making something gives."""
    try:
        make()
    except Exception as error:  # whatever it is: the test says which one it has to be
        return {"error": type(error).__name__, "said": str(error), "ours": isinstance(error, nr.NoiseRobustError)}
    return {"error": None, "said": "", "ours": False}


def optimizer(model: nn.Module, method=HALF_SPLIT, **keywords: object) -> nr.PerturbedOptimizer:
    return nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), method, model, **keywords)


def with_sync_batch_norm() -> nn.Module:
    model = DistributedDataParallel(normalised())
    model.module[1] = nn.SyncBatchNorm(4)  # DistributedDataParallel itself would refuse it on a CPU
    return model


def fully_sharded_1() -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(network(), device_id=torch.device("cpu"))


def fully_sharded_2() -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return model


def sharded_tensor() -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = nn.Linear(6, 4)
    model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [Shard(0)]))
    return model


SHARDED = {"FSDP": fully_sharded_1, "fully_shard": fully_sharded_2, "DTensor": sharded_tensor}


def by_hand_split() -> None:
    with optimizer(DistributedDataParallel(network()), split_ranks=True).perturbed():
        pass


REFUSED: dict[str, Callable[[], object]] = {
    "SAM": lambda: optimizer(DistributedDataParallel(network()), nr.SAM(0.1, perturbed_weight=0.5), split_ranks=True),
    "pure RWP": lambda: optimizer(DistributedDataParallel(network()), nr.RWP(NOISE), split_ranks=True),
    "ARWP": lambda: optimizer(DistributedDataParallel(network()), nr.ARWP(NOISE, 0.5), split_ranks=True),
    "draws": lambda: optimizer(DistributedDataParallel(network()), nr.RWP(NOISE, 0.5, draws=2), split_ranks=True),
    "chips": lambda: optimizer(DistributedDataParallel(network()), nr.RWP(NOISE, 0.5, chips=2), split_ranks=True),
    "SyncBatchNorm": lambda: optimizer(with_sync_batch_norm(), split_ranks=True),
    "same dropout": lambda: optimizer(DistributedDataParallel(network()), split_ranks=True, same_dropout=True),
    "not wrapped": lambda: optimizer(network(), split_ranks=True),
    "by hand": by_hand_split,
    **{name: lambda make=make: optimizer(make(), nr.SAM(0.1)) for name, make in SHARDED.items()},
}


def m_sam(share: float = 1.0) -> nr.SAM:
    return nr.SAM(0.3, perturbed_weight=share, per_micro_batch=True)


def chips(share: float) -> nr.RWP:
    return nr.RWP(NOISE, share, chips=4)


def chips_of_a_body(rank: int, world: int) -> Found:
    """Train a body under noise and a head with an optimizer of its own; each rank uses one of two first layers."""
    body = seeded(
        lambda: nn.ModuleList([nn.Linear(6, 4), nn.Linear(6, 4), nn.Sequential(nn.BatchNorm1d(4))]), 0
    ).double()
    head = seeded(lambda: nn.Linear(4, 3), 1).double()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, head

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body[2](self.body[rank](x)))

    model = DistributedDataParallel(Whole(), find_unused_parameters=True)
    opt = nr.PerturbedOptimizer(torch.optim.SGD(body.parameters(), lr=0.1), chips(1.0), model)
    other = torch.optim.SGD(head.parameters(), lr=0.1)
    for step in range(STEPS):
        other.zero_grad()
        opt.step([closure_of(opt, model, x, y, []) for x, y in part(features(seed=step), rank, world, 2)])
        other.step()
    return {"weights": snapshot(model.module)}


BATCHES = (32, 64, 96, 128)


def recipe(batch_size: int, ranks: Ranks) -> dict[str, Tensor]:
    """Train with method robust, which divides batches by itself."""
    config = TrainConfig("own", "own", optimizer=OptimizerConfig(lr=0.1), epochs=2, batch_size=batch_size)
    x, y = features(n=2 * batch_size)
    trainer = Trainer(mlp(), ArrayData(x, y, "features"), config, Normalize(), ranks=ranks)
    list(trainer.epochs())
    return snapshot(trainer.kept)


def attempt(scenario: Callable[[int, int], Found], rank: int, world: int) -> Found:
    try:
        return scenario(rank, world)
    except nr.NoiseRobustError as error:
        return {"error": type(error).__name__, "said": str(error), "ours": True}


def two_ranks() -> dict[str, Callable[[int, int], Found]]:
    """Return the scenarios of two processes by name."""
    found: dict[str, Callable[[int, int], Found]] = {}
    for name, method in METHODS.items():
        found[name] = lambda r, w, m=method: share_of_batch(m, r, w)
        found[f"{name}, bucket view"] = lambda r, w, m=method: share_of_batch(m, r, w, view=True)
        found[f"{name}, micro"] = lambda r, w, m=method: share_of_batch(m, r, w, micro=3)
        found[f"{name}, micro, bucket view"] = lambda r, w, m=method: share_of_batch(m, r, w, micro=3, view=True)
    for share in SHARES:
        found[f"split {share}"] = lambda r, w, s=share: split(s, r, w)
        found[f"split {share}, micro"] = lambda r, w, s=share: split(s, r, w, micro=2, view=True)
    found["compiled"] = compiled
    found["split, normalised"] = split_normalised
    found["split, augmented"] = split_augmented
    plain = {"lr": 1.0, "momentum": 0.0}
    for share in (1.0, 0.4):
        found[f"m-sam {share}"] = lambda r, w, s=share: share_of_batch(m_sam(s), r, w, **plain)
        found[f"m-sam {share}, bucket view"] = lambda r, w, s=share: share_of_batch(m_sam(s), r, w, view=True, **plain)
        found[f"m-sam {share}, micro"] = lambda r, w, s=share: share_of_batch(m_sam(s), r, w, micro=2, **plain)
    for share in (1.0, 0.4):
        found[f"chips {share}"] = lambda r, w, s=share: share_of_batch(chips(s), r, w)
        found[f"chips {share}, micro"] = lambda r, w, s=share: share_of_batch(chips(s), r, w, micro=3)
    found["chips of a body"] = chips_of_a_body
    for size in BATCHES:
        found[f"recipe {size}"] = lambda r, w, n=size: {"weights": recipe(n, Ranks(r, w))}
    for name, make in REFUSED.items():
        found[f"refused {name}"] = lambda r, w, make=make: refusal(make)
    for name in ("sam", "mixed", "arwp"):
        found[f"overflow {name}"] = lambda r, w, m=METHODS[name]: overflow_on_the_last_rank(m, r, w)
    return found


def four_ranks() -> dict[str, Callable[[int, int], Found]]:
    """Return the scenarios of four processes by name."""
    found: dict[str, Callable[[int, int], Found]]
    found = {f"split {share}": lambda r, w, s=share: split(s, r, w) for share in SHARES}
    found |= {f"recipe {size}": lambda r, w, n=size: {"weights": recipe(n, Ranks(r, w))} for size in BATCHES}
    return {**found, "split, subgroup": split_subgroup}


def one_rank() -> dict[str, Callable[[int, int], Found]]:
    """Return the scenario of a lone process in a group."""
    make: Callable[[], object] = lambda: optimizer(DistributedDataParallel(network()), split_ranks=True)  # noqa: E731
    return {"refused odd": lambda r, w: refusal(make)}


def fragile() -> dict[str, Callable[[int, int], Found]]:
    """Return what may leave processes waiting for each other."""
    return {"overflow m-sam": lambda r, w: overflow_on_the_last_rank(m_sam(), r, w)}


GROUPS: dict[str, tuple[int, Callable[[], dict[str, Callable[[int, int], Found]]]]] = {
    "four": (4, four_ranks),
    "two": (2, two_ranks),
    "one": (1, one_rank),
    "fragile": (2, fragile),
}


@contextmanager
def group(folder: Path, name: str, rank: int, world: int) -> Iterator[None]:
    store = (folder / f"{name}.store").as_uri()
    wait = timedelta(seconds=5 if name == "fragile" else 60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=wait)
    try:
        yield
    finally:
        dist.destroy_process_group()


def work(rank: int, folder: Path) -> None:
    """Be one of four processes; what goes wrong is written down, as the fork server keeps it from pytest."""
    try:
        run_scenarios(rank, folder)
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise


def run_scenarios(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    for name, (world, scenarios) in GROUPS.items():
        if rank >= world:
            continue
        with group(folder, name, rank, world):
            found: dict[str, Found] = {}
            for title, scenario in scenarios().items():
                try:
                    found[title] = attempt(scenario, rank, world)
                except RuntimeError as error:  # a process that waited in vain, or refused what the other did not
                    if name != "fragile":
                        raise
                    found[title] = {"error": type(error).__name__, "said": str(error), "ours": False}
            torch.save(found, folder / f"{name}-{rank}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Found]]]:
    """Run all processes; return what each rank of each group found."""
    folder = tmp_path_factory.mktemp("ranks")
    # The fork server imports torch once for all processes; unlike this process it has never run a backward pass.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "torch.distributed.fsdp", "noiserobust.train.optimizer"])
    processes = [context.Process(target=work, args=(rank, folder), daemon=True) for rank in range(4)]
    for process in processes:
        process.start()
    until = time.monotonic() + 180
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        process.kill()
        process.join()
    failures = [path.read_text() for path in sorted(folder.glob("*.error"))]
    assert not failures, "\n".join(failures)
    assert not alive, "processes wait for each other"
    assert [process.exitcode for process in processes] == [0] * 4
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(world)]
        for name, (world, _) in GROUPS.items()
    }


# --- What one process does --------------------------------------------------------------------------------------------


def alone(
    method, build: Callable[[], nn.Module] = network, data: Callable = features, micro: int = 1, **keywords: object
) -> Found:
    return train(build(), method, lambda step: part(data(seed=step), 0, 1, micro), **keywords)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def in_step(ranks: Sequence[Found]) -> bool:
    """Return whether all ranks have the same parameters, bit for bit."""
    names = [n for n in ranks[0]["weights"] if "running" not in n and "num_batches" not in n]
    own = [{n: found["weights"][n] for n in names} for found in ranks]
    return all(same_bits(own[0], other) for other in own[1:])


def of(results: dict[str, list[dict[str, Found]]], title: str, name: str = "two") -> list[Found]:
    return [found[title] for found in results[name]]


# --- Whole batches, micro-batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["", ", bucket view"], ids=["", "bucket view"])
@pytest.mark.parametrize("name", METHODS)
def test_ranks_with_half_a_batch_each_take_the_step_of_one_process(results, name: str, view: str) -> None:
    ranks, expected = of(results, name + view), alone(METHODS[name])
    assert in_step(ranks)
    for found in ranks:
        assert_same(found["weights"], expected["weights"])
        assert_same(found["memory"], expected["memory"])
        assert found["passes"] == PASSES[name] * STEPS
        assert found["sent"] == PASSES[name] * STEPS
    assert not torch.equal(ranks[0]["losses"][0], ranks[1]["losses"][0])  # they do have different examples


def test_the_methods_can_be_told_apart() -> None:
    # Otherwise the test above would not notice a method that perturbs nothing.
    weights = [alone(method)["weights"] for method in METHODS.values()]
    for i, one in enumerate(weights):
        for other in weights[:i]:
            assert any((one[n] - other[n]).abs().max() > 1e-5 for n in one)


@pytest.mark.parametrize("view", ["", ", bucket view"], ids=["", "bucket view"])
@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_on_ranks_make_the_step_of_the_whole_batch(results, name: str, view: str) -> None:
    ranks, expected = of(results, f"{name}, micro{view}"), alone(METHODS[name])
    assert in_step(ranks)
    for found in ranks:
        assert_same(found["weights"], expected["weights"])
        assert_same(found["memory"], expected["memory"])
        assert found["passes"] == PASSES[name] * STEPS
        assert found["sent"] == PASSES[name] * STEPS  # not once a micro-batch


def test_a_model_compiled_around_the_ranks_takes_the_step_of_one_process(results) -> None:
    ranks, expected = of(results, "compiled"), alone(METHODS["mixed"])
    assert in_step(ranks)
    assert_same(ranks[0]["weights"], expected["weights"])


@pytest.mark.parametrize(("variant", "micro"), [("", 2), (", micro", 6)], ids=["", "micro"])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_chips_are_those_of_one_process(results, share: float, variant: str, micro: int) -> None:
    """Of four chips two ranks with one closure each have two; of three closures each, the first two share one."""
    ranks, expected = of(results, f"chips {share}{variant}"), alone(chips(share), micro=micro)
    assert in_step(ranks)
    assert_same(ranks[0]["weights"], expected["weights"])
    assert [found["passes"] for found in ranks] == [expected["passes"]] * 2
    shared = alone(nr.RWP(NOISE, share))["weights"]
    assert any((shared[n] - expected["weights"][n]).abs().max() > 1e-4 for n in shared)


def test_chips_leave_the_averages_over_ranks_to_the_model(results) -> None:
    """Of parameters that a rank does not use, and of those that another optimizer has; one of them a pass."""
    assert in_step(of(results, "chips of a body"))
    assert [found["sent"] for found in of(results, "chips 1.0, micro")] == [STEPS] * 2
    assert [found["sent"] for found in of(results, "chips 0.4, micro")] == [2 * STEPS] * 2


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("group", ["two", "four"])
def test_the_default_recipe_takes_the_steps_of_one_process(results, group: str, size: int) -> None:
    ranks = of(results, f"recipe {size}", group)
    assert in_step(ranks)
    torch.testing.assert_close(ranks[0]["weights"], recipe(size, Ranks()), rtol=1e-5, atol=1e-6)


# --- SAM along local gradients ----------------------------------------------------------------------------------------


def local_ascents(share: float, micro: int = 1) -> dict[str, Tensor]:
    """Train by hand with a learning rate of 1, each micro-batch of each rank with an ascent of its own."""
    w = exact(network())
    for step in range(STEPS):
        update = {k: torch.zeros_like(v) for k, v in w.items()}
        parts = [p for rank in range(2) for p in part(features(seed=step), rank, 2, micro)]
        for x, y in parts:
            loss = mlp_loss(x, y)
            clean = gradient(loss, w)
            norm = sum((g**2).sum() for g in clean.values()) ** 0.5
            ascended = gradient(loss, {k: w[k] + 0.3 * clean[k] / norm for k in w})
            update = {k: update[k] + ((1 - share) * clean[k] + share * ascended[k]) / len(parts) for k in w}
        w = {k: w[k] - update[k] for k in w}
    return w


@pytest.mark.parametrize("variant", ["", ", bucket view", ", micro"], ids=["", "bucket view", "micro"])
def test_each_rank_ascends_along_its_own_gradient(results, variant: str) -> None:
    ranks = of(results, f"m-sam 1.0{variant}")
    assert in_step(ranks)
    assert_same(ranks[0]["weights"], local_ascents(1.0, 2 if variant == ", micro" else 1))
    shared = alone(nr.SAM(0.3), lr=1.0, momentum=0.0)["weights"]
    assert any((shared[n] - ranks[0]["weights"][n]).abs().max() > 1e-4 for n in shared)


@pytest.mark.parametrize("variant", ["", ", bucket view", ", micro"], ids=["", "bucket view", "micro"])
def test_a_mixture_with_local_ascents_is_refused_or_keeps_ranks_in_step(results, variant: str) -> None:
    ranks = of(results, f"m-sam 0.4{variant}")
    if all(found.get("ours") for found in ranks):
        return
    assert in_step(ranks)
    assert_same(ranks[0]["weights"], local_ascents(0.4, 2 if variant == ", micro" else 1))


def test_passes_that_want_local_gradients_do_not_communicate(results) -> None:
    assert [found["sent"] for found in of(results, "m-sam 1.0")] == [STEPS] * 2
    assert [found["sent"] for found in of(results, "m-sam 1.0, micro")] == [2 * STEPS] * 2
    assert [found["sent"] for found in of(results, "split 0.5")] == [STEPS] * 2


# --- Clean and noisy ranks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro", ["", ", micro"], ids=["", "micro"])
@pytest.mark.parametrize("share", SHARES)
def test_split_ranks_take_the_step_of_one_process(results, share: float, micro: str) -> None:
    ranks, expected = of(results, f"split {share}{micro}"), alone(nr.RWP(NOISE, share))
    assert in_step(ranks)
    assert_same(ranks[0]["weights"], expected["weights"])
    assert len(ranks[0]["losses"]) == len(ranks[1]["losses"]) == (2 if micro else 1)  # one pass each
    assert [found["passes"] for found in ranks] == [2 * STEPS] * 2  # theirs together


def test_the_other_share_would_be_another_step(results) -> None:
    with pytest.raises(AssertionError):
        assert_same(of(results, "split 0.3")[0]["weights"], alone(nr.RWP(NOISE, 0.7))["weights"])


@pytest.mark.parametrize(("name", "world"), [("two", 2), ("four", 4)])
def test_noisy_ranks_have_noise_of_their_own(results, name: str, world: int) -> None:
    ranks = of(results, "split 0.5", name)
    for step in range(STEPS):
        clean = ranks[0]["places"][step]
        for rank, found in enumerate(ranks):
            stream = nr.Stream(0, "train", 0, step, *([] if rank == 1 else ["rank", rank // 2]))
            expected = {
                n: NOISE.perturb(v, stream.child(n)) if rank % 2 and n.endswith("weight") else v
                for n, v in clean.items()
            }
            assert same_bits(expected, found["places"][step])
    if world == 4:
        offsets = [ranks[r]["places"][0]["0.weight"] - ranks[0]["places"][0]["0.weight"] for r in (1, 3)]
        assert abs(torch.corrcoef(torch.stack([o.flatten() for o in offsets]))[0, 1]) < 0.5


@pytest.mark.parametrize("share", SHARES)
def test_four_split_ranks_average_two_draws_of_noise(results, share: float) -> None:
    w = exact(network())
    velocity = {k: torch.zeros_like(v) for k, v in w.items()}
    for step in range(STEPS):
        mixture = {k: torch.zeros_like(v) for k, v in w.items()}
        for pair in range(2):
            stream = nr.Stream(0, "train", 0, step, *(["rank", 1] if pair else []))
            noisy = {k: NOISE.perturb(v, stream.child(k)) if k.endswith("weight") else v for k, v in w.items()}
            loss = mlp_loss(*part(features(seed=step), pair, 2)[0])
            clean, perturbed = gradient(loss, w), gradient(loss, noisy)
            mixture = {k: mixture[k] + ((1 - share) * clean[k] + share * perturbed[k]) / 2 for k in w}
        velocity = {k: 0.9 * velocity[k] + mixture[k] for k in w}
        w = {k: w[k] - 0.1 * velocity[k] for k in w}
    ranks = of(results, f"split {share}", "four")
    assert in_step(ranks)
    assert_same(ranks[0]["weights"], w)


def test_ranks_are_counted_within_the_processes_of_the_model_or_it_is_refused(results) -> None:
    ranks = of(results, "split, subgroup", "four")
    if all(found.get("ours") for found in ranks):
        return
    assert in_step(ranks)
    assert_same(ranks[0]["weights"], alone(HALF_SPLIT)["weights"])


def test_statistics_come_from_clean_ranks(results) -> None:
    clean, noisy = of(results, "split, normalised")
    assert in_step([clean, noisy])
    expected = alone(HALF_SPLIT, normalised, images)
    assert_same(clean["weights"], expected["weights"])  # buffers included
    assert clean["weights"]["1.num_batches_tracked"] == STEPS
    # DistributedDataParallel hands statistics on when the next pass starts: other ranks may be a step behind.
    now, before = clean["history"][-1], clean["history"][-2]
    assert any(same_bits(noisy["history"][-1], own) for own in (now, before)), "statistics of a noisy rank are stale"


def test_transformed_kernels_are_refused_or_keep_split_ranks_in_step(results) -> None:
    ranks = of(results, "split, augmented")
    if all(found.get("ours") for found in ranks):
        return
    assert in_step(ranks)
    assert_same(ranks[0]["weights"], alone(AUGMENTED, kernels, images)["weights"])


# --- Overflow on one rank ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sam", "mixed", "arwp", "m-sam"])
def test_an_overflow_on_one_rank_skips_the_step_on_all(results, name: str) -> None:
    ranks = of(results, f"overflow {name}", "fragile" if name == "m-sam" else "two")
    assert not any("error" in found for found in ranks), [found.get("said") for found in ranks]
    assert in_step(ranks)
    for found in ranks:
        assert same_bits(found["history"][0], found["history"][1])
        assert not same_bits(found["history"][1], found["history"][2])
        assert found["scale"] == 2.0**9
    assert ranks[0]["calls"] == ranks[1]["calls"]


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        (
            "SAM",
            "InvalidValueError",
            r"Expected RWP\(noise, perturbed_weight=0.5\) .* one draw a step .*, for `split_ranks`",
        ),
        (
            "pure RWP",
            "InvalidValueError",
            r"Expected RWP\(noise, perturbed_weight=0.5\) .* one draw a step .*, for `split_ranks`",
        ),
        (
            "ARWP",
            "InvalidValueError",
            r"Expected RWP\(noise, perturbed_weight=0.5\) .* one draw a step .*, for `split_ranks`",
        ),
        (
            "draws",
            "InvalidValueError",
            r"Expected RWP\(noise, perturbed_weight=0.5\) .* one draw a step .*, for `split_ranks`",
        ),
        ("chips", "InvalidValueError", "one chip, for `split_ranks`"),
        ("SyncBatchNorm", "InvalidValueError", "SyncBatchNorm"),
        ("same dropout", "InvalidValueError", "`same_dropout`.*`split_ranks`|`split_ranks`.*`same_dropout`"),
        ("not wrapped", "InvalidValueError", "in DistributedDataParallel for `split_ranks`, but got Sequential"),
        ("by hand", "StateError", "closure with `split_ranks`"),
        ("odd", "InvalidValueError", "even number of ranks for `split_ranks`, but got 1"),
    ],
)
def test_what_cannot_be_split_is_refused(results, name: str, error: str, said: str) -> None:
    for found in of(results, f"refused {name}", "one" if name == "odd" else "two"):
        assert found["error"] == error
        assert re.search(said, found["said"]), found["said"]


@pytest.mark.parametrize("name", SHARDED)
def test_sharded_parameters_are_refused(results, name: str) -> None:
    for found in of(results, f"refused {name}"):
        assert found["error"] == "InvalidValueError", found["said"]
        assert "whole on each rank (DistributedDataParallel), but they are sharded" in found["said"]


def test_a_split_without_processes_is_refused() -> None:
    with pytest.raises(nr.NoiseRobustError, match=r"process group for `split_ranks`.*torchrun") as caught:
        optimizer(network(), split_ranks=True)
    assert isinstance(caught.value, RuntimeError)
