"""How curved the loss is at trained weights: the top of the Hessian's spectrum, and its trace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from noiserobust.data.normalize import Normalize
from noiserobust.diagnose.examples import (
    Examples,
    check_finite,
    check_perturbed,
    examined,
    loss_forward,
    standard_error,
)
from noiserobust.diagnose.probe import Loss, class_loss
from noiserobust.diagnose.products import HessianProducts
from noiserobust.errors import InvalidValueError, check_choice, check_integer, check_number
from noiserobust.evaluate.forward import Data
from noiserobust.noise.base import Noise, check_weight
from noiserobust.noise.reference import reference_scale
from noiserobust.noise.scaled import GaussianNoise, LaplaceNoise, ScaledNoise
from noiserobust.noise.sites import Site, find_sites
from noiserobust.rng import Stream

TRAINED, CROSSBAR = "trained", "crossbar"
SELECTIONS = (TRAINED, CROSSBAR)
"""With respect to which parameters: all that need gradients, or the weights that noise falls on."""

_FEW = 24  # parameters: so many products give the Hessian as a whole
_RESTARTS = 300
_VARIANCES = {"normal": 1.0, "laplace": 2.0}  # of unit noise

LAYER_DTYPES = {
    "layer": "str",
    "n_weights": "int64",
    "trace": "float64",
    "trace_standard_error": "float64",
    "noise_trace": "float64",
    "noise_trace_standard_error": "float64",
}
"""Columns of :attr:`Curvature.layers`, in order."""


@dataclass(frozen=True)
class Curvature:
    """The Hessian H of the mean loss over examples, at the weights.

    Args:
        eigenvalues: the largest, descending.
        trace: estimate of tr H; NaN without probes.
        trace_standard_error: over probes; NaN of fewer than two.
        noise_trace: estimate of tr(H S), S being the covariance of a noise: the sum over weights of the variance of
            their noise times H_kk; NaN without a noise.
        noise_trace_standard_error: over probes.
        layers: one row a parameter, with its share of the traces (that of its diagonal block); columns
            ``layer, n_weights, trace, trace_standard_error, noise_trace, noise_trace_standard_error``.
        eigenvectors: of the eigenvalues, by the name of the parameter, float64 on the CPU; empty if not asked for.
        n_parameters: the Hessian is of shape (n_parameters, n_parameters).
        n_examples: whose mean loss it is of.
        n_products: passes of Hessian-vector products over them that it took.
    """

    eigenvalues: tuple[float, ...]
    trace: float
    trace_standard_error: float
    noise_trace: float
    noise_trace_standard_error: float
    layers: pd.DataFrame = field(repr=False)
    eigenvectors: tuple[dict[str, Tensor], ...] = field(repr=False)
    n_parameters: int
    n_examples: int
    n_products: int

    @property
    def predicted_sharpness(self) -> float:
        """The average-direction sharpness to second order in the noise, ``tr(H S) / 2``; NaN without a noise."""
        return self.noise_trace / 2

    @property
    def predicted_sharpness_standard_error(self) -> float:
        """Over probes."""
        return self.noise_trace_standard_error / 2


def hessian(
    model: nn.Module,
    data: Data,
    *,
    top: int = 1,
    probes: int = 10,
    noise: Noise | None = None,
    select: str = TRAINED,
    vectors: bool = False,
    tolerance: float = 1e-4,
    seed: int = 0,
    loss: Loss = class_loss,
    device: str = "auto",
    normalize: str | Normalize = "auto",
    batch_size: int | None = None,
) -> Curvature:
    """Measure the top eigenvalues of the Hessian of the loss, its trace, and its trace weighted by a noise.

    Eigenvalues are found by Lanczos iterations (ARPACK) on Hessian-vector products, which cost about two training
    steps' passes over the data each; traces by Hutchinson's estimator with random signs. Neither forms the Hessian, but
    of a very small network.

    The Hessian is that of the deployed function: in evaluation mode normalisation layers use stored statistics, which
    are constants, and nothing is dropped. In training mode, where statistics depend on the weights, the curvature is
    another one. Of networks of piecewise linear functions (ReLU) it is that of the piece that the weights are in, which
    misses the kinks that a noise reaches: another reason, beside higher orders, why ``predicted_sharpness`` differs
    from what :func:`noiserobust.diagnose.average_sharpness` measures.

    Args:
        model: left unchanged; a model in float64 has its Hessian in float64.
        data: as for :func:`noiserobust.evaluate`; the mean loss over all of them is meant.
        top: how many eigenvalues, the algebraically largest, >= 0.
        probes: vectors of random signs for the traces, >= 0, with a noise or without eigenvalues >= 1; each is one
            product, for all traces.
        noise: Gaussian or Laplace noise at a level, in whose covariance S the trace is taken too: of max-scaled
            Gaussian noise ``sum_k (sigma max|w_k|)^2 H_kk``.
        select: ``"trained"`` for all parameters that need gradients, ``"crossbar"`` for the weights that noise falls on
            (:func:`noiserobust.find_sites`).
        vectors: whether the eigenvectors are wanted.
        tolerance: of an eigenvalue's residual, relative, in (0, 0.1].
        seed: root seed of the first vector and the probes.
        loss: mean loss of a batch, a scalar tensor, given outputs and targets; by default the cross-entropy of classes
            in nats, without label smoothing.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"``, ...
        normalize: from stored values to network inputs, as for :func:`noiserobust.evaluate`.
        batch_size: examples a pass through the network, >= 1; without effect but on memory, time and rounding.

    Raises:
        InvalidValueError: if an argument is not valid, model, data and loss do not fit together, the network cannot be
            differentiated twice, or the iterations do not converge.

    Source: Hutchinson, Communications in Statistics 19 (1990); Pearlmutter, Neural Computation 6 (1994), for products.
    """
    settings = Settings(top, probes, noise, select, tolerance, seed, vectors)
    forward = loss_forward(data, loss, normalize, device, batch_size)
    with examined(model, forward, loss) as examples:
        return settings.of(examples)


@dataclass(frozen=True)
class Settings:
    """What is measured of a Hessian; the arguments are those of :func:`hessian`.

    Raises:
        InvalidValueError: if one is not valid.
    """

    top: int = 1
    probes: int = 10
    noise: Noise | None = None
    select: str = TRAINED
    tolerance: float = 1e-4
    seed: int = 0
    vectors: bool = False

    def __post_init__(self) -> None:
        check_integer("top", self.top, minimum=0)
        check_integer("probes", self.probes, minimum=0)
        check_integer("seed", self.seed, minimum=0)
        check_choice("select", self.select, SELECTIONS)
        check_number("tolerance", self.tolerance, above=0, maximum=0.1)
        if not self.top and not self.probes:
            raise InvalidValueError("Expected `top` or `probes` to be >= 1, but got 0 for both")
        known = (
            isinstance(self.noise, (GaussianNoise, LaplaceNoise)) and type(self.noise).perturb is ScaledNoise.perturb
        )
        if self.noise is not None and not known:
            got = self.noise.name if isinstance(self.noise, Noise) else repr(self.noise)
            raise InvalidValueError(f"Expected `noise` to be Gaussian or Laplace noise, but got {got}")
        if self.noise is not None and not self.probes:
            raise InvalidValueError("Expected `probes` to be >= 1 with a noise, but got 0")

    def of(self, examples: Examples) -> Curvature:
        """Return the curvature for a placed model."""
        sites = find_sites(examples.model) if self.select == CROSSBAR or self.noise is not None else []
        parameters = self._parameters(examples.model, sites)
        products = HessianProducts(examples, parameters)
        if self.top > products.size:
            raise InvalidValueError(
                f"Expected `top` to be at most the number of parameters, {products.size}, but got {self.top}"
            )
        loss, number = examples.mean_loss()
        check_finite(loss)
        stream = Stream(self.seed, "diagnose", "hessian")
        values, eigenvectors = self._spectrum(products, stream.child("start"))
        layers, totals = self._traces(products, sites, stream)
        return Curvature(
            values,
            *totals,
            layers=layers,
            eigenvectors=eigenvectors if self.vectors else (),
            n_parameters=products.size,
            n_examples=number,
            n_products=products.products,
        )

    def _parameters(self, model: nn.Module, sites: list[Site]) -> dict[str, nn.Parameter]:
        if self.select == TRAINED:
            return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        for site in sites:
            if site.parametrised:
                raise InvalidValueError(
                    f"Expected the weights in the crossbar to be plain parameters, but {site.name} is parametrised; "
                    "remove the parametrisation, or select `trained`"
                )
            site.parameter().requires_grad_()
        return {site.name: site.parameter() for site in sites}

    def _spectrum(
        self, products: HessianProducts, start: Stream
    ) -> tuple[tuple[float, ...], tuple[dict[str, Tensor], ...]]:
        size = products.size
        if not self.top:
            return (), ()
        if size <= max(_FEW, 2 * self.top):
            whole = np.stack([products.flat(column) for column in np.eye(size)])
            values, vectors = np.linalg.eigh((whole + whole.T) / 2)
        else:
            values, vectors = self._lanczos(products, start.normal((size,)).astype(np.float64))
        order = np.argsort(values)[::-1][: self.top]
        named = [dict(zip(products.parameters, products.unflat(vectors[:, i]), strict=True)) for i in order]
        return tuple(values[order].tolist()), tuple(named)

    def _lanczos(
        self, products: HessianProducts, start: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        size = products.size
        operator: Any = LinearOperator((size, size), matvec=products.flat, dtype=np.float64)
        given: dict[str, Any] = {"which": "LA", "v0": start, "tol": self.tolerance, "maxiter": _RESTARTS}
        try:
            values, vectors = eigsh(operator, k=self.top, **given)
        except ArpackNoConvergence as error:
            raise InvalidValueError(
                f"Expected the {self.top} top eigenvalues to be found to `tolerance` {self.tolerance:g}, but only "
                f"{len(error.eigenvalues)} were after {products.products} Hessian-vector products; ask for fewer, or "
                "for less"
            ) from None
        return values, vectors

    def _traces(
        self, products: HessianProducts, sites: list[Site], stream: Stream
    ) -> tuple[pd.DataFrame, tuple[float, float, float, float]]:
        """Return the traces by layer, and in all: plain with its standard error, and weighted by the noise."""
        parameters = products.parameters
        variances = self._variances(parameters, sites)
        plain = torch.full((self.probes, len(parameters)), math.nan, dtype=torch.float64)
        weighted = plain.clone()
        for probe in range(self.probes):
            signs = [_signs(stream.child("probe", probe, name), p) for name, p in parameters.items()]
            for i, (name, sign, product) in enumerate(zip(parameters, signs, products(signs), strict=True)):
                # z'Hz is tr H on average, z'SHz is tr SH: signs of different weights cancel.
                diagonal = sign.to(product.device) * product
                plain[probe, i] = diagonal.sum()
                if self.noise is not None:
                    weighted[probe, i] = (diagonal * variances[name]).sum() if name in variances else 0.0
        if self.noise is not None:
            spread = float(weighted.abs().sum().square())  # no sum, and no variance over probes, is larger
            where = f"{self.noise.level_name} = {self.noise.level:g}"
            check_perturbed(spread, where, "trace weighted by the noise")
        names = ["trace", "trace_standard_error", "noise_trace", "noise_trace_standard_error"]
        rows = [
            {"layer": layer, "n_weights": p.numel(), **dict(zip(names, _estimates(*traces), strict=True))}
            for (layer, p), *traces in zip(parameters.items(), plain.T, weighted.T, strict=True)
        ]
        layers: pd.DataFrame = pd.DataFrame(rows, columns=list(LAYER_DTYPES)).astype(LAYER_DTYPES)
        return layers, _estimates(plain.sum(dim=1), weighted.sum(dim=1))

    def _variances(self, parameters: Mapping[str, nn.Parameter], sites: list[Site]) -> dict[str, Tensor]:
        """Return the variance of the noise of each weight, of a form that broadcasts to its shape, by name."""
        if self.noise is None:
            return {}
        assert isinstance(self.noise, ScaledNoise)
        names = {id(p): name for name, p in parameters.items()}
        found: dict[str, Tensor] = {}
        for site in sites:
            if site.parametrised or id(site.parameter()) not in names:
                raise InvalidValueError(
                    f"Expected the weights that `noise` falls on to be plain parameters that need gradients, but "
                    f"{site.name} is not"
                )
            noise, weight = self.noise, check_weight(site.weight()).double()
            scale = reference_scale(site.view.matrix(weight), noise.reference, noise.granularity, noise.tile)
            std = noise.level * site.view.spread(scale, weight.shape)
            found[names[id(site.parameter())]] = _VARIANCES[noise.unit_noise] * std.square()
        return found


def _signs(stream: Stream, like: Tensor) -> Tensor:
    signs = stream.generator().integers(0, 2, size=tuple(like.shape), dtype=np.int8)
    return torch.from_numpy(2.0 * signs - 1.0)


def _estimates(plain: Tensor, weighted: Tensor) -> tuple[float, float, float, float]:
    if not len(plain):
        return math.nan, math.nan, math.nan, math.nan
    return float(plain.mean()), standard_error(plain), float(weighted.mean()), standard_error(weighted)
