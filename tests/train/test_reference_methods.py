"""Every update rule, step by step, against a plain float64 reference written out from its formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import ClassVar

import pytest
import torch
from scipy.stats import kstest
from small_models import features, images, mlp, seeded
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import noiserobust as nr
from noiserobust.noise.base import Noise
from noiserobust.train.schedules import Schedule

Weights = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]
Rule = Callable[[Weights, int], Weights]
"""From the weights and the number of the step to the gradient of the update, without weight decay."""

STEPS = 5
LR, MOMENTUM, DECAY = 0.1, 0.9, 0.05
SEED, TRAIN_SEED = 7, 2
TIGHT = 1e-10


# ------------------------------------------------------------------------------------------------ networks and batches


def perceptron() -> nn.Module:
    return mlp(3).double()


def convolutional() -> nn.Module:
    """A grouped convolution, a grouped transposed one, and a normalisation that sees one image at a time."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, groups=2),
            nn.GroupNorm(2, 4),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(6 * 4 * 4, 3),
        ),
        5,
    ).double()


@cache
def once(build: Callable[[], nn.Module]) -> nn.Module:
    return build()


@dataclass(frozen=True)
class Task:
    """A network with the batches of each step."""

    build: Callable[[], nn.Module]
    data: Callable[..., Batch]

    @cache  # noqa: B019 - there are two tasks
    def batch(self, step: int) -> Batch:
        x, y = self.data(12, seed=step)
        return x.double(), y

    def other(self, step: int) -> Batch:
        return self.batch(1000 + step)

    def weights(self) -> Weights:
        return {name: p.detach().clone() for name, p in self.build().named_parameters()}

    @property
    def network(self) -> nn.Module:
        """The network of the references, whose own weights are not used."""
        return once(self.build)

    def gradient(self, w: Weights, batch: Batch) -> Weights:
        leaves = {name: value.clone().requires_grad_() for name, value in w.items()}
        loss = cross_entropy(functional_call(self.network, leaves, (batch[0],)), batch[1])
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


TASKS = {"mlp": Task(perceptron, features), "convolutions": Task(convolutional, images)}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param]


def everything(name: str, module: nn.Module, weight: Tensor) -> bool:
    """Select all parameters: biases and normalisation too."""
    return True


# ------------------------------------------------------------------------------------------- the package, step by step


def optimizer(model: nn.Module, method, *, lr: float = LR, **settings) -> nr.PerturbedOptimizer:
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=DECAY)
    return nr.PerturbedOptimizer(base, method, model, seed=SEED, train_seed=TRAIN_SEED, **settings)


def closure(model: nn.Module, batch: Batch) -> Callable[[], Tensor]:
    def run() -> Tensor:
        loss = cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss

    return run


@cache
def train(
    task: Task, method, *, steps: int = STEPS, two: bool = False, micro: int = 1, by_hand: bool = False, **settings
) -> list[Weights]:
    """Return the weights after each step.

    Args:
        two: whether the perturbed pass has a batch of its own.
        micro: number of equal parts in which a batch comes.
        by_hand: with `opt.perturbed()` instead of closures.
    """
    model = task.build()
    opt = optimizer(model, method, **settings)
    path = []

    def closures(batch: Batch) -> list[Callable[[], Tensor]]:
        return [closure(model, part) for part in parts(batch, micro)]

    for step in range(steps):
        batch = closures(task.batch(step))
        if by_hand:
            opt.zero_grad()
            if method.needs_clean_gradient:
                batch[0]()
            for _ in range(method.draws):
                with opt.perturbed():
                    batch[0]()
            opt.step()
        elif two:
            opt.step(batch, closures(task.other(step)))
        else:
            opt.step(batch if micro > 1 else batch[0])
        path.append({name: p.detach().clone() for name, p in model.named_parameters()})
    return path


def parts(batch: Batch, n: int) -> list[Batch]:
    return list(zip(batch[0].chunk(n), batch[1].chunk(n), strict=True))


# ---------------------------------------------------------------------------------------------------- plain references


def sgd(
    task: Task, rule: Rule, *, steps: int = STEPS, after: Callable[[Weights], Weights] = lambda w: w
) -> list[Weights]:
    """SGD: ``v <- mu v + g + lambda w``, ``w <- w - lr v``; then what happens ``after`` each update."""
    w, path = task.weights(), []
    velocity = {k: torch.zeros_like(v) for k, v in w.items()}
    for step in range(steps):
        g = rule(w, step)
        velocity = {k: MOMENTUM * velocity[k] + g[k] + DECAY * w[k] for k in w}
        w = after({k: w[k] - LR * velocity[k] for k in w})
        path.append(w)
    return path


def mixture(clean: Weights, perturbed: Weights, share: float) -> Weights:
    return {k: (1 - share) * clean[k] + share * perturbed[k] for k in clean}


def mean(gradients: list[Weights]) -> Weights:
    return {k: sum(g[k] for g in gradients) / len(gradients) for k in gradients[0]}


def norm(w: Weights) -> Tensor:
    return torch.sqrt(sum((v * v).sum() for v in w.values()))


def at_full_strength(step: int) -> float:
    return 1.0


def sam(
    task: Task,
    rho: float,
    *,
    share: float = 1.0,
    two: bool = False,
    micro: int = 1,
    strength: Callable[[int], float] = at_full_strength,
    adaptive: bool = False,
    planted: str = "",
) -> Rule:
    """``g(w + rho g / (||g|| + 1e-12))``; adaptive: ``g(w + rho w^2 g / (|| |w| g || + 1e-12))``."""

    def of(w: Weights, first: Batch, second: Batch, step: int) -> Weights:
        g = task.gradient(w, first)
        ascent = {k: g[k] + DECAY * w[k] for k in g} if planted == "decay in the ascent" else g
        if planted == "clipped ascent" and share < 1:
            ascent = g = {k: g[k] / norm(g) for k in g}
        radius = rho * strength(step)
        if adaptive:
            scaled = {k: w[k].abs() * ascent[k] for k in w}
            top = {k: w[k].abs() * scaled[k] for k in w} if planted != "one factor |w|" else scaled
            eps = {k: radius * top[k] / (norm(scaled) + 1e-12) for k in w}
            if planted == "norm of g":
                eps = {k: radius * top[k] / (norm(ascent) + 1e-12) for k in w}
        else:
            eps = {k: radius * ascent[k] / (norm(ascent) + 1e-12) for k in w}
        if planted == "norm per tensor":
            eps = {k: radius * ascent[k] / ascent[k].norm() for k in w}
        if planted == "weights only":
            eps = {k: e * k.endswith("weight") for k, e in eps.items()}
        return mixture(g, task.gradient({k: w[k] + eps[k] for k in w}, second), share)

    def rule(w: Weights, step: int) -> Weights:
        first, second = task.batch(step), task.other(step) if two else task.batch(step)
        pairs = zip(parts(first, micro), parts(second, micro), strict=True)
        return mean([of(w, a, b, step) for a, b in pairs])

    return rule


