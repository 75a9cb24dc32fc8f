"""Distillation: its loss is the formula, and without the teacher it is the trainer's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_record import load

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.models.weights import read_weights
from noiserobust.results.schema import MANIFEST_FILE
from noiserobust.results.trainings import configuration_sha256

distill = load("robust/distill")
TRAINING = {"model": "digits-mlp", "data": "digits", "epochs": 2, "batch_size": 256, "select": {"draws": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training, and its file of settings."""
    folder = tmp_path_factory.mktemp("distill")
    (folder / "base.yaml").write_text(yaml.safe_dump(TRAINING))
    assert main(["train", "--config", str(folder / "base.yaml"), "--out", str(folder / "plain")]) == 0
    return folder


def distilled(folder: Path, out: Path, *more: str) -> Path:
    teacher = str(folder / "plain" / "seed0" / "best.safetensors")
    distill.main(["--config", str(folder / "base.yaml"), "--teachers", teacher, "--out", str(out), *more])
    return out / "seed0" / "last.safetensors"


def test_without_a_share_of_the_teacher_it_is_the_training(folder: Path, tmp_path: Path) -> None:
    found = read_weights(distilled(folder, tmp_path / "none", "--share", "0")).state
    wanted = read_weights(folder / "plain" / "seed0" / "last.safetensors").state
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    other = read_weights(distilled(folder, tmp_path / "some")).state
    assert not all(torch.equal(found[name], other[name]) for name in wanted)


def test_the_divergence_is_the_formula() -> None:
    x, scores = torch.randn(5, 64), torch.randn(5, 10)
    with nr.Stream(0, "teacher").as_torch_default():
        teacher = nr.build_model("digits-mlp").eval()
    trainer = object.__new__(distill.Distilled)
    trainer.teacher, trainer.temperature = teacher, 3.0
    with torch.no_grad():
        logits = teacher(x).double().numpy() / 3.0
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (logits, scores.double().numpy() / 3.0))
    wanted = 9.0 * np.sum(p * np.log(p / q), axis=1).mean()
    assert trainer.divergence(x, scores).item() == pytest.approx(wanted, rel=1e-5)


def test_the_folder_says_how_it_was_trained(folder: Path, tmp_path: Path) -> None:
    weights = read_weights(distilled(folder, tmp_path))
    assert weights.metadata["method"] == "distilled"
    configuration = json.loads((tmp_path / MANIFEST_FILE).read_text())["configuration"]
    assert (configuration["share"], configuration["temperature"]) == (0.5, 4.0)
    assert weights.metadata["training_sha256"] == configuration_sha256(configuration)
    with pytest.raises(SystemExit):
        distilled(folder, tmp_path, "--seeds", "0", "1")
    shutil.copy(tmp_path / "seed0" / "last.safetensors", folder / "plain" / "seed0" / "best.safetensors")
    with pytest.raises(nr.NoiseRobustError, match="teachers"):
        distilled(folder, tmp_path)
