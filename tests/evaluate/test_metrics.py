"""What is measured: classification, and whatever a user's function sums and counts."""

from __future__ import annotations

import math
from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from plain import NOISE, data, network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.errors import InvalidValueError
from noiserobust.results.store import DrawStore


def noisy_outputs(model: nn.Module, x: Any, draw: int) -> Any:
    with nr.perturbed(model.eval(), NOISE.at(0.2), draw=draw), torch.no_grad():
        return model(x)


@pytest.mark.parametrize("batch_size", [57, 10, 1])
def test_classification_is_measured_as_by_hand(batch_size: int) -> None:
    x, y = data()
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 9))
    settings = {"noise": NOISE, "levels": [0.2], "draws": 3, "batch_size": batch_size}
    draws = nr.evaluate(model, (x, y), metrics=["accuracy", "top5", "loss"], **settings).draws
    for draw, rows in draws.groupby("draw"):
        scores = noisy_outputs(model, x, int(draw)).double()
        order = scores.argsort(dim=1, descending=True)
        place = (order == y[:, None]).int().argmax(dim=1)
        wanted = {
            "accuracy": 100 * (place == 0).double().mean().item(),
            "top5_accuracy": 100 * (place < 5).double().mean().item(),
            "loss": cross_entropy(scores, y).item(),
        }
        assert dict(zip(rows["metric"], rows["value"], strict=True)) == pytest.approx(wanted, rel=1e-6)
    assert set(draws["n_examples"]) == {57}