def step_stream(step: int, draw: int = 0, micro: int = 0) -> nr.Stream:
    stream = nr.Stream(SEED, "train", TRAIN_SEED).child(step)
    stream = stream.child("micro-batch", micro) if micro else stream
    return stream.child("draw", draw) if draw else stream


@cache
def views(task: Task, select) -> dict[str, object]:
    return {site.name: site.view for site in nr.find_sites(task.build(), select)}


def rwp(
    task: Task,
    noise: Callable[[int, nr.Stream], Noise],
    *,
    share: float = 1.0,
    select=None,
    draws: int = 1,
    two: bool = False,
    micro: int = 1,
) -> Rule:
    """``(1 - a) g(w) + a mean_k g(w + eps_k)``, eps_k drawn from the documented stream of step, micro-batch and draw.

    Args:
        noise: of the step and its stream.
        micro: above 1 there is a noise for each part of the batch.
    """
    noisy = views(task, select)

    def rule(w: Weights, step: int) -> Weights:
        first, second = task.batch(step), task.other(step) if two else task.batch(step)
        perturbed = []
        for draw in range(draws):
            for number, part in enumerate(parts(second, micro)):
                stream = step_stream(step, draw, number)
                drawn = noise(step, stream)
                moved = w | {k: drawn.perturb(w[k], stream.child(k), view) for k, view in noisy.items()}
                perturbed.append(task.gradient(moved, part))
        return mixture(task.gradient(w, first), mean(perturbed), share)

    return rule


