"""From measurements of devices to a profile: programming error and drift by maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.noise.profiles import Profile, parse_profile
from noiserobust.times import parse_time, write_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from noiserobust.noise.measurements import Measurements

    Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A fitted number with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """A device as its measurements describe it.

    Args:
        profile: usable like any other; it refuses conductances and times outside of what was measured.
        estimates: by name: ``mean at 5 uS`` and ``std at 5 uS`` of the programmed conductance, in µS, at as many
            targets as their polynomials have coefficients; ``drift exponent mean`` and ``drift exponent std``.
        goodness: ``observations``; ``devices``, None if they are not told apart; ``chi_square``: the sum over pairs of
            target and time, measured at least 5 times, of ``n (mean measured - mean fitted)^2 / variance fitted`` over
            the degrees of freedom: about 1 if the model is right, None if there are too few pairs.
    """

    profile: Profile
    estimates: dict[str, Estimate]
    goodness: dict[str, float | int | None]


def fit_device(
    measurements: Measurements,
    name: str,
    *,
    t_0: str | float | None = None,
    degree: int = 2,
    technology: str = "measured",
) -> Fit:
    """Fit a device that is programmed with a Gaussian error and drifts as a power of time.

    ``g(t) = g_prog ((t + t_0) / t_0)^-nu`` with ``g_prog ~ N(mean(g), std(g)^2)`` and ``nu ~ N(m, s^2)`` for each
    device. Mean and std over devices at each target and time are matched by maximum (composite) likelihood; intervals
    are robust to what the likelihood leaves out, readings of one device at several times among them (Godambe 1960;
    Varin, Reid and Firth 2011).

    Args:
        measurements: at least 10 observations, of more devices than there are parameters.
        name: of the profile.
        t_0: time of the first read after programming; by default the first time measured.
        degree: of the polynomials of mean and std, >= 0; fewer where there are too few targets.
        technology: such as ``"PCM"``.

    Raises:
        InvalidValueError: if the measurements cannot be fitted: too few, or a std that is not positive.
    """
    from scipy.optimize import minimize

    data = measurements
    targets = np.unique(data.target_us)
    degree = min(check_integer("degree", degree, minimum=0), len(targets) - 1)
    if len(data.target_us) < 10 or len(targets) < 2:
        raise InvalidValueError(
            f"Expected at least 10 measurements of 2 targets, but got {len(data.target_us)} of {len(targets)}"
        )
    devices = len(data.target_us) if data.device is None else len(np.unique(data.device))
    if devices <= 2 * (degree + 1) + 2:
        raise InvalidValueError(
            f"Expected more than {2 * (degree + 1) + 2} devices, the number of parameters, but got {devices}"
        )
    _check_growth(data)
    first = float(data.time_s.min())
    zero = first if t_0 is None else parse_time(t_0)
    drifts = len(np.unique(data.time_s)) > 1
    nodes = _nodes(float(targets[0]), float(targets[-1]), degree)
    model = _Model(data, nodes, zero, drifts)
    start = model.start()

    def loss(p: Numbers) -> float:
        return float(model.loss(torch.from_numpy(p)))

    def gradient(p: Numbers) -> Numbers:
        return model.scores(torch.from_numpy(p)).mean(dim=0).numpy()

    def hessian(p: Numbers) -> Numbers:
        return model.hessian(torch.from_numpy(p)).numpy()

    try:
        found = minimize(loss, start, jac=gradient, hess=hessian, method="trust-exact", options={"maxiter": 500})
        failed = "" if np.isfinite(found.x).all() and np.isfinite(found.fun) else "numbers that are not finite"
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        failed = str(error)
    if failed:
        raise InvalidValueError(f"Expected measurements that a drifting device can explain, but the fit got: {failed}")
    parameters = torch.from_numpy(found.x)
    estimates = model.estimates(parameters)
    _check_spread(estimates, float(targets[-1]))
    _check_drift(estimates)
    goodness = model.goodness(parameters)
    content = _content(name, technology, data, nodes, model.found(parameters), zero, estimates, goodness)
    return Fit(parse_profile(content, f"the fit of {data.source}"), estimates, goodness)


def _check_growth(data: Measurements) -> None:
    """Raise InvalidValueError if conductances do not follow their targets: a sign or a column is wrong, or a device."""
    spread = float(data.measured_us.std()), float(data.target_us.std())
    follow = float(np.corrcoef(data.measured_us, data.target_us)[0, 1]) if all(spread) else 0.0
    if not follow > 0:
        raise InvalidValueError(
            f"Expected measured conductances to grow with their targets, but got a correlation of {follow:.2g}"
        )


def _check_spread(estimates: dict[str, Estimate], largest: float) -> None:
    """Raise InvalidValueError if devices are all alike, for which there is no likelihood."""
    for name, estimate in estimates.items():
        if name.startswith("std at") and not estimate.value > 1e-5 * largest:
            raise InvalidValueError(f"Expected devices that differ, but got a {name} of {estimate.value:.2g}")


def _check_drift(estimates: dict[str, Estimate]) -> None:
    """Raise InvalidValueError for exponents that the model of drift, which falls, cannot have."""
    if "drift exponent mean" not in estimates:
        return
    mean, std = estimates["drift exponent mean"], estimates["drift exponent std"]
    if mean.high < 0:
        raise InvalidValueError(
            f"Expected conductances that fall with time or stay, but got a drift exponent of {mean.value:.3g}"
        )
    if mean.low > 0 and std.low > mean.high:
        raise InvalidValueError(
            f"Expected devices of which most drift downwards, but got drift exponents of {mean.value:.3g} +- "
            f"{std.value:.3g}"
        )


def expected(profile: Profile, target_us: Numbers, t: float) -> tuple[Numbers, Numbers]:
    """Return mean and std over devices of the conductance at a time, as the fit has them, in µS."""
    content = profile.parameters
    mean, std = (
        np.polynomial.Polynomial(content[f"programming_{kind}_us"]["polynomial_us"])(target_us).clip(min=0)
        for kind in ("mean", "std")
    )
    log_time = math.log1p(t / content["t_0_s"])
    first, variance = _moments(
        torch.from_numpy(mean),
        torch.from_numpy(std),
        torch.tensor(content["drift_exponent_mean"]),
        torch.tensor(content["drift_exponent_std"]),
        torch.tensor(log_time),
    )
    return first.numpy(), variance.sqrt().numpy()


def _moments(m: Tensor, s: Tensor, nu: Tensor, spread: Tensor, log_time: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of ``g_prog exp(-nu L)``, both normal and independent."""
    broad = (spread * log_time).square()
    first = m * torch.exp(-nu * log_time + broad / 2)
    second = (m.square() + s.square()) * torch.exp(-2 * nu * log_time + 2 * broad)
    return first, torch.maximum(second - first.square(), 1e-12 * second)


