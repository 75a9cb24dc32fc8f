"""What the owner of a chip can do after programming: measure its digital parts anew with a few examples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noiserobust.config import CALIBRATIONS
from noiserobust.errors import InvalidValueError, check_choice, check_integer
from noiserobust.models.batchnorm import recalibrate, statistics
from noiserobust.noise.sites import Site

KINDS = CALIBRATIONS


@dataclass(frozen=True, eq=False)
class Calibration:
    """How each chip is calibrated before it is evaluated.

    Args:
        kind: ``"batchnorm"``: running statistics of normalisation layers are measured on the chip. ``"layer"``,
            ``"column"``: outputs of each noisy layer get a gain and an offset, one pair for the layer or one for each
            of its columns (output channels), by least squares against the outputs of the network without noise; layers
            are calibrated in order, each with those before it. Recurrent and attention modules are left as they are.
        x: inputs as the data set stores them, (N, ...), such as training images; no labels are needed.
        batch_size: examples a pass for ``"batchnorm"``; the others take all at once.

    Raises:
        InvalidValueError: if an argument is not valid.
    """

    kind: str
    x: Tensor
    batch_size: int = 100

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_integer("batch_size", self.batch_size, minimum=1)
        if not isinstance(self.x, Tensor) or self.x.ndim < 2 or len(self.x) < 2:
            got = f"one of shape {tuple(self.x.shape)}" if isinstance(self.x, Tensor) else type(self.x).__name__
            raise InvalidValueError(f"Expected `x` to be a tensor of at least two inputs, but got {got}")

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """Raise InvalidValueError if the model has nothing to calibrate."""
        if self.kind == "batchnorm" and not statistics(model):
            raise InvalidValueError("Expected a model with running statistics for `batchnorm`, but it has none")
        if self.kind != "batchnorm" and not any(isinstance(s.module, _LAYERS) for s in sites):
            raise InvalidValueError(
                f"Expected noisy Linear, Conv or Embedding layers for `{self.kind}` calibration, but the model has "
                f"noise on {', '.join(s.name for s in sites)} only"
            )

    def describe(self) -> dict[str, Any]:
        """Return kind and number and hash of the inputs, JSON-able."""
        content = self.x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        own = {"kind": self.kind, "examples": len(self.x), "batch_size": self.batch_size}
        return {**own, "sha256": hashlib.sha256(content).hexdigest()}


class Calibrator:
    """Calibrates one model on chip after chip.

    Args:
        model: placed for evaluation, without noise: its outputs are the reference.
        sites: its noisy weights.
        calibration: how.
        prepared: from stored inputs to those the model takes.
    """

    def __init__(
        self, model: nn.Module, sites: list[Site], calibration: Calibration, prepared: Callable[[Tensor], Tensor]
    ) -> None:
        calibration.check(model, sites)
        # Nearly equal batches: each counts the same.
        number = -(-len(calibration.x) // calibration.batch_size)
        self.model = model
        self.kind = calibration.kind
        self.batches = [prepared(part) for part in calibration.x.tensor_split(number)]
        self.layers = [s.module for s in sites if isinstance(s.module, _LAYERS)] if self.kind != "batchnorm" else []
        self.references: list[Tensor] = []
        if self.kind != "batchnorm":
            with self._hooked(lambda module, call, output: self.references.append(output.clone())):
                self._pass()
            if not self.references:  # attention uses the weights of its layers without calling them
                raise InvalidValueError("Expected layers that the model calls, but it calls none of those with noise")

    @contextmanager
    def calibrated(self, precision: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Iterator[None]:
        """Calibrate the chip that the model is on, for the time of the block.

        Args:
            precision: returns a context for the passes that calibrate.
        """
        if self.kind == "batchnorm":
            buffers = statistics(self.model)
            saved = [b.clone() for b in buffers]
            try:
                with precision():
                    recalibrate(self.model, self.batches)
                yield
            finally:
                for buffer, value in zip(buffers, saved, strict=True):
                    buffer.copy_(value)
            return
        fits: list[tuple[Tensor, Tensor]] = []

        def fit(module: nn.Module, call: int, output: Tensor) -> Tensor:
            fits.append(_least_squares(output, self.references[call], _channel(module, output), self.kind == "column"))
            return _scaled(output, fits[call])

        with self._hooked(fit), precision():
            self._pass()
        with self._hooked(lambda module, call, output: _scaled(output, fits[call % len(fits)])):
            yield

    def _pass(self) -> None:
        with torch.inference_mode():
            self.model(torch.cat(self.batches))

    @contextmanager
    def _hooked(self, function: Callable[[nn.Module, int, Tensor], Tensor | None]) -> Iterator[None]:
        """Let a function see, and replace, the outputs of the layers; calls are counted from 0."""
        calls = iter(range(2**62))

        def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
            return function(module, next(calls), output)

        with ExitStack() as stack:
            for layer in dict.fromkeys(self.layers):
                handle = layer.register_forward_hook(hook)
                stack.callback(handle.remove)
            yield


_LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Linear, nn.Bilinear, nn.Embedding),
)


def _channel(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, (nn.Linear, nn.Bilinear, nn.Embedding)):
        return output.ndim - 1
    return 1


def _least_squares(found: Tensor, wanted: Tensor, channel: int, by_column: bool) -> tuple[Tensor, Tensor]:
    """Return gain and offset that bring outputs nearest to those wanted, for all of them or each channel."""
    over = [d for d in range(found.ndim) if not (by_column and d == channel)]
    y, t = (v if v.dtype == torch.float64 else v.float() for v in (found, wanted))
    power, mean = torch.var_mean(y, over, correction=0, keepdim=True)
    target = t.mean(over, keepdim=True)
    product = ((y - mean) * t).mean(over, keepdim=True)  # deviations have mean 0: those of the targets are not needed
    gain = torch.where(power > 0, product / power, 1.0)
    return gain.to(found.dtype), (target - gain * mean).to(found.dtype)


def _scaled(output: Tensor, fit: tuple[Tensor, Tensor]) -> Tensor:
    gain, offset = fit
    return torch.addcmul(offset, output, gain)
