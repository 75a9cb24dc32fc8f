"""How an evaluation is run is settled once, by checking, and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from plain import NOISE, data, network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import noiserobust as nr
from noiserobust.evaluate.forward import Forward
from noiserobust.results.store import DrawStore


def settled(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())["settled"]
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_manifest_says_how_it_was_run(tmp_path: Path, precision: str) -> None:
    nr.evaluate(network(), data(), noise=NOISE, levels=[0.1, 0.2], draws=2, precision=precision, out=tmp_path)
    found = settled(tmp_path)
    assert found["path"] == "traced, 1 normalisations folded"
    assert found["batch_size"] == 256
    assert found["precision"] == precision
    assert ("compared" in found) == (precision == "bf16")
    if precision == "bf16":
        compared = found["compared"]
        assert (compared["chips"], compared["examples"], compared["level"]) == (3, 57, 0.2)
        assert compared["allowed"]["accuracy"] == pytest.approx(100 / 57, abs=1e-6)
        assert compared["largest_difference"]["accuracy"] <= compared["allowed"]["accuracy"]
        assert compared["agrees"]


class Delicate(nn.Module):
    """Takes the difference of large numbers, of which bf16 leaves nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.layer(x)
        return (scores + 300.0) - 300.0


def test_bf16_is_not_used_where_it_does_harm(tmp_path: Path) -> None:
    x = torch.randn(500, 6)
    with torch.no_grad():
        y = Delicate()(x).argmax(1)
    settings = {"noise": nr.GaussianNoise(0.01), "levels": [0.01], "draws": 4, "batch_size": 50}
    exact = nr.evaluate(Delicate(), (x, y), **settings).draws
    asked = nr.evaluate(Delicate(), (x, y), precision="bf16", out=tmp_path, **settings).draws
    assert list(asked["value"]) == list(exact["value"])
    found = settled(tmp_path)
    assert found["precision"] == "fp32"
    assert not found["compared"]["agrees"]
    assert found["compared"]["largest_difference"]["accuracy"] > 0.5


def test_what_was_settled_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"noise": NOISE, "levels": [0.1, 0.2], "draws": 3, "out": tmp_path}
    append = DrawStore.append

    def stopped(self: DrawStore, row: dict[str, Any]) -> None:
        append(self, row)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DrawStore, "append", stopped)
        with pytest.raises(KeyboardInterrupt):
            nr.evaluate(network(), data(), **settings)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["settled"]["batch_size"] = 7  # as on another machine, or with another version
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    sizes: list[int | None] = []
    measure = Forward.measure

    def seen(self: Forward, *args: Any) -> Any:
        sizes.append(self.batch_size)
        return measure(self, *args)

    monkeypatch.setattr(Forward, "measure", seen)
    nr.evaluate(network(), data(), **settings)
    assert set(sizes) == {7}
    assert settled(tmp_path)["batch_size"] == 7


@pytest.mark.parametrize(
    ("model", "shape", "batch_size"),
    [
        (lambda: nr.build_model("resnet20"), (3, 32, 32), 64),  # 16 x 32 x 32 x 4 bytes = 64 KiB, of 4 MiB
        (lambda: nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Flatten(), nn.Linear(65536, 4)), (3, 32, 32), 16),
        (lambda: nn.Sequential(nn.Conv2d(3, 256, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 64, 64), 16),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), (3, 2, 2), 256),
    ],
)
def test_the_batch_size_follows_from_the_largest_layer(tmp_path: Path, model: Any, shape: Any, batch_size: int) -> None:
    x, y = torch.rand(3, *shape), torch.zeros(3, dtype=torch.int64)
    nr.evaluate(model(), (x, y), noise=NOISE, levels=[0.1], draws=1, out=tmp_path)
    assert settled(tmp_path)["batch_size"] == batch_size


def test_a_loader_has_batches_of_its_own(tmp_path: Path) -> None:
    x, y = data()
    loader = DataLoader(TensorDataset(x, y), batch_size=10)
    nr.evaluate(network(), loader, noise=NOISE, levels=[0.1], draws=1, precision="bf16", out=tmp_path)
    assert settled(tmp_path)["batch_size"] is None
    assert settled(tmp_path)["compared"]["examples"] == 57


def test_of_a_long_loader_a_part_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noiserobust.evaluate.settle.EXAMPLES", 25)
    loader = DataLoader(TensorDataset(*data()), batch_size=10)
    draws = nr.evaluate(network(), loader, noise=NOISE, levels=[0.1], draws=1, precision="bf16", out=tmp_path).draws
    assert settled(tmp_path)["compared"]["examples"] == 30
    assert list(draws["n_examples"]) == [57]
