"""Sharpness in the direction of the gradient and under noise, against closed forms of quadratic losses."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from quadratics import Quadratic, features, images, left_alone, matrix, mean_output, normalised, scales, smooth
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import noiserobust as nr

RHOS = [0.01, 0.3]


def ascended(model: Quadratic, rho: float) -> float:
    """Return q(w + rho g / |g|) - q(w) for q = w^T H w / 2."""
    g = model.h @ model.w
    u = g / g.norm()
    return float(rho * g.norm() + rho**2 / 2 * u @ model.h @ u)


class TestAscent:
    def test_of_all_examples(self):
        model, (x, y) = Quadratic(matrix()), scales()
        with left_alone(model):
            table = nr.diagnose.ascent_sharpness(model, (x, y), RHOS, loss=mean_output, batch_size=5)
        scale, g = float(x.mean()), model.h @ model.w
        assert list(table["rho"]) == RHOS
        wanted = [scale * ascended(model, rho) for rho in RHOS]
        np.testing.assert_allclose(table["sharpness"], wanted, rtol=1e-6)
        np.testing.assert_allclose(table["clean_loss"], scale * float(model.w @ g) / 2, rtol=1e-9)
        np.testing.assert_allclose(table["perturbed_loss"] - table["clean_loss"], table["sharpness"], rtol=1e-12)
        np.testing.assert_allclose(table["gradient_norm"], scale * float(g.norm()), rtol=1e-9)
        assert table["standard_error"].isna().all()
        assert set(table["n_examples"]) == {12}

    def test_of_batches_with_a_standard_error(self):
        model, (x, y) = Quadratic(matrix()), scales(14)
        table = nr.diagnose.ascent_sharpness(model, (x, y), RHOS, loss=mean_output, m=4, seed=3)
        chosen = x[torch.from_numpy(nr.Stream(3, "diagnose", "batches").permutation(14)[:12].copy()), 0]
        of_batch = chosen.reshape(3, 4).mean(dim=1).numpy()
        for rho, row in zip(RHOS, table.itertuples(), strict=True):
            assert row.sharpness == pytest.approx(of_batch.mean() * ascended(model, rho), rel=1e-6)
            error = of_batch.std(ddof=1) / math.sqrt(3) * abs(ascended(model, rho))
            assert row.standard_error == pytest.approx(error, rel=1e-6)
            assert (row.n_batches, row.n_examples) == (3, 12)
        two = nr.diagnose.ascent_sharpness(model, (x, y), RHOS, loss=mean_output, m=4, seed=3, batches=2)
        assert set(two["n_batches"]) == {2}
        np.testing.assert_allclose(two["clean_loss"], of_batch[:2].mean() * float(model.w @ model.h @ model.w) / 2)

    def test_smaller_batches_are_sharper_and_one_batch_of_all_is_all(self):
        model, data = smooth(), features(48)
        means = [nr.diagnose.ascent_sharpness(model, data, 0.1, m=m)["sharpness"][0] for m in (2, 12, 48)]
        assert means[0] > means[1] > means[2] > 0
        whole = nr.diagnose.ascent_sharpness(model, data, [0.1], batch_size=7)["sharpness"][0]
        assert whole == pytest.approx(means[2], rel=1e-9)

    def test_the_loss_is_the_plain_cross_entropy_in_evaluation_mode(self):
        model, (x, y) = normalised(), images()
        with left_alone(model):
            table = nr.diagnose.ascent_sharpness(model, (x, y), 1e-3, batch_size=6)
        model.eval()
        loss = cross_entropy(model(x), y)
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        length = torch.cat([g.flatten() for g in gradient]).norm()
        assert table["clean_loss"][0] == pytest.approx(loss.item(), rel=1e-6)
        assert table["gradient_norm"][0] == pytest.approx(length.item(), rel=1e-5)
        assert table["sharpness"][0] == pytest.approx(1e-3 * length.item(), rel=0.05)

    def test_a_loader_that_shuffles_goes_over_the_same_batches(self):
        model, (x, y) = smooth(), features()
        loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
        with left_alone(model):
            found = nr.diagnose.ascent_sharpness(model, loader, RHOS)
        pd.testing.assert_frame_equal(found, nr.diagnose.ascent_sharpness(model, (x, y), RHOS), rtol=1e-9)
        by_batch = [nr.diagnose.ascent_sharpness(model, loader, RHOS, batches=2) for _ in range(2)]
        pd.testing.assert_frame_equal(*by_batch)
        assert set(by_batch[0]["n_batches"]) == {2}
        with pytest.raises(nr.NoiseRobustError, match="`m` to be left out with a DataLoader"):
            nr.diagnose.ascent_sharpness(model, loader, RHOS, m=2)

    def test_a_loader_in_order_has_batches_of_its_own_too(self):
        model, (x, y) = smooth(), features(13)
        loader = DataLoader(TensorDataset(x, y), batch_size=4)
        by_batch = nr.diagnose.ascent_sharpness(model, loader, 0.1, batches=9)
        assert (by_batch["n_batches"][0], by_batch["n_examples"][0]) == (4, 13)
        alone = [nr.diagnose.ascent_sharpness(model, (a, b), 0.1)["sharpness"][0] for a, b in loader]
        assert by_batch["sharpness"][0] == pytest.approx(np.mean(alone), rel=1e-9)
        with pytest.raises(nr.NoiseRobustError, match="`m` to be left out with a DataLoader"):
            nr.diagnose.ascent_sharpness(model, loader, 0.1, m=4)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"batches": 2}, "`batches` with `m` or a DataLoader only, but got 2 without"),
            ({"batches": 2, "loss": mean_output}, "`batches` with `m` or a DataLoader only, but got 2 without"),
            ({"rhos": []}, "`rhos` to be distinct radii, at least one"),
            ({"rhos": [0.1, 0.1]}, "`rhos` to be distinct"),
            ({"rhos": [0.0]}, "`rhos` to be a finite number > 0, but got 0"),
            ({"rhos": -1}, "`rhos` to be a finite number > 0"),
            ({"rhos": "0.1"}, "`rhos` to be a finite number > 0, but got '0.1'"),
            ({"m": 0}, "`m` to be an integer >= 1"),
            ({"batches": 0}, "`batches` to be an integer >= 1"),
            ({"seed": -1}, "`seed` to be an integer >= 0"),
            ({"loss": "mse"}, "`loss` to be a function"),
            ({"loss": lambda output, target: output}, "`loss` to return one number a batch"),
            ({"data": (torch.zeros(3, 6), torch.tensor([0, 1, 9]))}, "labels"),
            ({"data": (torch.zeros(3, 5), torch.tensor([0, 1, 2]))}, "`data` to fit the model"),
            ({"device": "cuda:77"}, "`device`"),
            ({"model": None}, "`model` to be a module"),
            ({"model": smooth().requires_grad_(False)}, "all are frozen"),
        ],
    )
    def test_careless_input(self, changes, said):
        given = {"model": smooth(), "data": features(), "rhos": 0.1, **changes}
        with pytest.raises(nr.NoiseRobustError, match=said) as caught:
            nr.diagnose.ascent_sharpness(given.pop("model"), given.pop("data"), given.pop("rhos"), **given)
        assert str(caught.value).startswith("Expected ")

    def test_weights_that_are_no_numbers(self):
        model = smooth()
        with torch.no_grad():
            model[0].weight[0, 0] = math.nan
        for m in (None, 4):
            with pytest.raises(nr.NoiseRobustError, match="loss of the network to be a finite number, but got nan"):
                nr.diagnose.ascent_sharpness(model, features(), 0.1, m=m)

    @pytest.mark.parametrize("m", [None, 4])
    def test_radii_and_gradients_out_of_all_proportion(self, m):
        said = r"^Expected the loss to be a finite number at rho = 1e\+300, but got nan; is it out of all proportion\?$"
        with left_alone(model := smooth().float()), pytest.raises(nr.NoiseRobustError, match=said):
            nr.diagnose.ascent_sharpness(model, features(), [0.1, 1e300], m=m)

        def kinked(output, target):
            return output.mean() + (0 * output).abs().sqrt().sum()

        with pytest.raises(nr.NoiseRobustError, match="Expected the gradient of the network to be a finite number"):
            nr.diagnose.ascent_sharpness(smooth(), features(), 0.1, m=m, loss=kinked)

    @pytest.mark.parametrize("m", [None, 4])
    def test_a_graph_that_is_cut(self, m):
        class Cut(nn.Sequential):
            forward = torch.no_grad()(nn.Sequential.forward)

        said = "^Expected the loss to depend on the model's parameters, so that it has a gradient, but its graph is cut"
        with left_alone(model := Cut(*smooth())), pytest.raises(nr.NoiseRobustError, match=said):
            nr.diagnose.ascent_sharpness(model, features(), 0.1, m=m)


class TestAverage:
    @pytest.mark.slow
    def test_of_a_quadratic_is_half_the_trace_and_an_error_of_five_percent_would_be_seen(self):
        model, (x, y) = Quadratic(matrix()), scales(4)
        noise = nr.GaussianNoise(1.0)
        with left_alone(model):
            table = nr.diagnose.average_sharpness(model, (x, y), noise=noise, draws=800, loss=mean_output)
        (row,) = table.itertuples()
        variances = model.layer.weight.detach().abs().amax(dim=1, keepdim=True).square().expand(-1, 10).flatten()
        half_trace = float(x.mean()) * float((variances * model.h.diagonal()).sum()) / 2
        assert abs(row.sharpness - half_trace) < 3.5 * row.standard_error
        assert 0.05 * half_trace > 3.5 * row.standard_error
        assert abs(row.sharpness - 1.05 * half_trace) > 3.5 * row.standard_error
        # The same by hand: the standard error is that of a mean of independent draws.
        assert row.n_draws == 800
        predicted = nr.diagnose.hessian(model, (x, y), top=0, probes=200, noise=noise, loss=mean_output)
        assert abs(predicted.predicted_sharpness - half_trace) < 3.5 * predicted.predicted_sharpness_standard_error

    def test_is_the_evaluation_of_the_loss_on_the_same_chips(self, tmp_path):
        models, data = [normalised(0), normalised(1)], images()
        noise = nr.GaussianNoise(0.1)
        settings = {"noise": noise, "draws": 4, "seed": 2, "train_seeds": [5, 7], "method": "rwp"}
        table = nr.diagnose.average_sharpness(models, data, levels=[0.1, 0.3], out=tmp_path, **settings)
        draws = nr.evaluate(models, data, levels=[0, 0.1, 0.3], metrics="loss", **settings).draws
        pd.testing.assert_frame_equal(draws, pd.read_csv(tmp_path / "draws.csv"), check_dtype=False)
        for row in table.itertuples():
            own = draws[draws["train_seed"] == row.train_seed]
            clean = own.loc[own["level"] == 0, "value"].item()
            values = own.loc[own["level"] == row.level, "value"]
            assert row.clean_loss == clean
            assert row.sharpness == pytest.approx((values - clean).mean(), rel=1e-9)
            assert row.standard_error == pytest.approx(values.std(ddof=1) / 2, rel=1e-9)
        assert list(zip(table["train_seed"], table["level"], strict=True)) == [(5, 0.1), (5, 0.3), (7, 0.1), (7, 0.3)]
        assert set(table["method"]) == {"rwp"}

    def test_one_draw_has_no_standard_error_and_the_level_is_the_noises_own(self):
        table = nr.diagnose.average_sharpness(smooth(), features(), noise=nr.GaussianNoise(0.1), draws=1)
        assert table["standard_error"].isna().all()
        assert list(table["level"]) == [0.1]

    @pytest.mark.parametrize("levels", [0.2, "0.2", [0.2], iter(["0.2"])])
    def test_one_level_stands_for_itself(self, levels):
        noise = nr.GaussianNoise(0.1)
        table = nr.diagnose.average_sharpness(smooth(), features(), noise=noise, levels=levels, draws=1)
        assert list(table["level"]) == [0.2]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"noise": 0.1}, "`noise` to be a noise object"),
            ({"levels": [0]}, "a level with noise, but got none"),
            ({"levels": 0}, "a level with noise, but got none"),
            ({"levels": []}, "a level with noise, but got none"),
            ({"levels": b"0.1"}, "`sigma`"),
            ({"levels": [-1]}, "`sigma`"),
            ({"draws": 0}, "`draws` to be an integer >= 1"),
            ({"loss": 3}, "`loss` to be a function"),
        ],
    )
    def test_careless_input(self, changes, said):
        given = {"noise": nr.GaussianNoise(0.1), **changes}
        with pytest.raises(nr.NoiseRobustError, match=said) as caught:
            nr.diagnose.average_sharpness(smooth(), features(), **given)
        assert str(caught.value).startswith("Expected ")
