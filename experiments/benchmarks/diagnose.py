"""What a landscape costs beside the plain loop over points, and what recording costs a training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import in_turns, medians_of, ratios
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training import stepper

import noiserobust as nr
from noiserobust.diagnose.directions import Plane, RandomDirection
from noiserobust.diagnose.recorder import Recorder
from noiserobust.diagnose.surface import METRICS, LandscapeConfig
from noiserobust.evaluate.api import make_forward
from noiserobust.evaluate.draws import Draws
from noiserobust.evaluate.plan import Level, Plan, Subject
from noiserobust.evaluate.settle import settle, settled
from noiserobust.models.registry import build_model

POINTS, EXAMPLES = 51, 1000
"""Along each direction; and images for each point."""

_TAKEN = 4
"""Points a round."""


def plain_loop(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> Callable[[], object]:
    """Return the loop over points that anybody would write, in fp32, with prepared inputs and directions."""
    weights = [p.detach().clone() for p in model.parameters()]
    first, second = ([torch.randn_like(w) * w.norm() / w.numel() ** 0.5 for w in weights] for _ in range(2))

    def task() -> None:
        for point in range(_TAKEN):
            with torch.no_grad():
                for p, w, a, b in zip(model.parameters(), weights, first, second, strict=True):
                    p.copy_(w + 0.1 * point * a - 0.2 * b)
                loss, right = 0.0, 0
                for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
                    output = model(xs)
                    loss += cross_entropy(output, ys, reduction="sum").item()
                    right += int((output.argmax(1) == ys).sum())

    return task


def evaluated(model: nn.Module, x: Tensor, y: Tensor, precision: str) -> Callable[[], object]:
    """Return the same number of points of a landscape of 51 x 51, as an evaluation does them."""
    axis = LandscapeConfig(points=POINTS).axis
    plane = Plane([RandomDirection(0, 0), RandomDirection(0, 1)], [axis, axis])
    levels = [Level(float(p), plane.at(p)) for p in range(1, plane.size + 1)]
    forward = make_forward((x, y), "none", "cpu", precision, None, METRICS)
    subject = Subject("m", 0, "w", lambda: model)
    how = settle(subject, forward, Plan(plane, levels, 1, 0))
    print(f"  {precision}: {how}")
    middle = plane.size // 2
    # The network is made ready once for all points, here for those of all rounds.
    draw = Draws([subject], settled(forward, how), Plan(plane, levels, 1, 0))
    return lambda: [draw((0, middle + point, 0)) for point in range(_TAKEN)]


def landscapes() -> None:
    """Time points of a landscape against the plain loop over points."""
    print(f"\nLandscape: a point of ResNet-20, {EXAMPLES} images, loss and accuracy")
    model = build_model("resnet20")
    x, y = torch.rand(EXAMPLES, 3, 32, 32), torch.randint(10, (EXAMPLES,))
    model(x[:256])
    model.eval()
    tasks = {
        f"plain loop, fp32, batch {size}": plain_loop(build_model("resnet20").eval(), x, y, size) for size in (128, 250)
    }
    tasks |= {f"landscape, {precision}": evaluated(model, x, y, precision) for precision in ("fp32", "bf16")}
    seconds = in_turns(tasks, 9)
    quickest = min(list(tasks)[:2], key=lambda name: medians_of(seconds)[name])
    times = ratios(seconds, quickest)
    for name, value in medians_of(seconds).items():
        print(f"  {name:<44} {value / _TAKEN * 1000:9.1f} ms   {1 / times[name]:6.2f} x as fast as the quicker loop")


def recording() -> None:
    """Time samples of a recorder against the steps of the training they interrupt, at the default rate."""
    print("\nRecording at the default rate, as a share of the training's time (<= 3%)")
    cases = [("resnet20", 128, False), ("resnet20", 128, True)]
    for name, size, bf16 in cases:
        x, y = torch.rand(size, 3, 32, 32), torch.randint(10, (size,))
        for label, method in {
            "SGD": nr.Unperturbed(),
            "RWP": nr.RWP(nr.GaussianNoise(0.1)),
            "SAM": nr.SAM(0.1),
        }.items():
            model = build_model(name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            optimizer = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), method, model)
            batches = [(x, y), (x, y)]
            more = {"total_steps": 78_200, "steps_per_epoch": 391}
            passes = method.passes / (2 if bf16 else 1)  # as in a training
            recorder = Recorder(model, optimizer, batches, batches, step_passes=passes, **more)
            tasks: dict[str, Callable[[], object]] = {
                "step": stepper(model, method, x, y, bf16),
                "sample": lambda r=recorder: r._looks.sample(r.model, 1.0, {}),  # type: ignore[misc]
                "travel": lambda r=recorder: r._travel.step(epoch_ends=False),  # type: ignore[misc]
            }
            taken = medians_of(in_turns(tasks, 5))
            share = (taken["sample"] / recorder.every + taken["travel"]) / taken["step"]
            told = f"{name}, {'bf16' if bf16 else 'fp32'}, {label}"
            step, sample, way = (taken[key] for key in ("step", "sample", "travel"))
            print(f"  {told:<28} step {1000 * step:7.1f} ms, sample {sample / step:5.1f} steps every {recorder.every},")
            print(f"  {'':<28} way of the weights {1000 * way:5.2f} ms a step: {100 * share:5.2f} %")


def diagnose() -> None:
    """Run both."""
    landscapes()
    recording()


if __name__ == "__main__":
    torch.manual_seed(0)
    diagnose()