class _Model:
    """The likelihood; parameters are the mean and the logarithm of the std at each node, then of nu.

    Conductances are in units of the largest target, so that it does not matter in which they were measured.
    """

    def __init__(self, data: Measurements, nodes: Tensor, t_0: float, drifts: bool) -> None:
        self.unit = float(data.target_us.max())
        self.y = torch.from_numpy(data.measured_us) / self.unit
        self.x = torch.from_numpy(data.target_us) / self.unit
        self.log_time = torch.log1p(torch.from_numpy(data.time_s) / t_0)
        self.basis = _lagrange(self.x, nodes / self.unit)
        self.nodes = nodes
        self.drifts = drifts
        self.device = data.device
        self.clusters = len(self.y) if self.device is None else len(np.unique(self.device))

    def start(self) -> Numbers:
        mean = torch.linalg.lstsq(self.basis, self.y[:, None]).solution[:, 0]
        spread = (self.y - self.basis @ mean).std().clamp(min=1e-6).log().expand(len(self.nodes))
        drift = torch.tensor([0.05, math.log(0.01)], dtype=torch.float64) if self.drifts else torch.empty(0).double()
        return torch.cat([mean, spread, drift]).numpy()

    def split(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return mean and std at the nodes, and mean and std of nu."""
        n = len(self.nodes)
        zero = p.new_zeros(())
        nu, spread = (p[2 * n], p[2 * n + 1].exp()) if self.drifts else (zero, zero)
        return p[:n], p[n : 2 * n].exp(), nu, spread

    def found(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what :meth:`split` does, conductances in µS."""
        mean, std, nu, spread = self.split(p)
        return mean * self.unit, std * self.unit, nu, spread

    def moments(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each observation."""
        mean, std, nu, spread = self.split(p)
        return _moments(self.basis @ mean, self.basis @ std, nu, spread, self.log_time)

    def loss(self, p: Tensor) -> Tensor:
        return self._losses(*self.moments(p)).mean()

    def scores(self, p: Tensor) -> Tensor:
        """Return the gradient of each observation's loss, of shape ``(observations, parameters)``."""
        mean, std, nu, spread = self.split(p)
        n = len(self.y)
        each = self.basis @ mean, self.basis @ std, nu.expand(n), spread.expand(n)
        m, s, v, w = (x.clone().requires_grad_() for x in each)  # of each observation its own
        losses = self._losses(*_moments(m, s, v, w, self.log_time))
        slopes = torch.autograd.grad(losses.sum(), (m, s, v, w))
        columns = [slopes[0][:, None] * self.basis, slopes[1][:, None] * self.basis * std]
        columns += [slopes[2][:, None], slopes[3][:, None] * spread] if self.drifts else []
        return torch.cat(columns, dim=1)

    def hessian(self, p: Tensor) -> Tensor:
        found: Tensor = torch.autograd.functional.hessian(self.loss, p)
        return found

    def _losses(self, mean: Tensor, variance: Tensor) -> Tensor:
        return 0.5 * (variance.log() + (self.y - mean).square() / variance)

    def covariance(self, p: Tensor) -> Tensor:
        """Return the sandwich estimate: clusters are devices, or observations if devices are not told apart."""
        scores = self.scores(p)
        if self.device is not None:
            index = torch.from_numpy(np.unique(self.device, return_inverse=True)[1])
            scores = torch.zeros(self.clusters, len(p), dtype=scores.dtype).index_add_(0, index, scores)
        bread: Tensor = torch.linalg.pinv(self.hessian(p) * len(self.y))
        sandwich: Tensor = bread @ (scores.T @ scores) @ bread
        return sandwich * self.clusters / (self.clusters - 1)

    def estimates(self, p: Tensor) -> dict[str, Estimate]:
        """Return values and 95 % intervals, of Student's t with one degree of freedom less than there are clusters."""
        from scipy.stats import t as student

        errors = self.covariance(p).diagonal().sqrt() * student.ppf(0.975, self.clusters - 1)
        names = [f"mean at {g:g} uS" for g in self.nodes.tolist()] + [f"std at {g:g} uS" for g in self.nodes.tolist()]
        names += ["drift exponent mean", "drift exponent std"] if self.drifts else []
        found = {}
        for name, value, error in zip(names, p.tolist(), errors.tolist(), strict=True):
            ends = [value, value - error, value + error]
            ends = [math.exp(e) for e in ends] if "std" in name else ends
            found[name] = Estimate(*(e * self.unit if name.endswith("uS") else e for e in ends))
        return found

    def goodness(self, p: Tensor) -> dict[str, float | int | None]:
        mean, variance = self.moments(p)
        residuals = ((self.y - mean) / variance.sqrt()).numpy()
        return {
            "observations": len(residuals),
            "devices": None if self.device is None else self.clusters,
            "chi_square": self._chi_square(residuals, len(p)),
        }

    def _chi_square(self, residuals: Numbers, parameters: int) -> float | None:
        cells, index = np.unique(torch.stack([self.x, self.log_time]).numpy(), axis=1, return_inverse=True)
        counts = np.bincount(index.reshape(-1), minlength=cells.shape[1])
        sums = np.bincount(index.reshape(-1), weights=residuals, minlength=cells.shape[1])
        enough = counts >= 5
        free = int(enough.sum()) - parameters // 2  # means of cells tell nothing of the stds
        return float(np.sum(sums[enough] ** 2 / counts[enough])) / free if free > 0 else None


def _nodes(low: float, high: float, degree: int) -> Tensor:
    return torch.linspace(low, high, degree + 1, dtype=torch.float64) if degree else torch.tensor([low]).double()


def _lagrange(x: Tensor, nodes: Tensor) -> Tensor:
    """Return the polynomials that are 1 at one node and 0 at the others, at each x: of shape ``(len(x), nodes)``."""
    columns = []
    for i, node in enumerate(nodes):
        others = torch.cat([nodes[:i], nodes[i + 1 :]])
        columns.append(((x[:, None] - others) / (node - others)).prod(dim=1))
    return torch.stack(columns, dim=1)


def _coefficients(values: Tensor, nodes: Tensor) -> list[float]:
    """Return the coefficients of the polynomial through the values at the nodes, lowest first."""
    fitted = np.polynomial.Polynomial.fit(nodes.numpy(), values.numpy(), len(nodes) - 1).convert()
    return [_digits(c) for c in fitted.coef] + [0.0] * (len(nodes) - len(fitted.coef))


def _digits(number: Tensor | float) -> float:
    """Return a number to seven digits: more than measurements tell, and less than what computers differ in."""
    return float(f"{float(number):.7g}")


def _content(
    name: str,
    technology: str,
    data: Measurements,
    nodes: Tensor,
    found: tuple[Tensor, Tensor, Tensor, Tensor],
    t_0: float,
    estimates: dict[str, Estimate],
    goodness: dict[str, float | int | None],
) -> dict[str, Any]:
    """Return the content of the profile file."""
    mean, std, nu, spread = found
    low, high = float(data.target_us.min()), float(data.target_us.max())
    times = sorted({float(t) for t in data.time_s})
    return {
        "schema_version": 1,
        "name": name,
        "technology": technology,
        "description": f"Fitted to {goodness['observations']} measurements of {low:g} to {high:g} µS.",
        "source": {"citation": f"measurements in {data.source}", "doi": "none", "figure": f"SHA-256 {data.sha256}"},
        "backend": "measured",
        "model": "power_law_drift",
        "parameters": {
            "programming_mean_us": {"polynomial_us": _coefficients(mean, nodes), "min": 0.0},
            "programming_std_us": {"polynomial_us": _coefficients(std, nodes)},
            "reference_g_max_us": None,
            "t_0_s": t_0,
            "drift_exponent_mean": _digits(nu.clamp(min=0)),
            "drift_exponent_std": _digits(spread),
            "t_read_s": min(1e-6, times[0]),
            "read_noise": 0.0,
            "prog_noise_scale": 1.0,
            "read_noise_scale": 1.0,
            "drift_scale": 1.0,
        },
        "conductance": {"converter": "single_pair", "g_max_us": high, "g_min_us": low},
        "granularity": "tensor",
        "tile": {"rows": 512, "columns": 512},
        "clip_percentile": 100,
        "periphery": {
            "dac_bits": 8,
            "adc_bits": 8,
            "input_noise": 0.0,
            "output_noise": 0.06,
            "input_bound": 1.0,
            "output_bound": 12.0,
        },
        "compensation": "global",
        "times": [write_time(times[i]) for i in sorted({round(i) for i in np.linspace(0, len(times) - 1, 10)})],
        "valid_times": {"from": write_time(times[0]), "to": write_time(times[-1])},
        "measured": {
            "range_us": [low, high],
            "estimates": {key: [_digits(x) for x in (e.value, e.low, e.high)] for key, e in estimates.items()},
            "goodness": {key: _digits(x) if isinstance(x, float) else x for key, x in goodness.items()},
        },
    }