class Words(nn.Module):
    """A language model of twelve words, called by name as those of libraries are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(12, 8), nn.Linear(8, 12)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return UserDict(logits=self.head(self.embed(input_ids)))


def perplexity(output: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and count of the losses of all words that are not padding."""
    losses = cross_entropy(output["logits"].flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
    return losses.sum(), (labels != -100).sum()


perplexity.finish = lambda total, count: math.exp(total / count)  # type: ignore[attr-defined]


def texts(n: int = 21) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 12, (n, 6), generator=generator)
    labels = tokens.roll(-1, 1)
    labels[:, 4:] = -100
    labels[: n // 2, 1:] = -100  # some sentences are short: batches count unlike numbers of words
    return [{"input_ids": t, "attention_mask": torch.ones(6), "labels": y} for t, y in zip(tokens, labels, strict=True)]


def test_perplexity_of_batches_by_name() -> None:
    model = Words()
    loader = DataLoader(texts(), batch_size=4)
    draws = nr.evaluate(model, loader, noise=NOISE, levels=[0.2], draws=2, metrics=perplexity).draws
    whole = next(iter(DataLoader(texts(), batch_size=21)))
    logits = noisy_outputs(model, whole["input_ids"], 1)["logits"]
    wanted = math.exp(cross_entropy(logits.flatten(0, 1), whole["labels"].flatten(), ignore_index=-100))
    assert draws["value"].iloc[1] == pytest.approx(wanted, rel=1e-5)
    assert set(draws["metric"]) == {"perplexity"}
    assert set(draws["n_examples"]) == {21}


def test_regression_of_arrays() -> None:
    model, x, y = nn.Linear(4, 2), torch.randn(33, 4), torch.randn(33, 2)

    def squared_error(output: Tensor, target: Tensor) -> tuple[float, int]:
        return float((output - target).square().sum()), target.numel()

    draws = nr.evaluate(model, (x, y), noise=NOISE, levels=["clean", 0.2], metrics=squared_error, draws=2).draws
    with torch.no_grad():
        assert draws["value"].iloc[0] == pytest.approx((model(x) - y).square().mean().item(), rel=1e-6)
    assert draws["value"].iloc[2] == pytest.approx((noisy_outputs(model, x, 1) - y).square().mean().item(), rel=1e-6)


def test_mean_over_classes_of_ratios() -> None:
    model, x, y = nn.Conv2d(3, 5, 1), torch.randn(12, 3, 4, 4), torch.randint(0, 4, (12, 4, 4))

    def iou(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        found, wanted = (torch.nn.functional.one_hot(v, 5).bool() for v in (output.argmax(1), target))
        over = (0, 1, 2)
        return (found & wanted).sum(over), (found | wanted).sum(over)

    draws = nr.evaluate(model, (x, y), noise=NOISE, levels=[0.2], metrics=[iou], draws=1).draws
    output = noisy_outputs(model, x, 0).argmax(1)
    ratios = []
    for c in range(5):
        union = ((output == c) | (y == c)).sum().item()
        ratios += [((output == c) & (y == c)).sum().item() / union] if union else []
    assert draws["value"].iloc[0] == pytest.approx(np.mean(ratios), rel=1e-9)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("acuracy", "`metrics` to be one of .* did you mean 'accuracy'"),
        ([], "`metrics` to be distinct, at least one, but got none"),
        (["loss", "loss"], "`metrics` to be distinct, at least one, but got loss, loss"),
        (3, "`metrics` to be names or functions, but got 3"),
        ("top5", "at least 5 classes for top5, but the model has 4"),
        (lambda output, target: 3, "metric <lambda> to return sum and count of a batch, but it failed"),
        (lambda output, target: (output.no, 1), "metric <lambda> to return sum and count .* no attribute 'no'"),
        (lambda output, target: (math.nan, 1), "metric <lambda> to be a finite number, but got nan"),
        (lambda output, target: (1, 0), "metric <lambda> to be a finite number, but got nan"),
    ],
)
def test_bad_metrics_are_refused(metrics: Any, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        nr.evaluate(network(), data(), noise=NOISE, levels=[0.1], draws=1, metrics=metrics)


def test_a_draw_whose_metrics_were_cut_off_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"noise": NOISE, "levels": [0.1, 0.2], "draws": 3, "metrics": ["accuracy", "loss"]}
    nr.evaluate(network(), data(), out=tmp_path / "whole", **settings)
    append, kept = DrawStore.append, []

    def limited(self: DrawStore, row: dict[str, Any]) -> None:
        if len(kept) == 5:
            raise KeyboardInterrupt
        kept.append(row)
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(DrawStore, "append", limited)
        with pytest.raises(KeyboardInterrupt):
            nr.evaluate(network(), data(), out=tmp_path / "cut", **settings)
    nr.evaluate(network(), data(), out=tmp_path / "cut", **settings)
    for name in ("draws.csv", "summary.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(InvalidValueError, match="differing: metrics"):
        nr.evaluate(network(), data(), out=tmp_path / "cut", **{**settings, "metrics": "loss"})


@pytest.mark.usefixtures("unrendered")
def test_the_command_measures_what_a_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from noiserobust.models.weights import write_weights

    write_weights(tmp_path / "w.safetensors", nr.build_model("digits-mlp"), {"method": "sgd", "train_seed": "0"})
    (tmp_path / "mine.py").write_text(
        "def confidence(output, target):\n    return output.softmax(1).amax(1).sum(), len(output)\n"
    )
    words = (
        f"evaluate --model digits-mlp --weights {tmp_path}/w.safetensors --data digits --noise gaussian --levels 0.1"
    )
    words += f" --draws 2 --metrics accuracy {tmp_path}/mine.py:confidence --out {tmp_path}/out"
    assert main(words.split()) == 0
    draws = pd.read_csv(tmp_path / "out/draws.csv")
    assert set(draws["metric"]) == {"accuracy", "confidence"}
    assert draws[draws["metric"] == "confidence"]["value"].between(0.1, 1).all()
    assert main(["report", f"{tmp_path}/out", "--out", f"{tmp_path}/report"]) == 0
    assert "confidence" in (tmp_path / "report/report.html").read_text()


def test_sums_are_wide() -> None:
    x, y = torch.zeros(2000, 4), torch.zeros(2000)
    tenth = nr.evaluate(
        nn.Linear(4, 1), (x, y), noise=NOISE, levels=[0.1], draws=1, batch_size=1, metrics=lambda o, t: (0.1, 1)
    )
    assert tenth.draws["value"][0] == pytest.approx(0.1, rel=1e-12)


def test_targets_of_other_kinds() -> None:
    x, y = torch.randn(20, 6), torch.randint(0, 3, (20,), dtype=torch.int32)
    loader = DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    model, settings = nn.Linear(6, 3), {"noise": NOISE, "levels": [0.1], "draws": 2, "metrics": ["accuracy", "loss"]}
    narrow = nr.evaluate(model, loader, **settings).draws
    wide = nr.evaluate(model, (x, y.long()), **settings).draws
    assert list(narrow["value"]) == pytest.approx(list(wide["value"]), rel=1e-6)

    def error(output: Tensor, target: Tensor) -> tuple[Tensor, int]:
        return (output[:, 0] - target).abs().sum(), len(target)

    targets = np.linspace(0, 1, 20)
    found = nr.evaluate(model, (x.numpy(), targets), noise=NOISE, levels=["clean"], metrics=error).draws["value"][0]
    with torch.no_grad():
        assert found == pytest.approx((model(x)[:, 0] - torch.from_numpy(targets)).abs().mean().item(), rel=1e-6)


def test_a_metric_of_a_name_that_is_taken_is_another(tmp_path: Path) -> None:
    def accuracy(output: Tensor, target: Tensor) -> tuple[Tensor, int]:
        return output.softmax(1).amax(1).sum(), len(target)

    settings = {"noise": NOISE, "levels": [0.1], "draws": 2, "out": tmp_path}
    nr.evaluate(network(), data(), **settings)
    with pytest.raises(InvalidValueError, match="differing: metrics"):
        nr.evaluate(network(), data(), metrics=accuracy, **settings)


def test_dictionaries_are_not_normalised() -> None:
    settings = {"noise": NOISE, "levels": [0.1], "draws": 1, "metrics": perplexity}
    with pytest.raises(InvalidValueError, match="`normalize` to be none for batches that are dictionaries"):
        nr.evaluate(Words(), DataLoader(texts(), batch_size=4), normalize="cifar10", **settings)
