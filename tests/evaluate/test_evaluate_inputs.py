"""Everything a caller can get wrong is an InvalidValueError that says what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from plain import NOISE, data, network, networks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import noiserobust as nr
from noiserobust.errors import InvalidValueError

X, Y = data(8)


def spoilt(value: float) -> nn.Module:
    model = network()
    with torch.no_grad():
        model[5].bias[1] = value
    return model


class Constant(nn.Module):
    """A network that returns whatever it was given."""

    def __init__(self, output: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.output = output

    def forward(self, x: torch.Tensor) -> object:
        return self.output(x)


CASES = {
    "negative level": ({"levels": [0.1, -0.1]}, "`sigma` to be a finite number >= 0, but got -0.1"),
    "NaN level": ({"levels": [float("nan")]}, "`sigma`"),
    "infinite level": ({"levels": ["inf"]}, "`sigma`"),
    "level of no number": ({"levels": ["1d"]}, "a level of `sigma` to be a number, but got '1d'"),
    "level None": ({"levels": [None]}, "`sigma`"),
    "duplicate level": ({"levels": [0.1, 0.2, 0.1]}, "`levels` to be distinct"),
    "duplicate level in other words": ({"levels": [0.1, "0.10"]}, "`levels` to be distinct"),
    "clean twice": ({"levels": ["clean", 0]}, "`levels` to be distinct"),
    "no level": ({"levels": []}, "`levels` to be a non-empty list"),
    "levels as text": ({"levels": "0.1"}, "`levels` to be a non-empty list"),
    "a number as levels": ({"levels": 0.1}, "`levels` to be a non-empty list"),
    "no draws": ({"draws": 0}, "`draws` to be an integer >= 1, but got 0"),
    "fractional draws": ({"draws": 2.5}, "`draws`"),
    "draws True": ({"draws": True}, "`draws`"),
    "negative seed": ({"seed": -1}, "`seed`"),
    "labels too large": ({"data": (X, Y + 1)}, r"labels of `data` to be in 0\.\.3, .* but got 4"),
    "negative labels": ({"data": (X, Y - 1)}, "labels >= 0, but got -1"),
    "negative labels of a loader": (
        {"data": DataLoader(TensorDataset(X, Y - 1))},
        r"labels of `data` to be in 0\.\.3, .* but got -1",
    ),
    "labels as columns": ({"data": DataLoader(TensorDataset(X, Y[:, None]))}, r"integers of shape \(1,\)"),
    "one-hot labels": (
        {"data": DataLoader(TensorDataset(X, nn.functional.one_hot(Y, 4)), batch_size=4)},
        r"integers of shape \(4,\)",
    ),
    "float labels of a loader": ({"data": DataLoader(TensorDataset(X, Y.float()))}, "integers of shape"),
    "float labels": ({"data": (X, Y.float())}, "integer labels"),
    "fewer labels": ({"data": (X, Y[:-1])}, "`y` of data"),
    "no examples": ({"data": (X[:0], Y[:0])}, "`x` of data"),
    "an empty loader": ({"data": DataLoader(TensorDataset(X[:0], Y[:0]))}, "at least one example"),
    "NaN inputs": ({"data": (X * float("nan"), Y)}, "finite"),
    "wrong channels": ({"data": (X[:, :1], Y)}, "`data` to fit the model, but a batch of shape"),
    "features for images": ({"data": (torch.randn(8, 5), Y)}, "to fit the model"),
    "channels for normalize": ({"normalize": "cifar10"}, "3 channels"),
    "unknown normalize": ({"normalize": "cifar11"}, "did you mean 'cifar10"),
    "data of another kind": ({"data": X}, r"`data` to be \(x, y\) or a DataLoader"),
    "a loader of single tensors": ({"data": DataLoader(X)}, "pairs of tensors"),
    "model that returns one score": (
        {"models": Constant(lambda x: torch.zeros(len(x)))},
        r"scores of shape \(8, classes\)",
    ),
    "model that returns a map": (
        {"models": Constant(lambda x: torch.zeros(len(x), 4, 4, 4))},
        r"scores of shape \(8, classes\)",
    ),
    "model that drops an example": (
        {"models": Constant(lambda x: torch.zeros(len(x) - 1, 4))},
        r"scores of shape \(8, classes\)",
    ),
    "model that returns a dict": ({"models": Constant(lambda x: {"logits": x})}, "but got dict"),
    "NaN weights": ({"models": spoilt(float("nan"))}, "5.bias holds NaN or infinity"),
    "infinite weights": ({"models": spoilt(float("inf"))}, "5.bias holds NaN or infinity"),
    "a model without noisy weights": ({"models": nn.Flatten()}, "Conv, Linear or Embedding"),
    "nothing selected": ({"select": "head.*"}, "head"),
    "no models": ({"models": []}, "`models` to be a module or a non-empty list"),
    "a state dict as model": ({"models": [network().state_dict()]}, "`models`"),
    "unknown device": ({"device": "gpu"}, "`device` to be auto, cpu or a device of this machine, but got 'gpu'"),
    "absent device": ({"device": "cuda:77"}, "`device`"),
    "unknown precision": ({"precision": "fp16"}, "`precision` to be one of 'bf16', 'fp32', but got 'fp16'"),
    "too few train seeds": ({"models": networks(2), "train_seeds": [0]}, "`train_seeds` to be 2 distinct integers"),
    "equal train seeds": ({"models": networks(2), "train_seeds": [1, 1]}, "`train_seeds` to be 2 distinct"),
    "a negative train seed": ({"train_seeds": [-1]}, "`train_seeds`"),
    "a number as noise": ({"noise": 0.1}, "`noise` to be a noise object, but got 0.1"),
    "a noise class": ({"noise": nr.GaussianNoise}, "`noise` to be a noise object"),
    "no examples a batch": ({"batch_size": 0}, "`batch_size`"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("out", [False, True], ids=["memory", "out"])
def test_bad_input_is_refused(case: str, out: bool, tmp_path) -> None:
    changed, said = CASES[case]
    settings = {"models": network(), "data": (X, Y), "noise": NOISE, "draws": 2, **changed}
    if out:
        settings["out"] = tmp_path / "out"
    with pytest.raises(InvalidValueError, match="Expected") as caught:
        nr.evaluate(settings.pop("models"), settings.pop("data"), **settings)
    assert re.search(said, str(caught.value)), str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert not list(tmp_path.rglob("draws.csv"))


def test_numpy_levels_given_as_a_list_are_taken() -> None:
    levels = list(np.array([0.0, 0.1], dtype=np.float32))
    draws = nr.evaluate(network(), (X, Y), noise=NOISE, levels=levels, draws=np.int64(2)).draws
    assert len(draws) == 3


class Failing(nn.Linear):
    def forward(self, x):
        raise AssertionError("input size 3 is not 4")


def test_a_model_that_fails_in_any_way_is_a_clear_error():
    x, y = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(nr.NoiseRobustError, match=r"Expected `data` to fit the model.*input size 3 is not 4"):
        nr.evaluate(Failing(3, 2), (x, y), noise=nr.GaussianNoise(0.1))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_weights_computed_by_hooks_are_a_clear_error():
    x, y = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(nr.NoiseRobustError, match="but a hook computes it"):
        nr.evaluate(nn.utils.weight_norm(nn.Linear(3, 2)), (x, y), noise=nr.GaussianNoise(0.1))


def test_low_precision_models_get_inputs_of_their_own_type():
    x, y = torch.rand(8, 3), torch.zeros(8, dtype=torch.int64)
    for dtype in (torch.bfloat16, torch.float64):
        result = nr.evaluate(nn.Linear(3, 2).to(dtype), (x, y), noise=nr.GaussianNoise(0.1), draws=2)
        assert len(result.draws) == 2


def test_tokens_from_a_loader_and_scores_as_logits():
    class Output:
        def __init__(self, logits):
            self.logits = logits

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(10, 4), nn.Linear(4, 3)

        def forward(self, tokens):
            return Output(self.head(self.embedding(tokens).mean(dim=1)))

    tokens, y = torch.randint(10, (9, 5)), torch.zeros(9, dtype=torch.int64)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tokens, y), batch_size=4)
    assert len(nr.evaluate(Tagger(), loader, noise=nr.GaussianNoise(0.1), draws=3).draws) == 3


def test_data_sets_bring_their_own_normalisation():
    model, data = nr.build_model("digits-mlp"), nr.load_data("digits", "test")
    by_itself = nr.evaluate(model, data, noise=nr.GaussianNoise(0.1), draws=1)
    said = nr.evaluate(model, data, noise=nr.GaussianNoise(0.1), draws=1, normalize="digits")
    without = nr.evaluate(model, data, noise=nr.GaussianNoise(0.1), draws=1, normalize="none")
    assert by_itself.draws.equals(said.draws)
    assert not by_itself.draws.equals(without.draws)
