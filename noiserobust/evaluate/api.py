"""``noiserobust.evaluate``: models in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiserobust.config import PRECISIONS
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize, parse_normalize
from noiserobust.data.registry import default_normalize
from noiserobust.errors import InvalidValueError, check_choice, check_integer
from noiserobust.evaluate.calibration import Calibration
from noiserobust.evaluate.forward import Data, Forward, as_data, pick_device
from noiserobust.evaluate.metrics import METRICS, parse_metrics
from noiserobust.evaluate.montecarlo import EvaluationResult, Part, as_result, run
from noiserobust.evaluate.plan import Plan, Subject, parse_levels
from noiserobust.evaluate.precision import run_until, sampled_metric
from noiserobust.evaluate.settle import Settled, settle, settled
from noiserobust.executors import Executor, make_executor
from noiserobust.noise.base import Noise
from noiserobust.noise.sites import Select, Site, find_sites
from noiserobust.results.export import to_csv
from noiserobust.results.files import write_atomic
from noiserobust.results.manifest import environment
from noiserobust.results.schema import PRECISION_FILE
from noiserobust.results.store import DrawStore


def evaluate(
    models: nn.Module | Sequence[nn.Module],
    data: Data,
    *,
    noise: Noise,
    levels: Iterable[float | str] | None = None,
    draws: int | None = None,
    seed: int = 0,
    precision: str = "fp32",
    device: str = "auto",
    metrics: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = "accuracy",
    method: str = "model",
    train_seeds: Sequence[int] | None = None,
    normalize: str | Normalize = "auto",
    batch_size: int | None = None,
    select: Select | None = None,
    calibration: Calibration | None = None,
    reads: str = "pass",
    analog: bool = False,
    until: float | None = None,
    executor: str | Executor = "serial",
    out: str | Path | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Measure how accurate models stay when noise falls on their weights.

    Args:
        models: one model, or several trainings of one method (one a train seed); left unchanged.
        data: ``(x, y)`` tensors or arrays, x of shape (N, C, H, W) or (N, features), uint8 (scaled to [0, 1]) or
            floating, y integer labels (N,); or a DataLoader of such batches, of which x may also be integer tokens, or
            of dictionaries, which the model takes by name, but for ``labels``. Targets are labels for the metrics that
            are names, and anything for others.
        noise: the noise; the same object the trainer takes.
        levels: severities, numbers or text (``"1d"`` for a device); ``0`` and ``"clean"`` mean without
            noise. By default the noise's own level.
        draws: chips for each model and level, >= 1, by default 10; a level without noise has one. With ``until`` at
            most so many, >= 2, by default 10,000.
        seed: root seed of the chips, >= 0. Draw k is the same chip at every level and for every method.
        precision: ``"fp32"``, or ``"bf16"``, which is compared with fp32 on three chips at the strongest noise first,
            and not used if an accuracy differs by more than half a point (another metric by half a percent).
        device: ``"auto"`` (CUDA if there is one), ``"cpu"``, ``"cuda:0"``, ...
        metrics: what is measured, one or several of ``"accuracy"``, ``"top5"`` (percent), ``"loss"`` (cross-entropy,
            nats), ``"file.py:callable"``, or functions of the outputs and targets of a batch that return a sum and a
            count: the value is the ratio of the totals, or what an attribute ``finish`` of the function makes of
            them. Sums and counts may be tensors, one element a class say, of whose ratios the mean is taken.
        method: name of the method in the results.
        train_seeds: the train seed of each model, by default 0, 1, ...
        normalize: from stored values to network inputs: ``"none"``, ``"cifar10"``, ``"m,m,m/s,s,s"``, ...;
            ``"auto"`` is what a data set of :func:`noiserobust.load_data` has, and ``"none"`` for others.
        batch_size: examples a pass through the network, >= 1; by default it follows from the size of the largest
            output of a layer. Without effect on a DataLoader.
        select: which weights are noisy; by default all of Conv, Linear, Embedding, recurrent and attention modules.
        calibration: what is done to each chip before it is evaluated; by default nothing.
        reads: how often a device is read, with new read noise: once a ``"pass"`` over the data, or for each
            ``"batch"``, which makes results depend on ``batch_size``.
        analog: whether layers are simulated as full analog tiles by aihwkit, on the CPU, with the periphery of the
            device's profile: slow. Layers that cannot be tiles stay digital, and without noise.
        until: draw chips until the 95% interval for the mean over chips is no wider than plus and minus this, > 0, in
            units of the metric, for each model and level. Each chip is run on some of the examples only, and compared
            with what the model does on them without noise: far fewer passes for the same mean, but not for yields or
            tails, and not if a few chips are far worse than all others. For arrays, and one metric of ``accuracy``,
            ``top5`` and ``loss``. How many examples a chip is run on depends on what a chip costs, which is measured,
            and kept in ``out``: another run may find another value within the interval.
        executor: where draws are computed: ``"serial"``, ``"processes"`` of this machine, ``"ray"``, or one with
            settings from :func:`noiserobust.executors.make_executor`. The results are the same.
        out: folder for ``draws.csv``, ``summary.csv`` and ``manifest.json``; finished draws found there are kept.
        progress: whether to show progress: a bar on a terminal, a line every half minute elsewhere.

    Returns:
        The draws, one row each, and their summary; with ``until`` also how precise it is.

    Raises:
        InvalidValueError: if an argument is not valid, or model, data and noise do not fit together.
        OutputError: if ``out`` cannot be written to.
        FailedJobsError: if draws could not be computed because workers died, after all others are.

    >>> import noiserobust as nr
    >>> model, data = nr.build_model("digits-mlp"), nr.load_data("digits", "test")
    >>> result = nr.evaluate(model, data, noise=nr.GaussianNoise(0.05), levels=[0, 0.05], draws=2)
    >>> result.draws["level"].tolist()
    [0.0, 0.05, 0.05]
    """
    subjects = subjects_of(models, method, train_seeds)
    if not isinstance(noise, Noise):
        raise InvalidValueError(f"Expected `noise` to be a noise object, but got {noise!r}")
    if calibration is not None and not isinstance(calibration, Calibration):
        raise InvalidValueError(f"Expected `calibration` to be a nr.Calibration, but got {calibration!r}")
    where = executor if isinstance(executor, Executor) else make_executor(executor)
    severities = parse_levels(noise, [noise.level] if levels is None else levels)
    plan = Plan(noise, severities, draws_of(draws, until), seed, select, calibration, reads, analog, until)
    forward = make_forward(data, normalize, device, precision, batch_size, metrics)
    if out is None:
        forward = settled(forward, settle(subjects[0], forward, plan))
        if until is not None:
            return as_result(run_until(subjects, forward, plan, _measured, progress=progress, executor=where))
        return as_result(run(subjects, forward, plan, progress=progress, executor=where))
    configuration = describe(plan, forward, subjects[0].load(), {"weights": hashes_of(subjects)})
    return run_into(Path(out), subjects, forward, plan, configuration, progress=progress, executor=where)


