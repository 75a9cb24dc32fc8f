"""The error of weights on a device in numbers: gain, shift, spread, shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from noiserobust.errors import InvalidValueError
from noiserobust.noise.base import Noise, chip_stream
from noiserobust.noise.device import DeviceNoise
from noiserobust.noise.layout import FILTERS, FilterView
from noiserobust.rng import Stream
from noiserobust.times import format_time


@dataclass(frozen=True)
class WeightError:
    """What a noise does to a weight: ``noisy = gain * w + shift + error``, by least squares over several chips.

    Gain and shift are the same for all weights of the tensor and every chip has its own; digital scaling can undo them.
    The error, divided by the gain, cannot be undone.

    Args:
        gain: mean over chips.
        shift: mean over chips, as a fraction of the largest magnitude of the tensor.
        std_of_tensor: std of the error, as a fraction of the largest magnitude of the tensor.
        std_of_filter: the sigma of max-scaled Gaussian noise of the same error power: root of the mean square error
            over the mean square of the filters' largest magnitudes.
        relative_of_unit: what ``relative`` is for max-scaled noise of sigma 1.
        relative: root of the mean square error over the mean square weight: what the error is to the signal.
        std_small: std of the error of weights below a tenth of the largest, as ``std_of_tensor``; NaN without such.
        std_large: the same of weights above half of the largest.
        kurtosis: excess kurtosis of the error over the tensor: 0 for Gaussian, 3 for Laplace noise.
    """

    gain: float
    shift: float
    std_of_tensor: float
    std_of_filter: float
    relative_of_unit: float
    relative: float
    std_small: float
    std_large: float
    kurtosis: float


def weight_error(noise: Noise, weight: Tensor, streams: Sequence[Stream], view: FilterView = FILTERS) -> WeightError:
    """Measure what a noise does to a weight.

    Args:
        noise: at a severity.
        weight: floating point tensor of at least three numbers, not all zero.
        streams: one for each chip.
        view: how the weight is laid out in filters.
    """
    clean = view.matrix(weight.detach()).double()
    largest = clean.abs().max()
    if clean.numel() < 3 or largest == 0:
        raise InvalidValueError("Expected a weight of at least three numbers that are not all zero, but got another")
    filters = clean.abs().amax(dim=1, keepdim=True)
    size = clean.abs() / largest
    gains, shifts, errors = [], [], []
    centred = clean - clean.mean()
    for stream in streams:
        noisy = view.matrix(noise.perturb(weight, stream, view)).double()
        power = centred.square().sum()
        gain = (centred * noisy).sum() / power if power > 0 else noisy.mean() / clean.mean()
        shift = noisy.mean() - gain * clean.mean()
        gains.append(gain)
        shifts.append(shift / largest)
        errors.append((noisy - gain * clean - shift) / gain)
    error = torch.stack(errors)
    square = error.square().mean(dim=0) * clean.numel() / (clean.numel() - 2)  # gain and shift were fitted to each chip
    return WeightError(
        gain=_mean(gains),
        shift=_mean(shifts),
        std_of_tensor=float(square.mean().sqrt() / largest),
        std_of_filter=float((square.mean() / filters.square().expand_as(clean).mean()).sqrt()),
        relative_of_unit=float((filters.square().expand_as(clean).mean() / clean.square().mean()).sqrt()),
        relative=float((square.mean() / clean.square().mean()).sqrt()),
        std_small=float(square[size < 0.1].mean().sqrt() / largest),
        std_large=float(square[size > 0.5].mean().sqrt() / largest),
        kurtosis=float(error.pow(4).mean() / error.square().mean().square() - 3),
    )


@dataclass(frozen=True)
class Drift:
    """What a device does to Gaussian weights at a time.

    Args:
        t: in seconds.
        gain: without compensation.
        shift: without compensation, as a fraction of the largest weight.
        raw: root mean square of noisy minus clean weights, as a fraction of the largest, without compensation.
        compensated: the same with the profile's compensation.
    """

    t: float
    gain: float
    shift: float
    raw: float
    compensated: float


def drift(noise: DeviceNoise, times: Sequence[float], seed: int = 0) -> list[Drift]:
    """Measure what a device does to 256 x 256 Gaussian weights over time.

    Args:
        noise: the device.
        times: in seconds.
        seed: root seed of the weights and of the chip.
    """
    weight = torch.from_numpy(Stream(seed, "weights").normal((256, 256)))
    stream = chip_stream(seed, 0, 0).child("weight")
    found = []
    for t in times:
        noises = noise.at(t).with_settings(compensation="none"), noise.at(t)
        parts = weight_error(noises[0], weight, [stream])
        errors = [n.perturb(weight, stream) - weight for n in noises]
        raw, compensated = (float(e.square().mean().sqrt() / weight.abs().max()) for e in errors)
        found.append(Drift(t, parts.gain, parts.shift, raw, compensated))
    return found


def spread(noise: DeviceNoise, t: float, *, points: int = 41, chips: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Measure the std of the error of a weight by its size, without compensation, each size on many chips.

    Args:
        noise: the device.
        t: in seconds.
        points: number of sizes from -1 to 1 times the largest.
        chips: number of devices for each.
        seed: root seed.

    Returns:
        Sizes and stds, both as fractions of the largest weight, of shape ``(points,)``.
    """
    sizes = torch.linspace(-1, 1, points)
    stream = chip_stream(seed, 0, 0).child("weight")
    raw = noise.at(t).with_settings(compensation="none", granularity="tensor")
    return sizes, raw.perturb(sizes.repeat(chips, 1), stream).std(dim=0)


def error_table(noise: DeviceNoise, times: Sequence[float], seed: int = 0) -> str:
    """Return text tables of what a device does to weights: over time, and by their size.

    Args:
        noise: the device.
        times: in seconds.
        seed: root seed of the weights and of the chip.
    """
    lines = ["Gaussian weights, 256 x 256: rms error in % of the largest weight", ""]
    lines += [f"{'t':>8}  {'gain':>6}  {'shift %':>7}  {'raw':>6}  {'compensated':>11}"]
    for d in drift(noise, times, seed):
        text = f"{d.gain:6.3f}  {100 * d.shift:7.2f}  {100 * d.raw:6.2f}  {100 * d.compensated:11.2f}"
        lines.append(f"{format_time(d.t):>8}  {text}")
    columns = [spread(noise, t, points=9, seed=seed) for t in times]
    lines += ["", "std of the error by the size of a weight, both in % of the largest, without compensation", ""]
    lines += [f"{'weight':>8}" + "".join(f"  {format_time(t):>8}" for t in times)]
    for i, size in enumerate(columns[0][0].tolist()):
        lines.append(f"{100 * size:8.0f}" + "".join(f"  {100 * stds[i].item():8.2f}" for _, stds in columns))
    return "\n".join(lines)


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())
