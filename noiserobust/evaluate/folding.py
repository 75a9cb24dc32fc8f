"""A traced network whose normalisation is folded into its noisy weights, anew for each chip."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from noiserobust.noise.sites import Site
from noiserobust.perturb import Change

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class _Slot:
    """Where a weight is needed in the traced network, and what each of its filters is multiplied by."""

    parameter: nn.Parameter
    scale: Tensor | None


class FoldedNetwork:
    """A copy of a network, for evaluation only, that does no normalisation after convolutions and linear layers.

    Noise falls on the layer's own weights, and the product of those with the scale of the normalisation goes into the
    layer: a device sees the weights that it would hold, whatever follows them.

    Args:
        model: in evaluation mode, where it is to run; not changed.
        sites: its noisy weights, none of them parametrised.
        dtype: of the copy's weights and of its inputs.

    Raises:
        Exception: of any kind, if the network cannot be traced: its forward may be any Python.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], dtype: torch.dtype) -> None:
        if any(site.parametrised for site in sites):
            raise TypeError("a weight is computed from others")
        self.sites = {site.name: site for site in sites}
        names = {id(p): name for name, p in model.named_parameters(remove_duplicate=False)}
        root = copy.deepcopy(model)
        own = dict(root.named_parameters(remove_duplicate=False))
        copies = {site.name: own[names[id(site.parameter())]] for site in sites}
        graph = fx.Tracer().trace(root)
        folded = _fold(root, graph, {id(p) for p in copies.values()})
        self.network: nn.Module = fx.GraphModule(root, graph).eval()
        used = {id(p) for p in self.network.parameters()}
        self.slots = {name: [_Slot(p, None)] * (id(p) in used) + folded[id(p)] for name, p in copies.items()}
        self.network.to(dtype)
        self.norms = sum(map(len, folded.values()))
        self._noisy: set[str] = set()
        for name in self.sites:
            self._write(name, self.sites[name].parameter().detach())

    @contextmanager
    def on(self, changes: Iterable[tuple[Site, Change]]) -> Iterator[None]:
        """Put the network on a chip for the time of the block.

        Args:
            changes: each noisy weight with what noise does to it; none for the network without noise.
        """
        now: set[str] = set()
        for site, change in changes:
            noisy = site.parameter().detach().clone()
            change(noisy)
            self._noisy.add(site.name)  # whatever happens next
            now.add(site.name)
            self._write(site.name, noisy)
        for name in self._noisy - now:
            self._write(name, self.sites[name].parameter().detach())
        self._noisy = now
        yield

    def __call__(self, x: Any) -> Any:
        """Return the outputs for inputs of the copy's dtype, a tensor or arguments by name."""
        return self.network(**x) if isinstance(x, dict) else self.network(x)

    def _write(self, name: str, weight: Tensor) -> None:
        with torch.no_grad():
            for slot in self.slots[name]:
                slot.parameter.copy_(weight if slot.scale is None else weight * slot.scale)


def _fold(root: nn.Module, graph: fx.Graph, noisy: set[int]) -> dict[int, list[_Slot]]:
    """Fold each normalisation that directly follows a layer into it, in place.

    Returns:
        By the identity of a layer's weight: the weights that have taken its place, each with what the weight is to be
        multiplied by there.
    """
    modules = dict(root.named_modules(remove_duplicate=False))
    calls = Counter(id(modules[node.target]) for node in graph.nodes if node.op == "call_module")
    folded: dict[int, list[_Slot]] = {id(p): [] for p in root.parameters()}
    for node in list(graph.nodes):
        before = node.args[0] if node.op == "call_module" and len(node.args) == 1 and not node.kwargs else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        layer, norm = modules[before.target], modules[node.target]
        if calls[id(layer)] != 1 or calls[id(norm)] != 1 or not _folds(layer, norm, noisy):
            continue
        scale, shift = _affine(norm)
        bias = shift if layer.bias is None else shift + layer.bias.detach() * scale
        scale = scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        # A weight of its own: the same one may be in use elsewhere.
        product = nn.Parameter(layer.weight.detach() * scale, requires_grad=False)
        folded[id(layer.weight)].append(_Slot(product, scale))
        layer.weight = product
        layer.bias = nn.Parameter(bias, requires_grad=False)
        node.replace_all_uses_with(before)
        graph.erase_node(node)
    return folded


def _folds(layer: nn.Module, norm: nn.Module, noisy: set[int]) -> bool:
    # Exact types: what a subclass does is not known. Hooks may look at outputs in between.
    if type(layer) not in _LAYERS or type(norm) not in NORMS or norm.running_mean is None:
        return False
    if any(m._forward_hooks or m._forward_pre_hooks for m in (layer, norm)):
        return False
    return not any(id(p) in noisy for p in (layer.bias, norm.weight, norm.bias) if p is not None)


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Return the scale and the shift of each channel that a normalisation amounts to in evaluation."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach()
