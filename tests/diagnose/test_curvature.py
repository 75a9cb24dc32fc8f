"""Eigenvalues and traces of the Hessian, against known matrices and against automatic differentiation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from quadratics import Quadratic, features, images, left_alone, matrix, mean_output, normalised, scales, smooth
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations

import noiserobust as nr

SETTINGS = {"loss": mean_output, "tolerance": 1e-8}


def by_differentiation(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the Hessian of the cross-entropy with respect to all parameters, one after the other."""
    names, values = zip(*model.named_parameters(), strict=True)
    sizes = [v.numel() for v in values]

    def loss(flat):
        parts = [p.reshape(v.shape) for p, v in zip(flat.split(sizes), values, strict=True)]
        return cross_entropy(functional_call(model, dict(zip(names, parts, strict=True)), (x,)), y)

    flat = torch.cat([v.detach().flatten() for v in values])
    return torch.autograd.functional.hessian(loss, flat)


class TestQuadratic:
    def test_eigenvalues_and_eigenvectors(self):
        h = matrix()
        model, (x, y) = Quadratic(h), scales()
        with left_alone(model):
            found = nr.diagnose.hessian(model, (x, y), top=3, probes=0, vectors=True, batch_size=5, **SETTINGS)
        values, vectors = torch.linalg.eigh(h)
        np.testing.assert_allclose(found.eigenvalues, float(x.mean()) * values.flip(0)[:3], rtol=1e-6)
        for i, vector in enumerate(found.eigenvectors):
            assert vector["layer.weight"].shape == (6, 10)
            assert abs(float(vector["layer.weight"].flatten() @ vectors[:, -1 - i])) == pytest.approx(1, rel=1e-6)
        assert math.isnan(found.trace)
        assert (found.n_parameters, found.n_examples) == (60, 12)

    def test_the_default_tolerance_is_enough_for_six_digits(self):
        found = nr.diagnose.hessian(Quadratic(matrix()), scales(), probes=0, loss=mean_output)
        top = float(scales()[0].mean() * torch.linalg.eigvalsh(matrix())[-1])
        assert found.eigenvalues == pytest.approx((top,), rel=1e-6)
        assert found.eigenvectors == ()
        assert found.n_products < 60

    def test_all_of_them(self):
        h = torch.diag(torch.arange(-30.0, 30.0, dtype=torch.float64))
        found = nr.diagnose.hessian(Quadratic(h), scales(), top=60, probes=0, **SETTINGS)
        np.testing.assert_allclose(found.eigenvalues, float(scales()[0].mean()) * np.arange(29, -31, -1.0), atol=1e-9)

    def test_traces_of_a_diagonal_matrix_are_exact(self):
        h = torch.diag(torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
        model, (x, y) = Quadratic(h), scales()
        scale, largest = float(x.mean()), model.layer.weight.detach().abs().amax(dim=1, keepdim=True)
        for noise, factor in ((nr.GaussianNoise(0.3), 1), (nr.LaplaceNoise(0.3), 2)):
            found = nr.diagnose.hessian(model, (x, y), top=0, probes=3, noise=noise, **SETTINGS)
            assert found.trace == pytest.approx(scale * float(h.trace()), rel=1e-9)
            variances = factor * (0.3 * largest).square().expand(-1, 10).flatten()
            wanted = scale * float((variances * h.diagonal()).sum())
            assert found.noise_trace == pytest.approx(wanted, rel=1e-6)
            assert found.predicted_sharpness == pytest.approx(wanted / 2, rel=1e-6)
            assert found.trace_standard_error < 1e-9
            assert found.eigenvalues == ()
        absolute = nr.GaussianNoise(0.3, reference="absolute")
        found = nr.diagnose.hessian(model, (x, y), top=0, probes=1, noise=absolute, **SETTINGS)
        assert found.noise_trace == pytest.approx(0.09 * scale * float(h.trace()), rel=1e-6)
        assert math.isnan(found.trace_standard_error)

    def test_the_standard_error_of_the_trace_is_that_of_hutchinson(self):
        h = matrix(3)
        model, (x, y) = Quadratic(h), scales(2)
        found = nr.diagnose.hessian(model, (x, y), top=0, probes=400, **SETTINGS)
        scale = float(x.mean())
        off = h - torch.diag(h.diagonal())
        wanted = scale * math.sqrt(2 * float(off.square().sum()) / 400)
        assert found.trace_standard_error == pytest.approx(wanted, rel=0.15)  # 4 of its standard errors
        assert abs(found.trace - scale * float(h.trace())) < 4 * wanted
        again = nr.diagnose.hessian(model, (x, y), top=0, probes=2, **SETTINGS)
        assert again.trace == nr.diagnose.hessian(model, (x, y), top=0, probes=2, **SETTINGS).trace
        assert again.trace != nr.diagnose.hessian(model, (x, y), top=0, probes=2, seed=1, **SETTINGS).trace


class TestNetwork:
    @pytest.mark.parametrize("select", ["trained", "crossbar"])
    @pytest.mark.slow
    def test_against_automatic_differentiation(self, select):
        model, (x, y) = smooth(), features()
        noise = nr.GaussianNoise(0.2)
        settings = {"select": select, "noise": noise, "probes": 150, "tolerance": 1e-8, "top": 2, "batch_size": 5}
        with left_alone(model):
            found = nr.diagnose.hessian(model, (x, y), **settings)
        whole = by_differentiation(model, x.double(), y)
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        names = [name for name in sizes if select == "trained" or "weight" in name]
        starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
        chosen = np.concatenate([np.arange(starts[n], starts[n] + sizes[n]) for n in names])
        h = whole[chosen][:, chosen]
        np.testing.assert_allclose(found.eigenvalues, torch.linalg.eigvalsh(h).flip(0)[:2], rtol=1e-6)
        assert abs(found.trace - float(h.trace())) < 4 * found.trace_standard_error
        noisy = 0.0
        for name, row in found.layers.set_index("layer").iterrows():
            diagonal = whole.diagonal()[starts[name] : starts[name] + sizes[name]]
            assert abs(row["trace"] - float(diagonal.sum())) < 4.5 * row["trace_standard_error"]
            variance = 0.0
            if "weight" in name:
                weight = model.get_parameter(name).detach()
                variance = (0.2 * weight.abs().amax(dim=1, keepdim=True)).square().expand_as(weight).flatten()
            part = float((variance * diagonal).sum())
            assert abs(row["noise_trace"] - part) <= 4.5 * row["noise_trace_standard_error"]
            noisy += part
        assert abs(found.noise_trace - noisy) < 4.5 * found.noise_trace_standard_error
        assert list(found.layers["layer"]) == names
        assert found.trace == pytest.approx(found.layers["trace"].sum(), rel=1e-9)

    def test_frozen_parameters_have_no_part_but_in_the_crossbar(self):
        model = smooth()
        model[0].requires_grad_(False)
        with left_alone(model):
            assert nr.diagnose.hessian(model, features(), top=1, probes=1).n_parameters == 15
            assert nr.diagnose.hessian(model, features(), top=0, probes=1, select="crossbar").n_parameters == 36
        with pytest.raises(nr.NoiseRobustError, match=r"need gradients, but 0\.weight is not"):
            nr.diagnose.hessian(model, features(), noise=nr.GaussianNoise(0.1))

    def test_in_evaluation_mode_in_single_precision_and_by_the_seed(self):
        model = normalised()
        settings = {"top": 1, "probes": 2, "noise": nr.GaussianNoise(0.1)}
        with left_alone(model):
            found = nr.diagnose.hessian(model, images(), **settings)
        model.eval()
        again = nr.diagnose.hessian(model, images(), **settings, batch_size=7)
        assert again.eigenvalues == pytest.approx(found.eigenvalues, rel=1e-3)
        assert again.trace == pytest.approx(found.trace, rel=1e-3)
        model.double()
        exact = nr.diagnose.hessian(model, images(), **settings)
        assert found.eigenvalues == pytest.approx(exact.eigenvalues, rel=1e-3)

    def test_attention_is_differentiated_twice(self):
        model = nn.Sequential(nn.Unflatten(1, (3, 2)), Attention())
        found = nr.diagnose.hessian(model, features(), top=1, probes=1)
        assert math.isfinite(found.trace)

    def test_a_loss_that_is_linear_is_not_curved(self):
        linear = nn.Linear(1, 1, bias=False).double()
        found = nr.diagnose.hessian(linear, scales(), top=1, probes=2, loss=mean_output)
        assert found.eigenvalues == (0.0,)
        assert found.trace == 0

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"top": -1}, "`top` to be an integer >= 0"),
            ({"top": 44}, "`top` to be at most the number of parameters, 43, but got 44"),
            ({"probes": -1}, "`probes` to be an integer >= 0"),
            ({"top": 0, "probes": 0}, "`top` or `probes` to be >= 1, but got 0 for both"),
            ({"probes": 0, "noise": nr.GaussianNoise(0.1)}, "`probes` to be >= 1 with a noise, but got 0"),
            *(
                (
                    {"top": 0, "probes": probes, "noise": nr.GaussianNoise(level)},
                    f"noise to be a finite .* at sigma = {e}",
                )
                for probes, level, e in ((1, 1e300, r"1e\+300"), (3, 1e90, r"1e\+90"))
            ),
            ({"select": "all"}, "`select` to be one of 'crossbar', 'trained'"),
            ({"tolerance": 0}, "`tolerance` to be a finite number > 0"),
            ({"noise": nr.Quantization(4)}, "`noise` to be Gaussian or Laplace noise, but got quantization"),
            ({"noise": 0.1}, "`noise` to be Gaussian or Laplace noise, but got 0.1"),
            ({"seed": -1}, "`seed` to be an integer >= 0"),
        ],
    )
    def test_careless_input(self, changes, said):
        with pytest.raises(nr.NoiseRobustError, match=said) as caught:
            nr.diagnose.hessian(smooth(), features(), **changes)
        assert str(caught.value).startswith("Expected ")

    def test_what_has_no_second_derivative_or_is_parametrised(self):
        model = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 3)))
        with pytest.raises(nr.NoiseRobustError, match=r"plain parameters, but 0\.weight is parametrised"):
            nr.diagnose.hessian(model, features(), select="crossbar")
        assert math.isfinite(nr.diagnose.hessian(model, features(), probes=1).trace)
        with pytest.raises(nr.NoiseRobustError, match="twice differentiable"):
            nr.diagnose.hessian(nn.Sequential(nn.Linear(6, 3), Once()), features())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mix(x)[:, None]
        return nn.functional.scaled_dot_product_attention(x, x, x)[:, 0].sum(dim=2)


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Once(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Square.apply(x)
