"""Adaptive random weight perturbation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from noiserobust.errors import InvalidValueError, check_number
from noiserobust.noise.base import check_weight
from noiserobust.noise.sites import Site
from noiserobust.perturb import Change
from noiserobust.train.method import Moment
from noiserobust.train.rwp import RWP


@dataclass(frozen=True)
class ARWP(RWP):
    """ARWP: noise that is weaker where gradients have been large.

    The noise of a filter k is divided by ``sqrt(1 + eta * sum_{i in k} F_i)`` with the running sum
    ``F <- beta * F + g1^2`` of the squared perturbed gradients without weight decay; of weights with fewer than two
    dimensions, elementwise. The first step has the full noise. ``perturbed_weight = 1`` is ARWP, below 1 m-ARWP.

    Args:
        noise: what happens to the weights; in the paper ``GaussianNoise(0.015, reference="l2")``.
        perturbed_weight: as for :class:`RWP`; 0.5 in the paper's m-ARWP.
        select: as for :class:`RWP`.
        level_range: as for :class:`RWP`.
        draws: as for :class:`RWP`; F then has the square of their mean gradient.
        eta: how much past gradients weaken the noise, finite, >= 0.
        beta: how long they are remembered, in [0, 1).

    Raises:
        InvalidValueError: if an argument is out of range.

    Source: Li et al., "Revisiting random weight perturbation for efficiently improving generalization", TMLR 2024, and
    the authors' code, which has no factor ``1 - beta`` and sums over the filter.
    """

    eta: float = 0.1
    beta: float = 0.99
    name: ClassVar[str] = "arwp"
    can_split: ClassVar[bool] = False  # clean ranks have no perturbed gradient to remember

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("eta", self.eta, minimum=0)
        if self.chips > 1:
            raise InvalidValueError(
                f"Expected `chips` to be 1 with ARWP, which remembers one gradient a step, but got {self.chips}"
            )
        if check_number("beta", self.beta, minimum=0) >= 1:
            raise InvalidValueError(f"Expected `beta` to be a finite number >= 0 and < 1, but got {self.beta!r}")

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the weights that noise falls on.

        Raises:
            InvalidValueError: if one of them is parametrised: its gradient is not at hand.
        """
        sites = super().sites(model)
        for site in sites:
            if site.parametrised:
                raise InvalidValueError(
                    f"Expected {site.name} to be a plain parameter with ARWP, but it is parametrised; use RWP"
                )
        return sites

    def _noisy(self, moment: Moment) -> Iterator[tuple[Site, Change]]:
        for site, change in super()._noisy(moment):
            past = moment.memory.get(site.name)
            if past is None:
                yield site, change
            else:
                yield site, partial(change, gain=site.view.spread((1 + self.eta * past).rsqrt(), site.shape()))

    def memory_shape(self, site: Site) -> tuple[int, ...] | None:
        """Return (filters, 1), or (1, weights) of a weight with fewer than two dimensions."""
        filters, inputs = site.view.matrix(site.weight()).shape
        return (filters, inputs if len(site.shape()) < 2 else 1)

    def remember(self, moment: Moment, scale: float) -> None:
        """Add the squares of the perturbed gradients to F."""
        for site in moment.sites:
            gradient = site.parameter().grad
            if gradient is None:
                continue
            matrix = site.view.rows(check_weight(gradient))
            squares = matrix.square() if gradient.ndim < 2 else torch.linalg.vecdot(matrix, matrix).unsqueeze(1)
            squares = squares / scale**2
            past = moment.memory.get(site.name)
            moment.memory[site.name] = squares if past is None else past.mul_(self.beta).add_(squares)