def per_filter(task: Task, name: str, squares: Tensor, planted: str = "") -> Tensor:
    """Replace each number by the sum over its filter: all that feeds one output channel; a vector stays."""
    if squares.ndim < 2:
        return squares.sum().expand_as(squares) if planted == "vector as one filter" else squares
    if planted == "elementwise":
        return squares
    module = task.network.get_submodule(name.rpartition(".")[0])
    result = torch.empty_like(squares)
    if isinstance(module, nn.ConvTranspose2d) and planted != "filters along dim 0":
        size = module.in_channels // module.groups
        for group, channel in product(range(module.groups), range(module.out_channels // module.groups)):
            block = squares[group * size : (group + 1) * size, channel]
            result[group * size : (group + 1) * size, channel] = (
                block.mean() if planted == "filter mean" else block.sum()
            )
        return result
    for k in range(len(squares)):
        result[k] = squares[k].mean() if planted == "filter mean" else squares[k].sum()
    return result


def arwp(
    task: Task,
    sigma: Callable[[int], float],
    eta: float,
    beta: float,
    *,
    share: float = 1.0,
    select=everything,
    draws: int = 1,
    two: bool = False,
    planted: str = "",
) -> Rule:
    """eps_k ~ N(0, sigma^2 ||w_k||^2) / sqrt(1 + eta sum_k F), F <- beta F + g1^2. One run only: it has memory."""
    noisy = views(task, select)
    past: Weights = {}

    def rule(w: Weights, step: int) -> Weights:
        first, second = task.batch(step), task.other(step) if two else task.batch(step)
        noise = nr.GaussianNoise(sigma(step), reference="l2")
        gradients = []
        for draw in range(draws):
            moved = dict(w)
            for k, view in noisy.items():
                eps = noise.perturb(w[k], step_stream(step, draw).child(k), view) - w[k]
                f = per_filter(task, k, past[k], planted) if k in past else torch.zeros_like(w[k])
                divisor = 1 + eta * f
                moved[k] = w[k] + eps / (divisor if planted == "no square root" else divisor.sqrt())
            gradients.append(task.gradient(moved, second))
        g0, g1 = task.gradient(w, first), mean(gradients)
        final = mixture(g0, g1, share)
        source = {"mixed gradient in F": final, "clean gradient in F": g0}.get(planted, g1)
        for k in noisy:
            g = source[k] + DECAY * w[k] if planted == "decay in F" else source[k]
            if planted == "clipped gradient in F":
                g = g / norm(g1)
            weight = 1 - beta if planted == "factor 1 - beta" else 1.0
            past[k] = beta * past.get(k, torch.zeros_like(g)) + weight * g**2
        return final

    return rule


def assert_same(path: list[Weights], expected: list[Weights], tolerance: float = TIGHT) -> None:
    assert len(path) == len(expected) >= 5
    for step, (ours, theirs) in enumerate(zip(path, expected, strict=True)):
        assert ours.keys() == theirs.keys()
        for k in ours:
            torch.testing.assert_close(
                ours[k], theirs[k], rtol=tolerance, atol=tolerance, msg=lambda m, k=k, s=step: f"step {s}, {k}: {m}"
            )


def assert_different(path: list[Weights], planted: list[Weights]) -> None:
    """A comparison a thousand times looser than the test's still finds the planted error."""
    with pytest.raises(AssertionError, match="step"):
        assert_same(path, planted, 1000 * TIGHT)


# ----------------------------------------------------------------------------------------------------------- SAM, ASAM


@pytest.mark.parametrize("by_hand", [False, True], ids=["closures", "by hand"])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_sam(task: Task, share: float, by_hand: bool) -> None:
    assert_same(train(task, nr.SAM(0.4, share), by_hand=by_hand), sgd(task, sam(task, 0.4, share=share)))


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_asam(task: Task, share: float) -> None:
    expected = sgd(task, sam(task, 0.8, share=share, adaptive=True))
    assert_same(train(task, nr.ASAM(0.8, share)), expected)


@pytest.mark.parametrize("planted", ["decay in the ascent", "norm per tensor", "weights only"])
def test_the_sam_reference_tells_planted_errors(task: Task, planted: str) -> None:
    path = train(task, nr.SAM(0.4, 0.3))
    assert_same(path, sgd(task, sam(task, 0.4, share=0.3)))
    assert_different(path, sgd(task, sam(task, 0.4, share=0.3, planted=planted)))


@pytest.mark.parametrize("wrong", [{"rho": 0.42}, {"share": 0.7}, {"two": True}], ids=str)
def test_the_sam_reference_tells_other_settings(task: Task, wrong: dict[str, object]) -> None:
    assert_different(train(task, nr.SAM(0.4, 0.3)), sgd(task, sam(task, **{"rho": 0.4, "share": 0.3, **wrong})))


@pytest.mark.parametrize("planted", ["one factor |w|", "norm of g", "decay in the ascent", "rho", "sam"])
def test_the_asam_reference_tells_planted_errors(task: Task, planted: str) -> None:
    rho = 0.84 if planted == "rho" else 0.8
    wrong = sgd(task, sam(task, rho, adaptive=planted != "sam", planted=planted))
    assert_different(train(task, nr.ASAM(0.8)), wrong)


def test_no_weight_decay_or_momentum_hides_in_the_reference(task: Task) -> None:
    model = task.build()
    base = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    path = []
    for step in range(STEPS):
        base.zero_grad()
        closure(model, task.batch(step))()
        base.step()
        path.append({name: p.detach().clone() for name, p in model.named_parameters()})
    assert_same(path, sgd(task, lambda w, step: task.gradient(w, task.batch(step))))
    assert_same(path, train(task, nr.Unperturbed()))


# ----------------------------------------------------------------------------------------------------------------- RWP

NOISES = [nr.GaussianNoise(0.2), nr.GaussianNoise(0.1, reference="l2"), nr.LaplaceNoise(0.15)]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.name)
def test_rwp_and_m_rwp(task: Task, noise: Noise, share: float) -> None:
    expected = sgd(task, rwp(task, lambda step, stream: noise, share=share))
    assert_same(train(task, nr.RWP(noise, share)), expected)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_rwp_of_all_parameters(task: Task, share: float) -> None:
    noise = nr.GaussianNoise(0.1, reference="l2")
    expected = sgd(task, rwp(task, lambda step, stream: noise, share=share, select=everything))
    path = train(task, nr.RWP(noise, share, select=everything))
    assert_same(path, expected)
    assert_different(path, sgd(task, rwp(task, lambda step, stream: noise, share=share)))


@pytest.mark.parametrize("by_hand", [False, True], ids=["closures", "by hand"])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_gradients_of_several_draws_are_averaged(task: Task, share: float, by_hand: bool) -> None:
    noise = nr.GaussianNoise(0.2)
    expected = sgd(task, rwp(task, lambda step, stream: noise, share=share, draws=3))
    path = train(task, nr.RWP(noise, share, draws=3), by_hand=by_hand)
    assert_same(path, expected)
    assert_different(path, sgd(task, rwp(task, lambda step, stream: noise, share=share, draws=2)))


@pytest.mark.parametrize(
    "wrong", [{"sigma": 0.21}, {"share": 0.7}, {"share": 0.315}, {"later": 1}, {"two": True}], ids=str
)
def test_the_rwp_reference_tells_planted_errors(task: Task, wrong: dict[str, float]) -> None:
    share = wrong.get("share", 0.3)
    noise = nr.GaussianNoise(wrong.get("sigma", 0.2))
    rule = rwp(task, lambda step, stream: noise, share=share, two="two" in wrong)
    if "later" in wrong:  # noise that is constant from step 1 on

        def rule(w: Weights, step: int, rule: Rule = rule) -> Weights:
            return mixture(task.gradient(w, task.batch(step)), task.gradient(moved(w), task.batch(step)), share)

        def moved(w: Weights) -> Weights:
            return w | {k: noise.perturb(w[k], step_stream(0).child(k), v) for k, v in views(task, None).items()}

    assert_different(train(task, nr.RWP(nr.GaussianNoise(0.2), 0.3)), sgd(task, rule))


# -------------------------------------------------------------------------------------------------------- random levels


@dataclass(frozen=True)
class Fading(Noise):
    """A chip that fades smoothly with time: ``w * (1 - rate * log10(t))``, the rate being random."""

    t: float = 1.0
    level_name: ClassVar[str] = "t"
    name: ClassVar[str] = "fading"
    seen: ClassVar[list[float]] = []

    @property
    def level(self) -> float:
        return self.t

    def at(self, level: float) -> Fading:
        return replace(self, t=level)

    def weakened(self, strength: float) -> Fading:
        assert strength == 1
        return self

    def perturb(self, weight: Tensor, stream: nr.Stream, view: object = None) -> Tensor:
        self.seen.append(self.t)
        return weight.detach() * (1 - 0.1 * stream.generator().random() * math.log10(self.t))


def uniform(low: float, high: float, u: float) -> float:
    return low * (1 - u) + high * u


def log_uniform(low: float, high: float, u: float) -> float:
    return low * (high / low) ** u


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_level_is_drawn_uniformly_at_each_step(task: Task, share: float) -> None:
    def noise(step: int, stream: nr.Stream) -> Noise:
        return nr.GaussianNoise(uniform(0.05, 0.4, stream.child("level").generator().random()))

    def fixed(step: int, stream: nr.Stream) -> Noise:
        return noise(0, step_stream(0))

    path = train(task, nr.RWP(nr.GaussianNoise(9.0), share, level_range=(0.05, 0.4)))
    assert_same(path, sgd(task, rwp(task, noise, share=share)))
    assert_different(path, sgd(task, rwp(task, fixed, share=share)))


def test_a_time_is_drawn_log_uniformly_at_each_step(task: Task) -> None:
    def noise(draw: Callable[[float, float, float], float]) -> Callable[[int, nr.Stream], Noise]:
        return lambda step, stream: Fading(draw(2.0, 2e5, stream.child("level").generator().random()))

    path = train(task, nr.RWP(Fading(), level_range=(2.0, 2e5)))
    assert_same(path, sgd(task, rwp(task, noise(log_uniform))))
    assert_different(path, sgd(task, rwp(task, noise(uniform))))


def test_the_time_of_a_device_is_drawn_log_uniformly_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    task, device = TASKS["mlp"], nr.DeviceNoise.from_profile("pcm-nandakumar-2019")
    real, times = nr.DeviceNoise.perturb, []

    def spy(self: nr.DeviceNoise, *arguments: object) -> Tensor:
        times.append(self.t)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(nr.DeviceNoise, "perturb", spy)
        path = train.__wrapped__(task, nr.RWP(device, 0.5, level_range=("1h", "1y")))
    assert times[::2] == times[1::2]  # both weights of a step are read at the same time
    shares = [step_stream(step).child("level").generator().random() for step in range(STEPS)]
    year = nr.DeviceNoise.from_profile("pcm-nandakumar-2019", t="1y").t
    assert times[::2] == pytest.approx([log_uniform(3600.0, year, u) for u in shares], rel=1e-12)
    # The read noise has a stream of its own at each time, so the reference needs the times to the last bit.
    assert_same(path, sgd(task, rwp(task, lambda step, stream: device.at(times[2 * step]), share=0.5)))


def test_levels_have_the_distribution_that_is_promised() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    opt = optimizer(model, nr.RWP(Fading(), level_range=(2.0, 2e5)), lr=0.0)
    batch = torch.ones(1, 1).double(), torch.zeros(1, dtype=torch.long)
    Fading.seen.clear()
    for _ in range(400):
        opt.step(closure(model, batch))
    levels = list(Fading.seen)
    assert len(levels) == 400
    shares = [math.log(t / 2.0) / math.log(1e5) for t in levels]
    assert kstest(shares, "uniform").pvalue > 0.01
    assert kstest([(t - 2.0) / (2e5 - 2.0) for t in levels], "uniform").pvalue < 1e-6
    assert kstest([0.95 * u for u in shares], "uniform").pvalue < kstest(shares, "uniform").pvalue
    assert min(levels) >= 2.0
    assert max(levels) <= 2e5


# ---------------------------------------------------------------------------------------------------------------- ARWP

ETA, BETA, SIGMA = 5.0, 0.9, 0.1


def adaptive(share: float = 1.0, *, eta: float = ETA, beta: float = BETA, **settings) -> nr.ARWP:
    noise = nr.GaussianNoise(SIGMA, reference="l2")
    return nr.ARWP(noise, share, **{"select": everything, **settings}, eta=eta, beta=beta)


def always(sigma: float) -> Callable[[int], float]:
    return lambda step: sigma


@pytest.mark.parametrize("by_hand", [False, True], ids=["closures", "by hand"])
@pytest.mark.parametrize("select", [None, everything], ids=["crossbar", "all"])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.3])
def test_arwp_and_m_arwp(task: Task, share: float, select, by_hand: bool) -> None:
    expected = sgd(task, arwp(task, always(SIGMA), ETA, BETA, share=share, select=select))
    assert_same(train(task, adaptive(share, select=select), by_hand=by_hand), expected)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_arwp_with_the_hyper_parameters_of_the_paper(task: Task, share: float) -> None:
    noise = nr.GaussianNoise(0.015, reference="l2")
    expected = sgd(task, arwp(task, always(0.015), 0.1, 0.99, share=share, select=None))
    assert_same(train(task, nr.ARWP(noise, share)), expected)


