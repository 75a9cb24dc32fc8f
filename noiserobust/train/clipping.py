"""Clipping of weights, so that a single large weight does not set the noise of its whole filter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from noiserobust.errors import InvalidValueError, check_number
from noiserobust.noise.base import check_weight
from noiserobust.noise.sites import Site, find_sites


@dataclass(frozen=True)
class WeightClip:
    """Limits the weights in the crossbar after each step.

    Max-scaled noise is proportional to the largest weight of a filter, so it rewards small maxima; clipping is what
    aihwkit's hardware-aware training does about it (its ``LAYER_GAUSSIAN`` and ``FIXED_VALUE``).

    Args:
        stds: limit in standard deviations of each tensor's weights, > 0; 2.5 is common.
        value: limit in units of the weights, > 0. If both are given, the lower limit counts.

    Raises:
        InvalidValueError: if neither is given, or one is no finite number > 0.
    """

    stds: float | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        if self.stds is None and self.value is None:
            raise InvalidValueError("Expected `stds` or `value` to be given, but got neither")
        for name in ("stds", "value"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0)

    @staticmethod
    def sites(model: nn.Module) -> list[Site]:
        """Return the weights in the crossbar.

        Raises:
            InvalidValueError: if there is none, or one is parametrised: its value is not free to set.
        """
        sites = find_sites(model)
        for site in sites:
            if site.parametrised:
                raise InvalidValueError(
                    f"Expected {site.name} to be a plain parameter for weight clipping, but it is parametrised"
                )
        return sites

    def apply(self, sites: Iterable[Site]) -> None:
        """Clip the weights at ``sites`` in place."""
        for site in sites:
            with torch.no_grad():
                weight = site.parameter()
                if self.stds is not None and weight.numel() > 1:
                    limit = (self.stds * check_weight(weight).std()).to(weight.dtype)
                    weight.clamp_(-limit, limit)
                if self.value is not None:
                    weight.clamp_(-self.value, self.value)
