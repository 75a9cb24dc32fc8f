"""How an evaluation is run: settled once, by measuring, and kept for all of its draws."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from noiserobust.config import PRECISIONS
from noiserobust.data.arrays import ArrayData
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.plan import Plan, Subject
from noiserobust.noise.base import chip_stream
from noiserobust.noise.sites import find_sites
from noiserobust.perturb import noisy_weights

_log = logging.getLogger(__name__)

CHIPS = 3
EXAMPLES = 2000
BOUND = 0.5  # points of accuracy, percent of another metric

_LARGEST_LAYER = {"cpu": 4 << 20}  # bytes of the largest output of a layer for a batch: what stays in a core's cache
_ELSEWHERE = 256 << 20
_BATCH = {"cpu": (16, 256)}
_BATCH_ELSEWHERE = (64, 4096)

Settled = dict[str, Any]
"""JSON-able: ``path``, ``batch_size``, ``precision`` and, if bf16 was asked for, how it was ``compared`` with fp32."""


def settle(subject: Subject, forward: Forward, plan: Plan) -> Settled:
    """Return how an evaluation is run.

    The batch size follows from the size of the outputs of layers, and not from timings, so that all machines and all
    parts of an evaluation settle on the same. bf16 is compared with fp32 on a few chips at the strongest noise.

    Args:
        subject: the first of the trained weights.
        forward: data, device, the precision that was asked for.
        plan: noise and levels.

    Raises:
        InvalidValueError: if data, model and metrics do not fit together.
    """
    model = subject.load()
    find_sites(model, plan.select)  # what cannot be perturbed may not bear copying either: check first
    model = forward.place(model, own=subject.own)
    sites = () if plan.calibration or plan.analog else find_sites(model, plan.select)
    batch_size = forward.batch_size or _batch_size(model, forward)
    asked = replace(forward, batch_size=batch_size)
    path = "analog tiles" if plan.analog else asked.network(model, sites).path
    found: Settled = {"path": path, "batch_size": batch_size, "precision": forward.precision}
    if forward.precision == "bf16" and not plan.analog:
        found["compared"] = _compared(model, subject, asked, plan)
        if not found["compared"]["agrees"]:
            exact = replace(asked, precision="fp32")
            found |= {"precision": "fp32", "path": exact.network(model, sites).path}
        _log.info("bf16 against fp32: %s", found["compared"])
    _log.info("network: %s; %s; batches of %s", found["path"], found["precision"], batch_size or "the loader")
    return found


def settled(forward: Forward, how: Settled) -> Forward:
    """Return a forward pass as it was settled.

    Raises:
        InvalidValueError: if ``how``, which a manifest may have said, is no such thing.
    """
    size = how.get("batch_size") if isinstance(how, dict) else None
    if (
        not isinstance(how, dict)
        or not {"path", "batch_size", "precision"} <= set(how)
        or how["precision"] not in PRECISIONS
        or not (size is None or (isinstance(size, int) and 0 < size < 1 << 31))
    ):
        raise InvalidValueError(f"Expected `settled` of a manifest to be how an evaluation was run, but got {how!r}")
    return replace(forward, batch_size=how["batch_size"], precision=how["precision"])


def _compared(model: nn.Module, subject: Subject, forward: Forward, plan: Plan) -> dict[str, Any]:
    """Compare bf16 with fp32 on the same chips and examples, metric by metric."""
    few = replace(forward, data=_few(forward.data), at_most=EXAMPLES)
    sites = find_sites(model, plan.select)
    strongest = max(plan.levels, key=lambda level: level.value)
    traced = () if plan.calibration else sites
    networks = [replace(few, precision=p).network(model, traced) for p in ("fp32", "bf16")]
    differences: dict[str, list[float]] = {m.name: [] for m in few.metrics}
    allowed = {}
    for draw in range(CHIPS if strongest.noise else 1):
        measured = []
        for network in networks:
            stream = chip_stream(plan.seed, subject.train_seed, draw)
            with network.on(noisy_weights(sites, strongest.noise, stream) if strongest.noise else ()):
                measured.append(few.measure(network))
        (exact, examples), (half, _) = measured
        for metric in few.metrics:
            differences[metric.name].append(half[metric.name] - exact[metric.name])
            unit = 1.0 if metric.percent else abs(exact[metric.name]) / 100
            # A single example may well fall to the other side.
            allowed[metric.name] = max(BOUND * unit, 100 / examples if metric.percent else 0.0)
    largest = {name: max(map(abs, values)) for name, values in differences.items()}
    return {
        "chips": len(next(iter(differences.values()))),
        "examples": examples,
        "level": strongest.value,
        "largest_difference": {name: round(value, 6) for name, value in largest.items()},
        "allowed": {name: round(value, 6) for name, value in allowed.items()},
        "agrees": all(largest[name] <= allowed[name] * (1 + 1e-9) for name in largest),
    }


def _few(data: ArrayData | DataLoader[Any]) -> ArrayData | DataLoader[Any]:
    if isinstance(data, DataLoader):
        return data
    step = max(len(data) // EXAMPLES, 1)  # from all of it: data sets may be sorted
    return data.subset(torch.arange(0, len(data), step)[:EXAMPLES])


def _batch_size(model: nn.Module, forward: Forward) -> int | None:
    """Return a power of two for which the largest output of a layer is not too large; None for loaders."""
    if isinstance(forward.data, DataLoader):
        return None
    kind = forward.device.type
    low, high = _BATCH.get(kind, _BATCH_ELSEWHERE)
    largest = 1

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel() * (2 if forward.precision == "bf16" else output.element_size()))

    handles = [m.register_forward_hook(look) for m in model.modules()]
    try:
        replace(forward, data=forward.data.subset([0]), batch_size=1).measure(forward.network(model))
    except InvalidValueError:
        pass  # said where it is run on the data
    finally:
        for handle in handles:
            handle.remove()
    fits = _LARGEST_LAYER.get(kind, _ELSEWHERE) / largest
    return int(min(max(2 ** round(math.log2(fits)), low), high)) if fits >= 1 else low