def test_the_first_step_of_arwp_has_the_full_noise(task: Task) -> None:
    noise = nr.GaussianNoise(SIGMA, reference="l2")
    rule = rwp(task, lambda step, stream: noise, select=everything)
    path, expected = train(task, adaptive()), sgd(task, rule)
    for k in path[0]:
        torch.testing.assert_close(path[0][k], expected[0][k], rtol=TIGHT, atol=TIGHT)
    with pytest.raises(AssertionError, match="step 1"):
        assert_same(path, expected)


def test_the_memory_of_arwp_is_the_square_of_the_mean_gradient_of_several_draws(task: Task) -> None:
    expected = sgd(task, arwp(task, always(SIGMA), ETA, BETA, share=0.5, draws=2))
    path = train(task, adaptive(0.5, draws=2))
    assert_same(path, expected)
    assert_different(path, sgd(task, arwp(task, always(SIGMA), ETA, BETA, share=0.5)))


@pytest.mark.parametrize(
    "planted",
    [
        "filter mean",
        "factor 1 - beta",
        "mixed gradient in F",
        "clean gradient in F",
        "decay in F",
        "elementwise",
        "vector as one filter",
        "no square root",
    ],
)
def test_the_arwp_reference_tells_planted_errors(task: Task, planted: str) -> None:
    path = train(task, adaptive(0.5))
    assert_same(path, sgd(task, arwp(task, always(SIGMA), ETA, BETA, share=0.5)))
    assert_different(path, sgd(task, arwp(task, always(SIGMA), ETA, BETA, share=0.5, planted=planted)))


def test_the_arwp_reference_tells_filters_along_dim_0_of_a_transposed_convolution() -> None:
    task = TASKS["convolutions"]
    wrong = sgd(task, arwp(task, always(SIGMA), ETA, BETA, share=0.5, planted="filters along dim 0"))
    assert_different(train(task, adaptive(0.5)), wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"eta": 1.05 * ETA}, {"beta": 0.95 * BETA}, {"sigma": always(1.05 * SIGMA)}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_the_arwp_reference_tells_hyper_parameters_off_by_five_percent(task: Task, wrong: dict[str, object]) -> None:
    right = {"sigma": always(SIGMA), "eta": ETA, "beta": BETA}
    assert_different(train(task, adaptive(0.5)), sgd(task, arwp(task, **{**right, **wrong}, share=0.5)))