def subjects_of(
    models: nn.Module | Sequence[nn.Module], method: str = "model", train_seeds: Sequence[int] | None = None
) -> list[Subject]:
    """Return models in memory as what can be evaluated.

    Args:
        models: one model, or several trainings of one method.
        method: name of the method in the results.
        train_seeds: the train seed of each model, by default 0, 1, ...

    Raises:
        InvalidValueError: if an argument is not valid.
    """
    sequence = [models] if isinstance(models, nn.Module) else list(models) if isinstance(models, Iterable) else []
    if not sequence or not all(isinstance(m, nn.Module) for m in sequence):
        raise InvalidValueError(f"Expected `models` to be a module or a non-empty list of modules, but got {models!r}")
    seeds = list(range(len(sequence)) if train_seeds is None else train_seeds)
    if len(seeds) != len(sequence) or len(set(seeds)) != len(seeds):
        raise InvalidValueError(
            f"Expected `train_seeds` to be {len(sequence)} distinct integers, but got {train_seeds!r}"
        )
    return [
        Subject(method, check_integer("train_seeds", s, minimum=0), f"model{s}", lambda m=m: m)  # type: ignore[misc]
        for s, m in zip(seeds, sequence, strict=True)
    ]


def hashes_of(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """Return what identifies models in memory in a configuration, JSON-able."""
    return [{"method": s.method, "train_seed": s.train_seed, "sha256": model_sha256(s.load())} for s in subjects]


def make_forward(
    data: Data,
    normalize: str | Normalize,
    device: str,
    precision: str,
    batch_size: int | None,
    metrics: object = "accuracy",
) -> Forward:
    """Return the forward pass over a data set.

    Raises:
        InvalidValueError: if an argument is not valid.
    """
    if batch_size is not None:
        check_integer("batch_size", batch_size, minimum=1)
    measured = parse_metrics(metrics)
    examples = as_data(data, measured, batch_size)
    if normalize == "auto":
        normalize = default_normalize(examples.name) if isinstance(examples, ArrayData) else "none"
    return Forward(
        examples,
        parse_normalize(normalize) if isinstance(normalize, str) else normalize,
        pick_device(device),
        check_choice("precision", precision, PRECISIONS),
        batch_size,
        measured,
    )


def run_into(
    out: Path,
    subjects: Sequence[Subject],
    forward: Forward,
    plan: Plan,
    configuration: dict[str, Any],
    *,
    progress: bool = False,
    part: Part = (1, 1),
    executor: Executor | None = None,
    how: Settled | None = None,
    kind: str = "evaluation",
) -> EvaluationResult:
    """Evaluate into a folder, keeping the finished draws of an earlier run of the same configuration.

    Args:
        out: folder.
        subjects: trained weights.
        forward: data, device, the precision that was asked for.
        plan: noise, levels, draws.
        configuration: everything that determines the results.
        progress: whether to show progress.
        part: which part of how many is computed.
        executor: where draws are computed; by default here, one after the other.
        how: what was settled before, for several evaluations alike; by default it is settled here.
        kind: what the manifest says that the folder holds.

    Raises:
        InvalidValueError: if the folder holds results of another configuration.
        OutputError: if it cannot be written to.
    """
    with DrawStore(out, configuration, environment({"device": str(forward.device)}), kind) as store:
        forward = settled(forward, store.remember("settled", lambda: how or settle(subjects[0], forward, plan)))
        rest: dict[str, Any] = {"done": store.rows, "keep": store.append, "progress": progress, "executor": executor}
        if plan.until is not None:
            known = partial(store.remember, "chip_cost")
            result = as_result(run_until(subjects, forward, plan, known, **rest))
            write_atomic(out / PRECISION_FILE, to_csv(result.precision()))
        else:
            result = as_result(run(subjects, forward, plan, part=part, **rest))
        store.finish(result.summary())
    return result


def draws_of(draws: int | None, until: float | None) -> int:
    """Return the number of draws, or what it is by default."""
    return (10 if until is None else 10_000) if draws is None else draws


def _measured(measure: Callable[[], float]) -> float:
    return measure()


def describe(plan: Plan, forward: Forward, model: nn.Module, more: dict[str, Any]) -> dict[str, Any]:
    """Return everything that determines the results, JSON-able.

    Args:
        plan: noise, levels, draws.
        forward: data, precision.
        model: one of the models; which of its weights are noisy is recorded.
        more: what else there is to say; its ``data`` is merged with the hash of the data.
    """
    sites = find_sites(model, plan.select)
    if plan.until is not None:
        sampled_metric(forward)
    if plan.calibration is not None:
        plan.calibration.check(model, sites)  # before anything is written
    noisy = {site.name: site.weight().numel() for site in sites}
    return {
        "noise": plan.noise.describe(),
        "level_name": plan.noise.level_name,
        "levels": [level.value for level in plan.levels],
        "draws": plan.draws,
        "seed": plan.seed,
        "precision": forward.precision,
        "normalize": str(forward.normalize),
        **more,
        "data": {**forward.describe_data(), **more.get("data", {})},
        **({} if plan.calibration is None else {"calibration": plan.calibration.describe()}),
        **({} if not plan.analog else _tiles(sites, forward)),
        **({} if plan.until is None else {"until": plan.until}),
        **({} if forward.metrics == (METRICS["accuracy"],) else {"metrics": _metrics(forward)}),
        **({} if plan.reads == "pass" else {"reads": plan.reads, "batch_size": forward.batch_size}),
        **describe_noisy(noisy, sum(p.numel() for p in model.parameters())),
    }


def describe_noisy(noisy: Mapping[str, int], parameters: int) -> dict[str, Any]:
    """Return what a configuration says of where noise falls, JSON-able.

    Args:
        noisy: the names of the noisy weights, in the order of the model, each with its number of elements.
        parameters: number of elements of all parameters.
    """
    return {
        "noisy_weights": list(noisy),
        "noisy_share_of_parameters": round(sum(noisy.values()) / parameters, 6),
    }


def _metrics(forward: Forward) -> list[dict[str, str]]:
    hashes = [{} if m.code_sha256 is None else {"code_sha256": m.code_sha256} for m in forward.metrics]
    return [{"name": m.name, **h} for m, h in zip(forward.metrics, hashes, strict=True)]


def _tiles(sites: Sequence[Site], forward: Forward) -> dict[str, list[str]]:
    from noiserobust.evaluate.analog import split

    if forward.device.type != "cpu":
        raise InvalidValueError(f"Expected `device` to be cpu with `analog`, but got {forward.device}")
    analog, digital = split(sites)
    return {"analog": [site.name for site in analog], "digital": [site.name for site in digital]}


def model_sha256(model: nn.Module) -> str:
    """Return the SHA-256 over a model's structure and state: its text form, names, dtypes, shapes and values."""
    digest = hashlib.sha256(f"{type(model).__module__}.{type(model).__qualname__}\n{model!r}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, Tensor):  # a module's extra state
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
