"""The full analog tile: what converters, bounds and output noise add to the errors of the weights.

By aihwkit's torch tiles (Rasch et al., AICAS 2021), which hold weights as they are read from one of our chips.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from noiserobust.errors import InvalidValueError, MissingDependencyError
from noiserobust.noise.base import Noise
from noiserobust.noise.profiles import Profile
from noiserobust.noise.sites import Site
from noiserobust.perturb import displaced, noisy_weights
from noiserobust.rng import Stream


class AnalogModel:
    """A network whose layers are simulated tiles.

    Args:
        model: placed for evaluation, on the CPU; not changed.
        sites: its noisy weights; of layers that cannot be tiles they stay as they are.
        profile: tile size, converters, bounds and noise of the periphery.

    Raises:
        MissingDependencyError: if aihwkit is not installed.
        InvalidValueError: if no layer can be a tile.
    """

    def __init__(self, model: nn.Module, sites: list[Site], profile: Profile) -> None:
        self.sites, digital = split(sites)
        convert, configuration = _aihwkit(profile)
        excluded = {site.name.rpartition(".")[0] for site in digital}
        plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        with Stream(0, "tiles").as_torch_default():  # weights are drawn, to be replaced at once
            self.model: nn.Module = convert(plain, configuration, exclude_modules=sorted(excluded)).eval()
        self.layers = dict(self.model.named_modules())

    @contextmanager
    def on_chip(self, noise: Noise | None, stream: Stream) -> Iterator[nn.Module]:
        """Yield the network with its tiles programmed to the weights of a chip; random numbers come from ``stream``."""
        with displaced(noisy_weights(self.sites, noise, stream) if noise else ()):
            for site in self.sites:
                bias = getattr(site.module, "bias", None)
                layer: Any = self.layers[site.name.rpartition(".")[0]]
                layer.set_weights(site.view.matrix(site.weight()).clone(), None if bias is None else bias.detach())
        with stream.child("periphery").as_torch_default():
            yield self.model


def split(sites: Sequence[Site]) -> tuple[list[Site], list[Site]]:
    """Return the weights whose layers can be simulated as tiles, and the others, which stay digital.

    Raises:
        InvalidValueError: if no layer can be a tile.
    """
    analog = [site for site in sites if _convertible(site.module)]
    digital = [site for site in sites if not _convertible(site.module)]
    if not analog:
        raise InvalidValueError(
            f"Expected a model with layers that can be analog tiles, but {', '.join(s.name for s in digital)} cannot: "
            "only Linear and ungrouped Conv layers can"
        )
    return analog, digital


def _convertible(module: nn.Module) -> bool:
    """Return whether aihwkit has a tile for a layer."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return module.groups == 1 and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def _aihwkit(profile: Profile) -> tuple[Any, Any]:
    """Return the function that converts a model, and the configuration of its tiles."""
    try:
        from aihwkit.nn.conversion import convert_to_analog
        from aihwkit.simulator.configs import TorchInferenceRPUConfig
    except (ImportError, OSError, RuntimeError) as error:  # a build for another torch fails in all these ways
        raise MissingDependencyError(
            f"Expected aihwkit to be installed for analog tiles, but got: {error}; try: pip install "
            "'noiserobust[aihwkit]' (Linux x86-64, Python 3.10 to 3.12)"
        ) from error
    configuration = TorchInferenceRPUConfig()
    rows, columns = (min(size, 1 << 30) for size in profile.tile)
    configuration.mapping.max_input_size = rows
    configuration.mapping.max_output_size = columns
    # The largest weight (of a column, if mapped so) is the largest conductance; the rest is digital scaling.
    configuration.mapping.weight_scaling_omega = 1.0
    configuration.mapping.weight_scaling_columnwise = profile.granularity in ("filter", "column")
    configuration.drift_compensation = None  # done on the weights
    forward, p = configuration.forward, profile.periphery
    forward.inp_res, forward.out_res = _resolution(p["dac_bits"]), _resolution(p["adc_bits"])
    forward.inp_noise, forward.out_noise = p["input_noise"], p["output_noise"]
    forward.inp_bound, forward.out_bound = p["input_bound"], p["output_bound"]
    return convert_to_analog, configuration


def _resolution(bits: float) -> float:
    """Return the step of a converter as a share of its range: one level each for the ends, and one for zero."""
    return 1 / (2**bits - 2) if bits else -1.0