# -------------------------------------------------------------------------------------- two batches, several closures


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_perturbed_pass_may_have_a_batch_of_its_own(task: Task, share: float) -> None:
    noise = nr.GaussianNoise(0.2)
    for method, rule in (
        (nr.SAM(0.4, share), lambda two: sam(task, 0.4, share=share, two=two)),
        (nr.RWP(noise, share), lambda two: rwp(task, lambda step, stream: noise, share=share, two=two)),
        (adaptive(share), lambda two: arwp(task, always(SIGMA), ETA, BETA, share=share, two=two)),
    ):
        path = train(task, method, two=True)
        assert_same(path, sgd(task, rule(True)))
        assert_different(path, sgd(task, rule(False)))


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("two", [False, True], ids=["one batch", "two batches"])
def test_closures_of_equal_parts_are_the_big_batch(task: Task, share: float, two: bool) -> None:
    noise = nr.GaussianNoise(0.2)
    for method, rule in (
        (nr.SAM(0.4, share), sam(task, 0.4, share=share, two=two)),
        (nr.RWP(noise, share), rwp(task, lambda step, stream: noise, share=share, two=two)),
        (adaptive(share), arwp(task, always(SIGMA), ETA, BETA, share=share, two=two)),
    ):
        assert_same(train(task, method, micro=3, two=two), sgd(task, rule))


def test_the_reference_of_several_closures_tells_a_noise_for_each(task: Task) -> None:
    noise = nr.GaussianNoise(0.2)
    wrong = sgd(task, rwp(task, lambda step, stream: noise, micro=3))
    assert_different(train(task, nr.RWP(noise), micro=3), wrong)


@pytest.mark.parametrize(("share", "two"), [(1.0, False), (0.3, True)], ids=["one batch", "mixed, two batches"])
@pytest.mark.parametrize(("method", "rho"), [(nr.SAM, 0.4), (nr.ASAM, 0.8)], ids=["sam", "asam"])
def test_sam_per_micro_batch_is_the_mean_of_the_sam_gradients_of_each(
    task: Task, method: type[nr.SAM | nr.ASAM], rho: float, share: float, two: bool
) -> None:
    plan = {"share": share, "two": two, "adaptive": method is nr.ASAM}
    path = train(task, method(rho, share, per_micro_batch=True), micro=3, two=two)
    assert_same(path, sgd(task, sam(task, rho, micro=3, **plan)))
    assert_different(path, sgd(task, sam(task, rho, **plan)))


@pytest.mark.parametrize(("share", "two"), [(1.0, False), (0.3, True)], ids=["one batch", "mixed, two batches"])
@pytest.mark.parametrize("draws", [1, 2])
def test_rwp_of_several_chips_is_the_mean_of_gradients_under_a_noise_for_each(
    task: Task, draws: int, share: float, two: bool
) -> None:
    noise = nr.GaussianNoise(0.2)
    plan = {"share": share, "two": two, "draws": draws}
    path = train(task, nr.RWP(noise, share, draws=draws, chips=3), micro=3, two=two)
    assert_same(path, sgd(task, rwp(task, lambda step, stream: noise, micro=3, **plan)))
    assert_different(path, sgd(task, rwp(task, lambda step, stream: noise, **plan)))


def test_closures_in_a_row_share_a_chip(task: Task) -> None:
    noise = nr.GaussianNoise(0.2)
    apart = sgd(task, rwp(task, lambda step, stream: noise, micro=3))
    assert_same(train(task, nr.RWP(noise, chips=3), micro=6), apart)
    assert_different(train(task, nr.RWP(noise, chips=2), micro=6), apart)


def test_chips_of_unequal_parts_count_by_their_examples(task: Task) -> None:
    """Three closures and two chips: the first chip has two of them."""
    noise, noisy = nr.GaussianNoise(0.2), views(task, None)

    def rule(w: Weights, step: int) -> Weights:
        found = []
        for part, number in zip(parts(task.batch(step), 3), (0, 0, 1), strict=True):
            stream = step_stream(step, 0, number)
            moved = w | {k: noise.perturb(w[k], stream.child(k), view) for k, view in noisy.items()}
            found.append(task.gradient(moved, part))
        return mean(found)

    assert_same(train(task, nr.RWP(noise, chips=2), micro=3), sgd(task, rule))


def test_rwp_of_several_chips_with_one_closure_is_rwp(task: Task) -> None:
    noise = nr.GaussianNoise(0.2)
    assert_same(train(task, nr.RWP(noise, chips=3)), sgd(task, rwp(task, lambda step, stream: noise)))


def test_arwp_remembers_one_gradient_a_step() -> None:
    with pytest.raises(
        nr.NoiseRobustError, match="Expected `chips` to be 1 with ARWP, which remembers one gradient a step, but got 2"
    ):
        nr.ARWP(nr.GaussianNoise(0.2), chips=2)


def test_each_chip_draws_a_level_of_its_own(task: Task) -> None:
    def noise(step: int, stream: nr.Stream) -> Noise:
        return nr.GaussianNoise(0.4 * stream.child("level").generator().random())

    path = train(task, nr.RWP(nr.GaussianNoise(0.2), level_range=(0.0, 0.4), chips=3), micro=3)
    assert_same(path, sgd(task, rwp(task, noise, micro=3)))


# ----------------------------------------------------------------------------------------------------------- schedules

