"""Gradients at the perturbed weights and the critical perturbation length, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from quadratics import (
    Plateau,
    Quadratic,
    features,
    images,
    left_alone,
    matrix,
    mean_output,
    normalised,
    scales,
    smooth,
)
from scipy.optimize import brentq
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import noiserobust as nr
from noiserobust.diagnose.examples import examined, in_batches, loss_forward
from noiserobust.diagnose.gradients import GRADIENT_QUANTITIES
from noiserobust.results.diagnostics import QUANTITIES


def wide(table: pd.DataFrame, column: str = "value") -> pd.DataFrame:
    return table.pivot(index="strength", columns="quantity", values=column)


class Frozen(nn.Sequential):
    """The network of :func:`normalised`, whose batch norm stays in evaluation mode in training."""

    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


def test_quantities_have_the_names_of_those_that_are_recorded():
    assert set(GRADIENT_QUANTITIES) - set(QUANTITIES) == {"perturbed_gradient_norm"}


class TestTable:
    @pytest.mark.parametrize("share", [1.0, 0.3])
    def test_of_sam_on_a_quadratic(self, share):
        model, (x, y) = Quadratic(matrix()), scales(12)
        method = nr.SAM(0.2, perturbed_weight=share)
        with left_alone(model):
            table = nr.diagnose.gradient_table(model, (x, y), method, strengths=[0.5, 2], m=4, loss=mean_output)
        order = torch.from_numpy(nr.Stream(0, "diagnose", "batches").permutation(12).copy())
        of_batch = x[order, 0].reshape(3, 4).mean(dim=1).numpy()
        w, h = model.w, model.h
        g = h @ w
        values, errors = wide(table), wide(table, "standard_error")
        for strength in (0.5, 2.0):
            step = 0.2 * strength * g / g.norm()
            there = h @ (w + step)
            clean, perturbed = float(w @ g / 2), float((w + step) @ there / 2)
            wanted = {
                "training_loss": clean,
                "perturbed_loss": perturbed,
                "gradient_sharpness": perturbed - clean,
                "gradient_norm": float(g.norm()),
                "perturbed_gradient_norm": float(there.norm()),
                "update_gradient_norm": float(((1 - share) * g + share * there).norm()),
            }
            for name, value in wanted.items():
                assert values.loc[strength, name] == pytest.approx(of_batch.mean() * value, rel=1e-6), name
                error = of_batch.std(ddof=1) / math.sqrt(3) * abs(value)
                assert errors.loc[strength, name] == pytest.approx(error, rel=1e-6), name
            angle = float(g @ there / (g.norm() * there.norm()))
            assert values.loc[strength, "cosine"] == pytest.approx(angle, rel=1e-6)
            assert values.loc[strength, "perturbation_norm"] == pytest.approx(0.2 * strength, rel=1e-6)
        assert list(dict.fromkeys(table["level"])) == [0.1, 0.4]
        assert set(table["level_name"]) == {"rho"}
        assert list(dict.fromkeys(table["quantity"])) == list(GRADIENT_QUANTITIES)
        assert set(zip(table["n_batches"], table["n_draws"], table["n_examples"], strict=True)) == {(3, 1, 12)}

    def test_noise_has_the_same_draws_at_all_strengths(self):
        """Along one direction e a quadratic is s g e + s^2 e H e / 2 in the strength s: a parabola through 0."""
        model, data, noise = Quadratic(matrix()), scales(8), nr.GaussianNoise(0.1)
        settings = {"strengths": [0.5, 1, 2], "m": 4, "draws": 3, "loss": mean_output}
        with left_alone(model):
            table = nr.diagnose.gradient_table(model, data, noise, **settings)
        found = wide(table)
        half, one, two = found["gradient_sharpness"]
        curve = 4 * (one - 2 * half)  # e H e
        slope = one - curve / 2
        assert two == pytest.approx(2 * slope + 2 * curve, rel=1e-4)
        lengths = found["perturbation_norm"] / found.index
        np.testing.assert_allclose(lengths, lengths.iloc[0], rtol=1e-5)
        assert list(dict.fromkeys(table["level"])) == [0.05, 0.1, 0.2]
        assert set(table["level_name"]) == {"sigma"}
        assert set(table["n_draws"]) == {3}
        pd.testing.assert_frame_equal(table, nr.diagnose.gradient_table(model, data, nr.RWP(noise), **settings))
        other = nr.diagnose.gradient_table(model, data, noise, **settings, train_seed=1)
        assert not other["value"].equals(table["value"])

    def test_one_batch_has_no_standard_error_and_small_data_are_one_batch(self):
        table = nr.diagnose.gradient_table(smooth(), features(13), nr.SAM(0.05))
        assert table["standard_error"].isna().all()
        assert set(table["n_batches"]) == {1}
        assert set(table["n_examples"]) == {13}
        assert list(dict.fromkeys(table["strength"])) == [0.25, 0.5, 1.0, 2.0]

    def test_batch_norm_uses_stored_statistics_unless_asked(self):
        model, (x, y) = normalised(), images()
        with left_alone(model):
            stored = wide(nr.diagnose.gradient_table(model, (x, y), nr.SAM(0.05), strengths=[1], m=20))
            own = wide(
                nr.diagnose.gradient_table(model, (x, y), nr.SAM(0.05), strengths=[1], m=20, batch_statistics=True)
            )
        model.eval()
        assert stored["training_loss"].item() == pytest.approx(
            nn.functional.cross_entropy(model(x), y).item(), rel=1e-6
        )
        model[1].train()
        assert own["training_loss"].item() == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-6)
        assert own["training_loss"].item() != pytest.approx(stored["training_loss"].item(), rel=1e-3)

    @pytest.mark.parametrize(
        ("model", "frozen"),
        [
            (normalised(), False),
            (normalised().eval(), False),
            (nn.Sequential(nn.Identity(), *normalised()), False),
            (Frozen(*normalised()).train(), True),
            (Frozen(*normalised()).eval(), True),
            (nn.SyncBatchNorm.convert_sync_batchnorm(normalised()), True),
        ],
    )
    def test_frozen_batch_norm_keeps_its_stored_statistics(self, model, frozen):
        given = {"strengths": [1], "m": 20}
        with left_alone(model):
            stored = nr.diagnose.gradient_table(model, images(), nr.SAM(0.05), **given)
            own = nr.diagnose.gradient_table(model, images(), nr.SAM(0.05), **given, batch_statistics=True)
        assert own["value"].equals(stored["value"]) == frozen

    def test_a_layer_in_evaluation_mode_of_a_model_in_training_mode_is_frozen(self):
        model, given = normalised(), {"strengths": [1], "m": 20}
        model[1].eval()
        with left_alone(model):
            stored = nr.diagnose.gradient_table(model, images(), nr.SAM(0.05), **given)
            own = nr.diagnose.gradient_table(model, images(), nr.SAM(0.05), **given, batch_statistics=True)
        pd.testing.assert_frame_equal(own, stored)

    def test_the_batches_of_a_loader_are_its_own_and_those_of_arrays_are_cut(self):
        x, y = features(13)
        loader = DataLoader(TensorDataset(x, y), batch_size=4)
        found = nr.diagnose.gradient_table(smooth(), loader, nr.SAM(0.05), strengths=[1])
        assert set(zip(found["n_batches"], found["n_examples"], strict=True)) == {(4, 13)}
        plain = DataLoader(list(zip(x, y, strict=True)), batch_size=4)
        pd.testing.assert_frame_equal(
            found, nr.diagnose.gradient_table(smooth(), plain, nr.SAM(0.05), strengths=[1]), rtol=1e-9
        )
        with pytest.raises(nr.NoiseRobustError, match="`m` to be left out with a DataLoader"):
            nr.diagnose.gradient_table(smooth(), loader, nr.SAM(0.05), m=4)
        quadratic, data = Quadratic(matrix()), scales(130)
        cut = nr.diagnose.gradient_table(quadratic, data, nr.SAM(0.05), strengths=[1], loss=mean_output)
        assert set(zip(cut["n_batches"], cut["n_examples"], strict=True)) == {(1, 128)}

    def test_batches_have_the_same_numbers_in_each_pass(self):
        data = features(12)
        forward = in_batches(loss_forward(data, mean_output, "none", "cpu", None), data, 4, 2, 0)
        with examined(smooth(), forward, mean_output, 2) as examples:
            passes = [examples.numbered(lambda number, batch, n: (number, n)) for _ in range(2)]
        assert passes == [[(0, 4), (1, 4)]] * 2

    def test_batches_that_are_dictionaries(self):
        class Named(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = smooth()

            def forward(self, features):
                return self.inner(features)

        x, y = features(8)
        loader = DataLoader([{"features": a, "labels": b} for a, b in zip(x, y, strict=True)], batch_size=4)
        given = {"strengths": [1]}
        found = nr.diagnose.gradient_table(Named(), loader, nr.SAM(0.05), **given)
        plain = DataLoader(list(zip(x, y, strict=True)), batch_size=4)
        pd.testing.assert_frame_equal(found, nr.diagnose.gradient_table(smooth(), plain, nr.SAM(0.05), **given))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"method": "sam"}, "`method` to be a noise or a method that perturbs, but got 'sam'"),
            ({"method": nr.Unperturbed()}, "`method` to be a noise or a method that perturbs"),
            ({"strengths": []}, "`strengths` to be distinct, at least one"),
            ({"strengths": [0]}, "`strengths` to be a finite number > 0, but got 0"),
            ({"strengths": [1, 1]}, "`strengths` to be distinct"),
            ({"method": nr.SAM(0)}, "a radius > 0, but got 0"),
            ({"method": nr.GaussianNoise(0)}, "a noise of a level > 0, but got 0"),
            ({"strengths": [1, 1e300]}, r"loss to be a finite number at strength 1e\+300, rho = 5e\+298, but got nan"),
            ({"method": nr.GaussianNoise(0.1), "strengths": [1e300]}, r"at strength 1e\+300, sigma = 1e\+299, but got"),
            ({"draws": 0}, "`draws` to be an integer >= 1"),
            ({"m": 0}, "`m` to be an integer >= 1"),
            ({"seed": -1}, "`seed` to be an integer >= 0"),
            ({"train_seed": -1}, "`train_seed` to be an integer >= 0"),
        ],
    )
    def test_careless_input(self, changes, said):
        given = {"method": nr.SAM(0.05), **changes}
        with pytest.raises(nr.NoiseRobustError, match=said) as caught:
            nr.diagnose.gradient_table(smooth().float(), features(), given.pop("method"), **given)
        assert str(caught.value).startswith("Expected ")


def gradient(r: float) -> float:
    """Return the norm of the gradient of :class:`Plateau` at the distance r from the origin."""
    return r * math.exp(-(r**2) / 2)


class TestCriticalLength:
    @pytest.mark.parametrize(("start", "fraction"), [(1.0, 0.5), (1.0, 0.1), (0.3, 0.5), (2.0, 0.9)])
    def test_of_sam_up_a_bell(self, start, fraction):
        model = Plateau([0.6 * start, -0.8 * start])
        given = {"loss": mean_output, "tolerance": 1e-9}
        with left_alone(model):
            found = nr.diagnose.critical_length(model, scales(), nr.SAM(0.05), fraction, **given)
        # The gradient grows up to the distance 1, and then falls.
        wanted = brentq(lambda r: gradient(r) - fraction * gradient(start), max(start, 1.0), 10) - start
        assert found.length == pytest.approx(wanted, rel=1e-6)
        assert found.level == pytest.approx(wanted, rel=1e-6)
        assert found.strength == pytest.approx(wanted / 0.05, rel=1e-6)
        assert (found.level_name, found.fraction, found.reason) == ("rho", fraction, "")
        assert found.clean_gradient_norm == pytest.approx(gradient(start), rel=1e-9)
        scan = found.scan.set_index("strength")
        np.testing.assert_allclose(
            scan["ratio"], [gradient(start + 0.05 * s) / gradient(start) for s in scan.index], rtol=1e-9
        )
        assert scan.index.is_monotonic_increasing

    def test_below_the_first_strength_of_the_scan(self):
        model, given = Plateau([1.0, 0.0]), {"loss": mean_output, "tolerance": 1e-9}
        near = nr.diagnose.critical_length(model, scales(), nr.SAM(0.05), minimum=60, maximum=80, **given)
        assert near.length == pytest.approx(brentq(lambda r: gradient(r) - 0.5 * gradient(1), 1, 10) - 1, rel=1e-6)

    def test_of_noise_the_mean_over_draws(self):
        model, data = Plateau([1.0, 0.5]), scales(8)
        settings = {"loss": mean_output, "draws": 5, "m": 4, "seed": 1}
        noise = nr.GaussianNoise(0.5)
        with left_alone(model):
            found = nr.diagnose.critical_length(model, data, noise, tolerance=1e-6, **settings)
        at = wide(nr.diagnose.gradient_table(model, data, noise, strengths=[found.strength], **settings)).iloc[0]
        assert at["perturbed_gradient_norm"] == pytest.approx(0.5 * at["gradient_norm"], rel=1e-4)
        assert found.length == pytest.approx(at["perturbation_norm"], rel=1e-9)
        assert found.level == pytest.approx(0.5 * found.strength, rel=1e-9)

    def test_none_up_to_the_maximum_is_said(self):
        valley = Quadratic(torch.eye(60, dtype=torch.float64))
        for method in (nr.SAM(0.05), nr.GaussianNoise(10.0)):
            found = nr.diagnose.critical_length(valley, scales(), method, loss=mean_output, maximum=5)
            assert math.isnan(found.strength + found.level + found.length)
            assert "does not fall so far up to strength 5" in found.reason
            assert found.scan["strength"].iloc[-1] == 5

    def test_no_gradient_or_no_such_noise_is_said(self):
        found = nr.diagnose.critical_length(Plateau([0.0, 0.0]), scales(), nr.SAM(0.05), loss=mean_output)
        assert math.isnan(found.strength)
        assert "the gradient at the weights is zero" in found.reason
        model = normalised()
        found = nr.diagnose.critical_length(model, images(), nr.KernelTransform(0.5), fraction=0.01)
        assert math.isnan(found.strength)
        assert "and beyond: Expected" in found.reason

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            *(({"fraction": f}, f"`fraction` to be a finite number > 0 and < 1, but got {f}") for f in (-1, 0, 1, 1.5)),
            ({"fraction": math.nan}, "`fraction` to be a finite number > 0 and < 1, but got nan"),
            ({"fraction": "0.5"}, "`fraction` to be a finite number > 0 and < 1, but got '0.5'"),
            ({"fraction": True}, "`fraction` to be a finite number > 0 and < 1, but got True"),
            ({"minimum": 0}, "`minimum`"),
            ({"minimum": 2, "maximum": 2}, "`maximum` to be a finite number > 2"),
            ({"factor": 1}, "`factor` to be a finite number > 1"),
            ({"tolerance": 0}, "`tolerance`"),
            ({"method": nr.SAM(0)}, "a radius > 0, but got 0"),
            ({"method": nr.GaussianNoise(0)}, "a noise of a level > 0, but got 0"),
        ],
    )
    def test_careless_input(self, changes, said):
        given = {"method": nr.SAM(0.05), **changes}
        with pytest.raises(nr.NoiseRobustError, match=said) as caught:
            nr.diagnose.critical_length(smooth(), features(), given.pop("method"), **given)
        assert str(caught.value).startswith("Expected ")
