"""A trained network as it is run on chip after chip: the fastest way that gives its outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from noiserobust.evaluate.folding import NORMS, FoldedNetwork
from noiserobust.memory import out_of_memory
from noiserobust.noise.sites import Site
from noiserobust.perturb import Change, displaced

_log = logging.getLogger(__name__)

Changes = Iterable[tuple[Site, Change]]
Few = Callable[[torch.dtype], list[Any]]
"""Returns a few batches of inputs, of unlike sizes, floating point ones of the dtype that is given."""

_EXACT = 1e-4  # of the outputs' magnitude: what folding may change by rounding in fp32
_ROUNDED = 0.01  # what bf16 may change, or twice as much as autocast does, up to ten times this


class Runs(Protocol):
    """What can be put on a chip and called."""

    def on(self, changes: Changes) -> AbstractContextManager[None]:
        """Put the network on a chip for the time of the block."""

    def __call__(self, x: Any) -> Any:
        """Return the outputs for a batch."""


@dataclass(frozen=True)
class Network:
    """A network and how it is called.

    Args:
        runs: the network.
        path: in words, for the manifest.
        dtype: of floating point inputs.
        autocast: the type of device on which it runs under autocast to bf16; None without.
    """

    runs: Runs
    path: str
    dtype: torch.dtype
    autocast: str | None = None

    def on(self, changes: Changes = ()) -> AbstractContextManager[None]:
        """Put the network on a chip for the time of the block; by default on one without noise.

        Args:
            changes: each noisy weight with what noise does to it.
        """
        return self.runs.on(changes)

    def __call__(self, x: Any) -> Any:
        """Return the outputs for a batch."""
        return self.runs(x)

    def precision(self) -> AbstractContextManager[Any]:
        """Return a context in which to call it."""
        return torch.autocast(self.autocast, torch.bfloat16) if self.autocast else nullcontext()


class PlainNetwork:
    """A network as it is: weights are changed in place and put back."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def on(self, changes: Changes) -> AbstractContextManager[None]:
        """Put the network on a chip for the time of the block."""
        return displaced(changes)

    def __call__(self, x: Any) -> Any:
        """Return the outputs for a batch."""
        return self.model(**x) if isinstance(x, dict) else self.model(x)


def as_it_is(model: nn.Module, precision: str) -> Network:
    """Return a placed network without any change; in bf16 under autocast."""
    device = next((p.device.type for p in model.parameters()), "cpu")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return Network(PlainNetwork(model), "as it is", dtype, device if precision == "bf16" else None)


def fastest(model: nn.Module, sites: Sequence[Site], precision: str, few: Few) -> Network:
    """Return a placed network with its normalisation folded if that can be done, else as it is.

    Whatever is returned has given the outputs of the network as it is, but for rounding.

    Args:
        model: placed for evaluation.
        sites: its noisy weights.
        precision: ``"fp32"`` or ``"bf16"``.
        few: on what they are compared.
    """
    plain = as_it_is(model, precision)
    if precision == "fp32" and not any(isinstance(m, NORMS) for m in model.modules()):
        return plain  # there is nothing to fold
    exact = _folded(model, sites, plain.dtype)
    wanted = None if exact is None else _outputs(as_it_is(model, "fp32"), few)
    if exact is None or wanted is None or _error(_outputs(exact, few), wanted) > _EXACT:
        why = "it cannot be traced" if exact is None else "it would not give the same outputs"
        _log.info("normalisation is not folded: %s", "it fails on the data" if exact and wanted is None else why)
        return plain
    if precision == "fp32":
        return exact
    half = _folded(model, sites, torch.bfloat16)
    allowed = min(max(_ROUNDED, 2 * _error(_outputs(plain, few), wanted)), 10 * _ROUNDED)
    if half is not None and _error(_outputs(half, few), wanted) <= allowed:
        return half
    return replace(exact, path=f"{exact.path}, autocast", autocast=plain.autocast)


def _folded(model: nn.Module, sites: Sequence[Site], dtype: torch.dtype) -> Network | None:
    try:
        folded = FoldedNetwork(model, sites, dtype)
    except Exception as error:  # a forward may be any Python, and so may be what tracing it raises
        if out_of_memory(error):
            raise
        return None
    return Network(folded, f"traced, {folded.norms} normalisations folded", dtype)


def _outputs(network: Network, few: Few) -> Tensor | None:
    """Return the outputs in float32, or None if the network fails or returns no tensors."""
    try:
        with torch.inference_mode(), network.precision():
            outputs = [network(x) for x in few(network.dtype)]
    except Exception as error:  # it will fail again, and be reported, where it is run on the data
        if out_of_memory(error):
            raise
        return None
    tensors = [getattr(output, "logits", output) for output in outputs]
    return torch.cat([t.float().flatten() for t in tensors]) if all(isinstance(t, Tensor) for t in tensors) else None


def _error(found: Tensor | None, wanted: Tensor) -> float:
    if found is None or found.shape != wanted.shape:
        return torch.inf
    error = torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted).clamp(min=1e-12)
    return float(error.nan_to_num(torch.inf))