T = 4
STEPS_OF_SCHEDULES = 6
SCHEDULED: dict[str, tuple[Schedule, Callable[[int], float]]] = {
    "constant": (nr.Constant(), lambda t: 1.0),
    "linear": (nr.LinearRamp(T), lambda t: t / T if t < T else 1.0),
    "linear by fraction": (nr.LinearRamp(fraction=0.5), lambda t: t / T if t < T else 1.0),
    "linear over all": (nr.LinearRamp(), lambda t: t / (2 * T)),
    "quadratic": (nr.QuadraticRamp(T), lambda t: t * t / (T * T) if t < T else 1.0),
    "quadratic by fraction": (nr.QuadraticRamp(fraction=0.5), lambda t: t * t / (T * T) if t < T else 1.0),
    "power 3": (nr.PowerRamp(T, power=3.0), lambda t: (t / T) ** 3 if t < T else 1.0),
    "square root": (nr.PowerRamp(T, power=0.5), lambda t: math.sqrt(t / T) if t < T else 1.0),
    "cosine": (nr.CosineRamp(T), lambda t: 0.5 - 0.5 * math.cos(math.pi * t / T) if t < T else 1.0),
    "off to on": (nr.OffToOn(T), lambda t: 0.0 if t < T else 1.0),
    "off to on by fraction": (nr.OffToOn(fraction=0.5), lambda t: 0.0 if t < T else 1.0),
    "linear from 0.2": (nr.LinearRamp(T, start=0.2), lambda t: 0.2 + 0.2 * t if t < T else 1.0),
    "weak to on": (nr.OffToOn(T, start=0.3), lambda t: 0.3 if t < T else 1.0),
}


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_scales_rho_and_sigma_at_each_step(name: str, share: float) -> None:
    task, (schedule, strength), noise = TASKS["mlp"], SCHEDULED[name], nr.GaussianNoise(0.2)
    run = {"schedule": schedule, "total_steps": 2 * T, "steps": STEPS_OF_SCHEDULES}
    for method, rule in (
        (nr.SAM(0.4, share), sam(task, 0.4, share=share, strength=strength)),
        (nr.ASAM(0.8, share), sam(task, 0.8, share=share, strength=strength, adaptive=True)),
        (nr.RWP(noise, share), rwp(task, lambda step, _: nr.GaussianNoise(0.2 * strength(step)), share=share)),
    ):
        assert_same(train(task, method, **run), sgd(task, rule, steps=STEPS_OF_SCHEDULES))


@pytest.mark.parametrize("name", [name for name in SCHEDULED if name != "constant"])
def test_the_reference_of_schedules_tells_a_step_too_early_and_a_ramp_of_the_variance(name: str) -> None:
    task, (schedule, strength) = TASKS["mlp"], SCHEDULED[name]
    run = {"schedule": schedule, "total_steps": 2 * T, "steps": STEPS_OF_SCHEDULES}
    path = train(task, nr.RWP(nr.GaussianNoise(0.2)), **run)

    def wrong(strength: Callable[[int], float]) -> list[Weights]:
        rule = rwp(task, lambda step, stream: nr.GaussianNoise(0.2 * strength(step)))
        return sgd(task, rule, steps=STEPS_OF_SCHEDULES)

    assert_different(path, wrong(lambda t: strength(t + 1)))
    if {strength(t) for t in range(STEPS_OF_SCHEDULES)} != {0.0, 1.0}:
        assert_different(path, wrong(lambda t: math.sqrt(strength(t))))


@pytest.mark.parametrize("two", [False, True], ids=["one batch", "two batches"])
def test_a_schedule_scales_the_level_drawn_from_a_range(task: Task, two: bool) -> None:
    def noise(step: int, stream: nr.Stream) -> Noise:
        level = uniform(0.05, 0.4, stream.child("level").generator().random())
        return nr.GaussianNoise(level * min(step / T, 1.0))

    method = nr.RWP(nr.GaussianNoise(9.0), 0.5, level_range=(0.05, 0.4))
    path = train(task, method, two=two, schedule=nr.LinearRamp(T))
    assert_same(path, sgd(task, rwp(task, noise, share=0.5, two=two)))


@pytest.mark.parametrize("fraction", [None, 0.6], ids=["over all", "by fraction"])
def test_the_cosine_schedule_of_arwp(task: Task, fraction: float | None) -> None:
    sigma0, inc, length = 0.01, 12.0, 10 * (fraction or 1.0)

    def sigma(t: int) -> float:
        return sigma0 * (1 + inc * (1 / 2 - 1 / 2 * math.cos(math.pi * min(t / length, 1.0))))

    method = nr.ARWP(nr.GaussianNoise(sigma0 * (1 + inc), reference="l2"), select=everything, eta=ETA, beta=BETA)
    schedule = nr.CosineRamp(fraction=fraction, start=1 / (1 + inc))
    path = train(task, method, steps=8, schedule=schedule, total_steps=10)
    assert_same(path, sgd(task, arwp(task, sigma, ETA, BETA), steps=8))
    assert_different(path, sgd(task, arwp(task, lambda t: 1.05 * sigma(t), ETA, BETA), steps=8))


@pytest.mark.parametrize("by_hand", [False, True], ids=["closures", "by hand"])
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("name", ["linear", "off to on"])
def test_arwp_remembers_gradients_of_steps_without_noise_too(name: str, share: float, by_hand: bool) -> None:
    # F <- beta F + g1^2 at every step; where the strength is 0, g1 is the gradient at w.
    task, (schedule, strength) = TASKS["mlp"], SCHEDULED[name]
    rule = arwp(task, lambda t: SIGMA * strength(t), ETA, BETA, share=share)
    assert_same(train(task, adaptive(share), schedule=schedule, by_hand=by_hand), sgd(task, rule))


# ------------------------------------------------------------------------------------------------------------ clipping


def clipped(rule: Rule, limit: float) -> Rule:
    """Torch's clipping: ``g * min(1, limit / (||g|| + 1e-6))``."""

    def of(w: Weights, step: int) -> Weights:
        g = rule(w, step)
        return {k: v * min(1.0, limit / (float(norm(g)) + 1e-6)) for k, v in g.items()}

    return of


@pytest.mark.parametrize(("share", "two"), [(1.0, False), (0.3, True)], ids=["one batch", "mixed, two batches"])
def test_max_grad_norm_clips_the_final_gradient_only(task: Task, share: float, two: bool) -> None:
    noise, limit = nr.GaussianNoise(0.2), 0.3
    for method, rule in (
        (nr.SAM(0.4, share), lambda: sam(task, 0.4, share=share, two=two)),
        (nr.RWP(noise, share), lambda: rwp(task, lambda step, stream: noise, share=share, two=two)),
        (adaptive(share), lambda: arwp(task, always(SIGMA), ETA, BETA, share=share, two=two)),
    ):
        path = train(task, method, two=two, max_grad_norm=limit)
        assert_same(path, sgd(task, clipped(rule(), limit)))
        assert_different(path, sgd(task, rule()))


