"""Clipping of weights, so that a single large weight does not set the noise of its whole filter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from noiserobust.config import CLIP_GRANULARITIES
from noiserobust.errors import InvalidValueError, check_choice, check_number
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
        granularity: ``"tensor"``, or ``"filter"``: ``stds`` is then in root mean squares of each filter's weights, and
            no lower limit than 1 makes sense. (The standard deviation of a filter whose weights are alike says nothing
            of their size.)

    Raises:
        InvalidValueError: if neither is given, one is no finite number > 0, or there is no such granularity.
    """

    stds: float | None = None
    value: float | None = None
    granularity: str = "tensor"

    def __post_init__(self) -> None:
        if self.stds is None and self.value is None:
            raise InvalidValueError("Expected `stds` or `value` to be given, but got neither")
        for name in ("stds", "value"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0)
        check_choice("granularity", self.granularity, CLIP_GRANULARITIES)

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
                    limit = (self.stds * self._size(site, check_weight(weight))).to(weight.dtype)
                    weight.clamp_(-limit, limit)
                if self.value is not None:
                    weight.clamp_(-self.value, self.value)

    def _size(self, site: Site, weight: Tensor) -> Tensor:
        """Return the unit of ``stds``, for the tensor or for each filter."""
        if self.granularity == "tensor":
            return weight.std()
        rows = site.view.rows(weight)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return site.view.spread(norms / rows.shape[1] ** 0.5, weight.shape)
