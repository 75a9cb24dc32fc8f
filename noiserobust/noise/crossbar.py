"""One weight on the devices of a crossbar: mapped, programmed, read, compensated.

Weights stay in conductance space from programming to read-out: going through weight space in between would map them to
the programmed maximum and change the gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from noiserobust.noise.curves import Conductance
from noiserobust.noise.physics import State
from noiserobust.noise.profiles import Profile
from noiserobust.noise.reference import per_group
from noiserobust.rng import Stream, draw

_BLOCK = 1 << 20  # conductances: what is computed of a block stays in a cache, and is enough for torch's threads


@dataclass(frozen=True, eq=False)
class Programmed:
    """A weight after programming.

    Args:
        profile: the device.
        weight: what was to be programmed, a float32 matrix of shape ``(filters, inputs)``.
        state: of its devices, tensors of shape ``(devices, filters, inputs)``.
    """

    profile: Profile
    weight: Tensor
    state: State

    def to(self, device: torch.device) -> Programmed:
        """Return the same on a device."""
        if self.weight.device == device:
            return self
        state = {name: value.to(device) for name, value in self.state.items()}
        return Programmed(self.profile, self.weight.to(device), state)

    @cached_property
    def span(self) -> tuple[Tensor, Tensor]:
        """What is mapped to the smallest conductance, and the range of weights that is mapped, of each group."""
        return _span(self.profile, self.weight)

    @cached_property
    def left_out(self) -> Tensor | None:
        """Where weights are that are not on the chip, as their group has no range to map; None if all are on it."""
        _, scale = self.span
        empty = scale <= 0
        return empty if empty.any() else None

    @cached_property
    def reference(self) -> Tensor:
        """What compensation restores, of what the chip holds: weights that were cut off count as such."""
        held = self.weight
        if self.profile.clip_percentile < 100:
            offset, scale = self.span
            lowest = offset - scale if self.profile.mapping.bipolar else offset
            held = torch.minimum(torch.maximum(held, lowest), offset + scale)
        return self.statistic(held)

    def statistic(self, weight: Tensor) -> Tensor:
        """Return the mean, or the mean magnitude, that compensation compares, for each weight's group."""
        on_chip = weight if self.left_out is None else weight.masked_fill(self.left_out, 0)
        group, by_tile = "tensor", self.profile.granularity in ("tile", "column")
        if self.profile.compensation == "per_column":
            group = "column" if by_tile else "filter"
        elif by_tile:
            group = "tile"
        mean = _mean if self.profile.compensation == "mean_shift" else _mean_magnitude
        return per_group(on_chip, mean, group, self.profile.tile)


def program(profile: Profile, weight: Tensor, stream: Stream) -> Programmed:
    """Return a weight after programming.

    Args:
        profile: the device.
        weight: float32 matrix of shape ``(filters, inputs)``.
        stream: random numbers of the chip; those of programming and of drift are children of it.
    """
    physics, converter = profile.physics, profile.mapping
    offset, scale = _span(profile, weight)
    target = torch.where(scale > 0, (weight - offset) / scale, 0).clamp_(-1 if converter.bipolar else 0, 1)
    conductances = converter.to_conductances(target)
    numbers = draw("normal", [(stream.child(name), tuple(conductances.shape)) for name in physics.randoms])
    randoms = [torch.from_numpy(n).to(weight.device) for n in numbers]

    def devices(us: Tensor, *random: Tensor) -> State:
        return physics.program(Conductance(us, converter.g_max_us), dict(zip(physics.randoms, random, strict=True)))

    state = _by_block(devices, conductances, *randoms)
    return Programmed(profile, weight, {name: value.view_as(conductances) for name, value in state.items()})


def read(programmed: Programmed, t: float, stream: Stream) -> Tensor:
    """Return the weight as it is read at a time, compensated.

    Args:
        programmed: from :func:`program`.
        t: in seconds.
        stream: random numbers of this reading.

    Returns:
        Matrix of the shape of the weight, new memory. Groups of equal weights, which have no range to map, stay.
    """
    physics, converter = programmed.profile.physics, programmed.profile.mapping
    limits = converter.g_min_us, converter.g_max_us
    state = programmed.state
    first = next(iter(state.values()))
    random = [torch.from_numpy(stream.normal(tuple(first.shape))).to(first.device)] if physics.reads else []

    offset, scale = programmed.span
    whole = (
        scale.reshape(()) if scale.numel() == 1 else None
    )  # one range for all weights: scaled while they are in the cache

    def weights(*parts: Tensor) -> State:
        own = dict(zip(state, parts, strict=False))
        found = converter.to_weights(physics.read(own, limits, t, parts[-1] if physics.reads else None))
        return {"weight": found if whole is None else found.mul_(whole)}

    noisy = _by_block(weights, *state.values(), *random)["weight"].view_as(programmed.weight)
    if whole is None:
        noisy.mul_(scale)
    if not converter.bipolar:
        noisy.add_(offset)
    _compensate(programmed, noisy)
    if programmed.left_out is not None:
        noisy = torch.where(programmed.left_out, programmed.weight, noisy)
    return noisy


def _span(profile: Profile, weight: Tensor) -> tuple[Tensor, Tensor]:
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


def _compensate(programmed: Programmed, noisy: Tensor) -> None:
    """Compensate, in place, the drift of weights that were read; an ideal readout is assumed.

    A factor is that of aihwkit's ``GlobalDriftCompensationWithExactReference``, ``mean|W_reference| / mean|W_now|``;
    see also Joshi et al. 2020, "global drift compensation". Groups that are not on the chip count as zeros in both.
    """
    if programmed.profile.compensation == "none":
        return
    now = programmed.statistic(noisy)
    if programmed.profile.compensation == "mean_shift":
        share = 1.0 if programmed.left_out is None else programmed.statistic(torch.ones_like(noisy))
        noisy.add_((programmed.reference - now) / share)
    else:
        noisy.mul_(torch.where(now > 0, programmed.reference / now, 1))


def _mean(rows: Tensor) -> Tensor:
    return rows.mean(dim=1, keepdim=True)


def _mean_magnitude(rows: Tensor) -> Tensor:
    """Return the mean of the absolute values of each row, without as much memory as all of them would take."""
    parts = rows.split(max(_BLOCK // len(rows), 1), dim=1)
    return torch.stack([part.abs().sum(dim=1, keepdim=True) for part in parts]).sum(dim=0) / rows.shape[1]


def _by_block(function: Callable[..., State], *inputs: Tensor) -> State:
    """Return what a function of devices gives, on a CPU computed block by block.

    Args:
        function: from parts of the inputs, of shape ``(devices, block)``, to parts of the results, by name, of which
            the last dimension is that of the block.
        inputs: of one shape ``(devices, filters, inputs)``.

    Returns:
        Results whose last dimension is ``filters * inputs``.
    """
    parts = [x.flatten(1) for x in inputs]
    devices, length = parts[0].shape
    if inputs[0].device.type != "cpu" or inputs[0].numel() <= _BLOCK:
        return function(*parts)
    first = function(*(x[:, :1] for x in parts))
    results = {name: value.new_empty(*value.shape[:-1], length) for name, value in first.items()}
    block = max(_BLOCK // devices, 1)
    for start in range(0, length, block):
        span = slice(start, start + block)
        for name, values in function(*(x[:, span] for x in parts)).items():
            results[name][..., span] = values
    return results