def test_the_reference_of_clipping_tells_a_clipped_first_gradient_and_clipping_after_weight_decay(task: Task) -> None:
    path = train(task, nr.SAM(0.4, 0.3), max_grad_norm=0.3)
    assert_different(path, sgd(task, clipped(sam(task, 0.4, share=0.3, planted="clipped ascent"), 0.3)))
    assert_different(path, sgd(task, clipped(sam(task, 0.4, share=0.3), 0.315)))
    memory = train(task, adaptive(), max_grad_norm=0.3)
    wrong = arwp(task, always(SIGMA), ETA, BETA, planted="clipped gradient in F")
    assert_different(memory, sgd(task, clipped(wrong, 0.3)))

    def with_decay(w: Weights, step: int) -> Weights:
        decayed = clipped(lambda w, step: {k: g + DECAY * w[k] for k, g in plain(w, step).items()}, 0.3)(w, step)
        return {k: g - DECAY * w[k] for k, g in decayed.items()}

    plain = sam(task, 0.4, share=0.3)
    assert_different(path, sgd(task, with_decay))


CLIPS = [
    (nr.WeightClip(stds=1.2), {"type": "LAYER_GAUSSIAN", "sigma": 1.2, "fixed_value": -1.0}),
    (nr.WeightClip(value=0.15), {"type": "FIXED_VALUE", "fixed_value": 0.15}),
    (nr.WeightClip(stds=1.2, value=0.15), {"type": "LAYER_GAUSSIAN", "sigma": 1.2, "fixed_value": 0.15}),
    (nr.WeightClip(stds=1.2, value=10.0), {"type": "LAYER_GAUSSIAN", "sigma": 1.2, "fixed_value": 10.0}),
]


def clip_by_aihwkit(weight: Tensor, settings: dict[str, object]) -> Tensor:
    """Clip a weight on a torch tile of aihwkit, of which it is the matrix."""
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import WeightClipType
    from aihwkit.simulator.parameters.inference import WeightClipParameter
    from aihwkit.simulator.tiles.torch_tile import TorchSimulatorTile

    matrix = weight.flatten(1)
    tile = TorchSimulatorTile(matrix.shape[1], matrix.shape[0], TorchInferenceRPUConfig())
    tile.set_weights(matrix)
    tile.clip_weights(WeightClipParameter(**{**settings, "type": WeightClipType[str(settings["type"])]}))
    assert tile.get_weights().dtype == weight.dtype
    return tile.get_weights().reshape(weight.shape)


def clip_by_formula(weight: Tensor, clip: nr.WeightClip) -> Tensor:
    """Clamp to ``min(stds * std(w), value)``, std with Bessel's correction, of the whole tensor."""
    limits = [] if clip.value is None else [clip.value]
    if clip.stds is not None:
        deviations = weight - weight.mean()
        limits.append(clip.stds * math.sqrt(float((deviations**2).sum()) / (weight.numel() - 1)))
    limit = torch.tensor(min(limits), dtype=weight.dtype)
    return torch.minimum(torch.maximum(weight, -limit), limit)


@pytest.mark.parametrize(("clip", "settings"), CLIPS, ids=str)
def test_weights_are_clipped_after_each_step_as_aihwkit_clips_them(task: Task, clip, settings) -> None:
    pytest.importorskip("aihwkit")
    noisy = views(task, None)
    rule = sam(task, 0.4)
    path = train(task, nr.SAM(0.4), weight_clip=clip)
    expected = sgd(task, rule, after=lambda w: w | {k: clip_by_aihwkit(w[k], settings) for k in noisy})
    assert_same(path, expected)
    assert_different(path, sgd(task, rule))
    everywhere = sgd(task, rule, after=lambda w: {k: clip_by_formula(v, clip) for k, v in w.items()})
    if clip.value != 10.0 and clip.value is not None:
        assert_different(path, everywhere)  # biases and normalisation are digital


@pytest.mark.parametrize(("clip", "settings"), CLIPS, ids=str)
def test_weights_are_clipped_after_each_step_by_the_formula(task: Task, clip, settings) -> None:
    noisy = views(task, None)
    expected = sgd(task, sam(task, 0.4), after=lambda w: w | {k: clip_by_formula(w[k], clip) for k in noisy})
    assert_same(train(task, nr.SAM(0.4), weight_clip=clip), expected)


@pytest.mark.parametrize("value", [None, 0.15])
def test_each_filter_is_clipped_by_its_own_size(task: Task, value: float | None) -> None:
    noisy = views(task, None)

    def by_formula(name: str, weight: Tensor) -> Tensor:
        matrix = noisy[name].matrix(weight)
        limit = 1.2 * (matrix**2).mean(dim=1, keepdim=True).sqrt()
        limit = limit if value is None else limit.clamp(max=value)
        return noisy[name].restore(torch.minimum(torch.maximum(matrix, -limit), limit), weight.shape)

    expected = sgd(task, sam(task, 0.4), after=lambda w: w | {k: by_formula(k, w[k]) for k in noisy})
    path = train(task, nr.SAM(0.4), weight_clip=nr.WeightClip(1.2, value, granularity="filter"))
    assert_same(path, expected)
    assert_different(path, train(task, nr.SAM(0.4), weight_clip=nr.WeightClip(1.2, value)))


def test_a_filter_whose_weights_are_alike_is_left_as_it_is() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    weight = torch.tensor([[2.0, 2.0, 2.0], [-0.01, 0.01, 0.03]])
    model.weight.data.copy_(weight)
    nr.WeightClip(1.0, granularity="filter").apply(nr.find_sites(model))
    assert torch.equal(model.weight[0], weight[0])
    torch.testing.assert_close(model.weight[1].abs().max().item(), math.sqrt(11e-4 / 3))


