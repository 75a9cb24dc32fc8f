"""One weight on the devices of a crossbar: mapped, programmed, read, compensated.

Weights stay in conductance space from programming to read-out: going through weight space in between would map them to
the programmed maximum and change the gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from noiserobust.noise.curves import Conductance
from noiserobust.noise.physics import State
from noiserobust.noise.profiles import Profile
from noiserobust.noise.reference import per_group
from noiserobust.rng import Stream, draw
from noiserobust.threads import in_threads

_BLOCK = 1 << 15  # conductances: all that is computed of a block stays in a core's cache, in one thread of torch
_WORTH_THREADS = 1 << 19


@dataclass(frozen=True)
class Programmed:
    """A weight after programming.

    Args:
        weight: what was to be programmed, a float32 matrix of shape ``(filters, inputs)``.
        state: of its devices, tensors of shape ``(devices, filters, inputs)``.
    """

    weight: Tensor
    state: State

    def to(self, device: torch.device) -> Programmed:
        """Return the same on a device."""
        return Programmed(self.weight.to(device), {name: value.to(device) for name, value in self.state.items()})


def program(profile: Profile, weight: Tensor, stream: Stream) -> Programmed:
    """Return a weight after programming.

    Args:
        profile: the device.
        weight: float32 matrix of shape ``(filters, inputs)``.
        stream: random numbers of the chip; those of programming and of drift are children of it.
    """
    physics, converter = profile.physics, profile.mapping
    offset, scale = _mapped_to(profile, weight)
    target = torch.where(scale > 0, (weight - offset) / scale, 0).clamp_(-1 if converter.bipolar else 0, 1)
    conductances = converter.to_conductances(target)
    numbers = draw("normal", [(stream.child(name), tuple(conductances.shape)) for name in physics.randoms])
    randoms = [torch.from_numpy(n).to(weight.device) for n in numbers]

    def devices(us: Tensor, *random: Tensor) -> State:
        return physics.program(Conductance(us, converter.g_max_us), dict(zip(physics.randoms, random, strict=True)))

    return Programmed(weight, _by_block(devices, conductances, *randoms))


def read(profile: Profile, programmed: Programmed, t: float, stream: Stream) -> Tensor:
    """Return the weight as it is read at a time, compensated.

    Args:
        profile: the device.
        programmed: from :func:`program`.
        t: in seconds.
        stream: random numbers of this reading.

    Returns:
        Matrix of the shape of the weight, new memory. Groups of equal weights, which have no range to map, stay.
    """
    physics, converter, weight = profile.physics, profile.mapping, programmed.weight
    limits = converter.g_min_us, converter.g_max_us
    state = programmed.state
    first = next(iter(state.values()))
    random = [torch.from_numpy(stream.normal(tuple(first.shape))).to(first.device)] if physics.reads else []

    def devices(*parts: Tensor) -> State:
        own = dict(zip(state, parts, strict=False))
        return {"us": physics.read(own, limits, t, parts[-1] if physics.reads else None)}

    memory = random[0] if random else torch.empty_like(first)  # random numbers are used once: read in their place
    conductances = _by_block(devices, *state.values(), *random, into={"us": memory})["us"]
    offset, scale = _mapped_to(profile, weight)
    noisy = converter.to_weights(conductances).mul_(scale).add_(offset)
    mapped = scale > 0
    held = torch.minimum(torch.maximum(weight, offset - scale if converter.bipolar else offset), offset + scale)
    return torch.where(mapped, _compensated(profile, held, noisy, mapped), weight)


def _mapped_to(profile: Profile, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is mapped to the smallest conductance, and the range of weights that is mapped, of each group."""
    group = profile.granularity, profile.tile
    if profile.mapping.bipolar:
        zero = weight.new_zeros(1, 1)
        return zero, per_group(weight.abs(), _percentile(profile.clip_percentile), *group)
    top = per_group(weight, _percentile(profile.clip_percentile), *group)
    bottom = per_group(weight, _percentile(100 - profile.clip_percentile), *group)
    return bottom, top - bottom


def _percentile(percent: float) -> Callable[[Tensor], Tensor]:
    if percent == 100:
        return lambda rows: rows.amax(dim=1, keepdim=True)
    if percent == 0:
        return lambda rows: rows.amin(dim=1, keepdim=True)

    def percentile(rows: Tensor) -> Tensor:  # torch.quantile takes no more than 16 million numbers
        found = np.percentile(rows.cpu().numpy(), percent, axis=1, keepdims=True)
        return torch.from_numpy(found).to(rows.device, rows.dtype)

    return percentile


def _compensated(profile: Profile, weight: Tensor, noisy: Tensor, mapped: Tensor) -> Tensor:
    """Return the weights read after the compensation of drift, of which an ideal readout is assumed.

    The reference is what the chip holds: weights that were cut off count as such.

    A factor is that of aihwkit's ``GlobalDriftCompensationWithExactReference``, ``mean|W_reference| / mean|W_now|``;
    see also Joshi et al. 2020, "global drift compensation". Groups that are not on the chip count as zeros in both.
    """
    if profile.compensation == "none":
        return noisy
    by_tile = profile.granularity in ("tile", "column")
    group = "tile" if by_tile else "tensor"
    if profile.compensation == "per_column":
        group = "column" if by_tile else "filter"

    def mean(of: Tensor) -> Tensor:
        return per_group(torch.where(mapped, of, 0), lambda rows: rows.mean(dim=1, keepdim=True), group, profile.tile)

    if profile.compensation == "mean_shift":
        share = mean(torch.ones_like(weight))
        return noisy + (mean(weight) - mean(noisy)) / share.clamp(min=1 / weight.numel())
    now = mean(noisy.abs())
    return noisy * torch.where(now > 0, mean(weight.abs()) / now, 1)


def _by_block(function: Callable[..., State], *inputs: Tensor, into: State | None = None) -> State:
    """Return what a function of elements gives, computed block by block, on a CPU in several threads.

    Args:
        function: from parts of the inputs to parts of the results, by name.
        inputs: of one shape, contiguous.
        into: memory for the results, which may be that of an input.
    """
    first = inputs[0]
    if first.device.type != "cpu" or first.numel() <= _BLOCK:
        return function(*inputs)
    flat = [x.reshape(-1) for x in inputs]
    results = into or {name: first.new_empty(first.shape) for name in function(*(x[:1] for x in flat))}
    outputs = {name: result.view(-1) for name, result in results.items()}

    inference = torch.is_inference_mode_enabled()  # of this thread; others do not know of it

    def work(start: int) -> None:
        span = slice(start, start + _BLOCK)
        with torch.inference_mode(inference), torch.no_grad():
            for name, values in function(*(x[span] for x in flat)).items():
                outputs[name][span] = values

    threads = None if first.numel() >= _WORTH_THREADS else 1
    in_threads(work, [(start,) for start in range(0, first.numel(), _BLOCK)], threads=threads)
    return results
