"""What an evaluation measures, and all it must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from plain import NOISE, data, network, networks, plain_accuracy, values
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import noiserobust as nr

LEVELS = [0, 0.1, 0.5]


def test_rows_and_columns_are_those_of_the_contract() -> None:
    result = nr.evaluate(networks(2), data(), noise=NOISE, levels=LEVELS, draws=3, method="mine")
    draws = result.draws
    assert list(draws.columns) == [
        *("method", "train_seed", "weights", "noise", "level_name", "level", "draw", "metric", "value", "n_examples")
    ]
    assert [str(t) for t in draws.dtypes[["train_seed", "level", "draw", "value", "n_examples"]]] == [
        *("int64", "float64", "int64", "float64", "int64")
    ]
    expected = [(seed, level, draw) for seed in (0, 1) for level in LEVELS for draw in range(3 if level else 1)]
    assert list(zip(draws["train_seed"], draws["level"], draws["draw"], strict=True)) == expected
    constant = draws.drop(columns=["train_seed", "weights", "level", "draw", "value"]).drop_duplicates()
    assert constant.to_dict("records") == [
        {"method": "mine", "noise": "gaussian", "level_name": "sigma", "metric": "accuracy", "n_examples": 57}
    ]
    assert draws["weights"].nunique() == 2
    assert draws["value"].between(0, 100).all()
    assert list(result.summary().columns) == [
        *("method", "noise", "level_name", "level", "metric", "mean", "noise_std", "seed_std"),
        *("n_seeds", "n_draws", "ci_low", "ci_high", "ci_level"),
    ]


@pytest.mark.parametrize(
    "noise",
    [
        nr.GaussianNoise(0.1),
        nr.LaplaceNoise(0.1),
        nr.GaussianNoise(0.1, reference="l2"),
        nr.GaussianNoise(0.1, granularity="tensor"),
    ],
    ids=lambda n: n.name,
)
def test_values_are_those_of_a_plain_loop(noise) -> None:
    models, (x, y) = networks(2), data()
    result = nr.evaluate(models, (x, y), noise=noise, levels=LEVELS, draws=3, seed=5, train_seeds=[4, 2])
    found = values(result.draws)
    for model, train_seed in zip(models, [4, 2], strict=True):
        for level in LEVELS:
            for draw in range(3 if level else 1):
                expected = plain_accuracy(
                    model, x, y, noise.at(level) if level else None, seed=5, train_seed=train_seed, draw=draw
                )
                assert found[train_seed, level, draw] == pytest.approx(expected)
    assert len({v for (_, level, _), v in found.items() if level == 0.5}) > 3  # there is something to tell apart


def test_device_noise_is_evaluated_like_any_other() -> None:
    noise = nr.DeviceNoise.from_profile("pcm-nandakumar-2019")
    model, (x, y) = network(), data()
    draws = nr.evaluate(model, (x, y), noise=noise, levels=["clean", "1s", "1y"], draws=2).draws
    assert list(draws["level"]) == [0, 1, 1, 31557600, 31557600]
    assert set(draws["noise"]) == {"pcm-nandakumar-2019"}
    assert set(draws["level_name"]) == {"t"}
    for level, text in ((1.0, "1s"), (31557600.0, "1y")):
        expected = plain_accuracy(model, x, y, noise.at(text), seed=0, train_seed=0, draw=1)
        assert values(draws)[0, level, 1] == pytest.approx(expected)


def test_the_chip_is_that_of_perturbed() -> None:
    model, (x, y) = network(), data()
    found = values(nr.evaluate(model, (x, y), noise=NOISE, draws=2, seed=3, train_seeds=[7]).draws)
    for draw in range(2):
        with nr.perturbed(model.eval(), NOISE, 3, draw, train_seed=7), torch.no_grad():
            accuracy = 100 * float((model(x).argmax(1) == y).float().mean())
        assert found[7, 0.3, draw] == pytest.approx(accuracy)


def evaluated(**keywords: object) -> dict[tuple[int, float, int], float]:
    settings = {"noise": NOISE, "levels": LEVELS, "draws": 3, **keywords}
    return values(nr.evaluate(settings.pop("models", networks()), settings.pop("data", data()), **settings).draws)


@pytest.mark.parametrize("size", [1, 7, 57, 1000])
def test_results_do_not_depend_on_the_batch_size(size: int) -> None:
    assert evaluated(batch_size=size) == evaluated()


def test_results_do_not_depend_on_the_order_of_levels_or_on_other_levels() -> None:
    whole = evaluated()
    assert evaluated(levels=LEVELS[::-1]) == whole
    alone = evaluated(levels=[0.5])
    assert alone == {key: value for key, value in whole.items() if key[1] == 0.5}
    assert evaluated(levels=["clean", "0.1", 0.5]) == whole


def test_results_do_not_depend_on_the_order_or_number_of_models() -> None:
    models, whole = networks(), evaluated()
    assert evaluated(models=models[::-1], train_seeds=[2, 1, 0]) == whole
    alone = evaluated(models=models[1], train_seeds=[1])
    assert alone == {key: value for key, value in whole.items() if key[0] == 1}


def test_more_draws_keep_the_first_ones() -> None:
    more, whole = evaluated(draws=5), evaluated()
    assert {key: more[key] for key in whole} == whole


def test_results_do_not_depend_on_threads_or_the_global_generator() -> None:
    whole, threads = evaluated(), torch.get_num_threads()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    torch.set_num_threads(3)
    try:
        assert evaluated() == whole
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(state, torch.get_rng_state())


def test_levels_share_their_chips_and_train_seeds_do_not() -> None:
    weights: list[torch.Tensor] = []

    class Spy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights.append(self.weight.detach().clone())
            return super().forward(x)

    model = Spy(6, 3)
    x, y = torch.randn(4, 6), torch.zeros(4, dtype=torch.int64)
    nr.evaluate([model, model], (x, y), noise=NOISE, levels=[0.1, 0.4], draws=2)
    weights = weights[-8:]  # without the passes in which it was settled how to run
    unit = [(w - model.weight.detach()) / level for w, level in zip(weights, [0.1, 0.1, 0.4, 0.4] * 2, strict=True)]
    for seed in (0, 4):
        for draw in (0, 1):
            torch.testing.assert_close(unit[seed + draw], unit[seed + 2 + draw], rtol=1e-4, atol=1e-5)
    distinct = [unit[0], unit[1], unit[4], unit[5]]
    assert not any(torch.allclose(distinct[i], distinct[j], rtol=0.1) for i in range(4) for j in range(i))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_models_are_left_as_they_were(layout: torch.memory_format) -> None:
    model = network().to(memory_format=layout)
    model[3].eval()  # a mixture of modes
    model[0].weight.requires_grad_(False)
    modes = [m.training for m in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: (value.data_ptr(), value.stride()) for name, value in model.state_dict().items()}
    nr.evaluate(model, data(), noise=NOISE, levels=LEVELS, draws=2)
    assert [m.training for m in model.modules()] == modes
    assert {name: (v.data_ptr(), v.stride()) for name, v in model.state_dict().items()} == places
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("clean", [0, 0.0, "0", "clean"])
def test_a_level_without_noise_has_one_draw_and_no_noise_std(clean: float | str) -> None:
    model, (x, y) = network(), data()
    result = nr.evaluate([model, network(1)], (x, y), noise=NOISE, levels=[clean, 0.3], draws=4)
    draws, summary = result.draws, result.summary()
    assert len(draws[draws["level"] == 0]) == 2
    assert draws["value"].iloc[0] == pytest.approx(plain_accuracy(model, x, y, None, seed=0, train_seed=0, draw=0))
    assert list(summary["n_draws"]) == [1, 4]
    assert math.isnan(summary["noise_std"][0])
    assert summary["noise_std"][1] > 0
    assert summary["seed_std"].notna().all()


def test_one_model_has_no_seed_uncertainty() -> None:
    summary = nr.evaluate(network(), data(), noise=NOISE, draws=3).summary()
    assert summary[["seed_std", "ci_low", "ci_high"]].isna().all(axis=None)
    assert summary["noise_std"].notna().all()


def test_by_default_the_level_is_the_noises_own() -> None:
    assert set(nr.evaluate(network(), data(), noise=nr.GaussianNoise(0.07), draws=1).draws["level"]) == {0.07}


def test_the_same_data_in_any_form_give_the_same_values() -> None:
    x, y = data()
    whole = evaluated()
    loader = DataLoader(TensorDataset(x, y), batch_size=10)
    forms = [(x.numpy(), y.numpy()), [x, y], (x.double(), y.int()), (x.numpy(), y.numpy().astype(np.uint8)), loader]
    for form in forms:
        assert evaluated(data=form) == whole
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert evaluated(data=(channels_last, y)) == whole


def test_uint8_images_are_scaled_and_normalised() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (57, 2, 4, 4), dtype=torch.uint8, generator=generator)
    y = data()[1]
    mean, std = torch.tensor([0.5, 0.4]).view(2, 1, 1), torch.tensor([0.2, 0.3]).view(2, 1, 1)
    by_hand = evaluated(data=((pixels.float() / 255 - mean) / std, y))
    assert evaluated(data=(pixels, y), normalize="0.5,0.4/0.2,0.3") == by_hand
    assert evaluated(data=(pixels, y)) == evaluated(data=(pixels.float() / 255, y)) != by_hand


def test_bf16_is_close_to_fp32_and_repeated_exactly() -> None:
    exact, low = evaluated(), evaluated(precision="bf16")
    assert low == evaluated(precision="bf16")
    assert all(abs(exact[key] - low[key]) <= 15 for key in exact)
    assert np.mean([exact[key] - low[key] for key in exact]) == pytest.approx(0, abs=3)


def test_bf16_feels_each_chip_also_inside_an_autocast() -> None:
    # Autocast may keep low-precision copies of weights; served to the next chip, all draws would be the same.
    low = evaluated(precision="bf16", levels=[0.5], draws=6)
    assert len(set(low.values())) > 3
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluated(precision="bf16", levels=[0.5], draws=6) == low


def test_only_selected_weights_are_noisy() -> None:
    model, (x, y) = network(), data()
    none = nr.evaluate(model, (x, y), noise=NOISE, levels=[0, 0.9], draws=3, select=lambda n, m, w: n == "1.weight")
    first = nr.evaluate(model, (x, y), noise=NOISE, levels=[0.9], draws=3, select="0.weight")
    whole = nr.evaluate(model, (x, y), noise=NOISE, levels=[0.9], draws=3)
    assert not none.draws["value"].equals(whole.draws["value"])
    assert list(first.draws["value"]) != list(whole.draws["value"])


def test_a_module_with_extra_state_is_evaluated(tmp_path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    x, y = torch.randn(5, 6), torch.zeros(5, dtype=torch.int64)
    assert len(nr.evaluate(Extra(6, 3), (x, y), noise=NOISE, draws=2, out=tmp_path / "out").draws) == 2


def test_summary_takes_the_level_of_the_interval() -> None:
    result = nr.evaluate(networks(), data(), noise=NOISE, draws=3)
    narrow, wide = result.summary(0.5), result.summary(0.99)
    assert narrow["ci_level"][0] == 0.5
    assert (wide["ci_high"] - wide["ci_low"])[0] > (narrow["ci_high"] - narrow["ci_low"])[0]
    assert isinstance(result.draws, pd.DataFrame)