def test_there_are_two_granularities() -> None:
    with pytest.raises(
        nr.NoiseRobustError, match=r"Expected `granularity` to be one of 'filter', 'tensor', but got 'tile'"
    ):
        nr.WeightClip(1.0, granularity="tile")


@pytest.mark.parametrize(("clip", "settings"), CLIPS, ids=str)
def test_clipping_in_single_precision_is_that_of_aihwkit(clip, settings) -> None:
    pytest.importorskip("aihwkit")
    model = TASKS["convolutions"].build().float()
    expected = {
        k: clip_by_aihwkit(model.get_parameter(k).detach(), settings) for k in views(TASKS["convolutions"], None)
    }
    clip.apply(nr.find_sites(model))
    for k, value in expected.items():
        torch.testing.assert_close(model.get_parameter(k).detach(), value, rtol=1e-6, atol=1e-8)
    off = replace(clip, **{k: 1.05 * v for k, v in {"stds": clip.stds, "value": clip.value}.items() if v})
    other = TASKS["convolutions"].build().float()
    off.apply(nr.find_sites(other))
    assert not all(torch.allclose(other.get_parameter(k), v, rtol=1e-3) for k, v in expected.items())


# ----------------------------------------------------------------------------------------------------------------- WAS

Cells = tuple[int, ...]
"""Where each of the 9 cells of a 3 x 3 kernel comes from; -1 is a zero."""


def outcomes() -> dict[Cells, str]:
    """All shifts by at most one cell, followed by all turns."""
    found = {}
    for down, right, turns in product((-1, 0, 1), (-1, 0, 1), range(4)):
        kernel = [[-1] * 3 for _ in range(3)]
        for i, j in product(range(3), range(3)):
            if 0 <= i - down < 3 and 0 <= j - right < 3:
                kernel[i][j] = 3 * (i - down) + (j - right)
        for _ in range(turns):  # a quarter turn against the clock
            kernel = [[kernel[j][2 - i] for j in range(3)] for i in range(3)]
        found[tuple(kernel[i][j] for i in range(3) for j in range(3))] = f"shift {down} {right}, {turns} turns"
    return found


OUTCOMES = outcomes()
SHIFTS_AND_TURNS = nr.KernelTransform(0.6, kinds=("translate", "rot90"))


def cells(noise: nr.KernelTransform, stream: nr.Stream) -> Cells:
    """Recognise the transform of a stream by what becomes of a numbered kernel."""
    seen = noise.perturb(torch.arange(1.0, 10.0).reshape(1, 1, 3, 3), stream).flatten()
    found = tuple(int(v) - 1 for v in seen)
    assert found in OUTCOMES
    return found


def shadow(weight: Tensor, found: Cells) -> Tensor:
    """The transformed weight, cell by cell, for autograd."""
    flat = weight.flatten(2)
    columns = [flat[:, :, source] if source >= 0 else torch.zeros_like(flat[:, :, 0]) for source in found]
    return torch.stack(columns, 2).reshape(weight.shape)


def was(
    task: Task,
    noise: Callable[[int], nr.KernelTransform],
    *,
    share: float = 1.0,
    straight: bool = False,
    draws: int = 1,
    two: bool = False,
    inverse: bool = False,
) -> Rule:
    kernels = [k for k, w in task.weights().items() if w.ndim == 4]

    def at_shadow(w: Weights, batch: Batch, step: int, draw: int) -> Weights:
        maps = {k: cells(noise(step), step_stream(step, draw).child(k)) for k in kernels}
        leaves = {k: v.clone().requires_grad_() for k, v in w.items()}
        used = leaves | {k: shadow(leaves[k], maps[k]) for k in kernels}
        if straight:
            used = {k: leaves[k] + (used[k] - leaves[k]).detach() for k in w}
        loss = cross_entropy(functional_call(task.network, used, (batch[0],)), batch[1])
        g = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        return g if not inverse else g | {k: shadow(g[k], maps[k]) for k in kernels}

    def rule(w: Weights, step: int) -> Weights:
        first, second = task.batch(step), task.other(step) if two else task.batch(step)
        perturbed = mean([at_shadow(w, second, step, draw) for draw in range(draws)])
        return mixture(task.gradient(w, first), perturbed, share)

    return rule


@pytest.mark.parametrize("gradient", ["through", "straight"])
@pytest.mark.parametrize(
    ("share", "draws", "by_hand"), [(1.0, 1, False), (1.0, 2, True), (0.5, 1, True), (0.5, 2, False)]
)
def test_was(share: float, gradient: str, draws: int, by_hand: bool) -> None:
    task = TASKS["convolutions"]
    method = nr.WeightAugmentation(SHIFTS_AND_TURNS, share, draws=draws, gradient=gradient)
    path = train(task, method, by_hand=by_hand)
    plan = {"share": share, "draws": draws}
    assert_same(path, sgd(task, was(task, lambda step: SHIFTS_AND_TURNS, **plan, straight=gradient == "straight")))
    assert_different(path, sgd(task, was(task, lambda step: SHIFTS_AND_TURNS, **plan, straight=gradient != "straight")))
    if gradient == "through" and draws == 1:
        assert_different(path, sgd(task, was(task, lambda step: SHIFTS_AND_TURNS, **plan, inverse=True)))


def test_was_with_two_batches_several_closures_and_a_ramp_of_the_probability() -> None:
    task = TASKS["convolutions"]
    method = nr.WeightAugmentation(SHIFTS_AND_TURNS, 0.5)
    path = train(task, method, two=True, micro=2, schedule=nr.LinearRamp(T))
    rule = was(task, lambda step: SHIFTS_AND_TURNS.at(0.6 * min(step / T, 1.0)), share=0.5, two=True)
    assert_same(path, sgd(task, rule))
    assert_different(path, sgd(task, was(task, lambda step: SHIFTS_AND_TURNS, share=0.5, two=True)))


def test_the_transforms_of_this_run_are_many() -> None:
    found = {cells(SHIFTS_AND_TURNS, step_stream(s).child(k)) for s in range(STEPS) for k in ("0.weight", "3.weight")}
    assert len(found) > 5
    assert tuple(range(9)) in OUTCOMES
