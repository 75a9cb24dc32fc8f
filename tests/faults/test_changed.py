"""A file that another one has taken the place of: what was begun with the old one is not continued with the new one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Ended, Forks, content

pytestmark = pytest.mark.slow

NET = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 3))

def metric(output, target):
    return (output.argmax(1) == target).sum() * {factor}, len(target)

def data(split):
    generator = torch.Generator().manual_seed({factor})
    return torch.rand(60, 2, 4, 4, generator=generator), torch.arange(60) % 3
"""
NOISE = "noise: gaussian\nreference: {reference}\n"
PROFILE = Path(__file__).parents[2] / "hardware_profiles" / "pcm-custom-drift.yaml"


def arrays(folder: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(60, 2, 4, 4)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=np.arange(60) % 3)


CHANGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    # what changes, in the training, in the evaluation
    "data": (lambda f: arrays(f, 1), "data_sha256", "data.sha256"),
    "code": (lambda f: (f / "net.py").write_text(NET.format(factor=2)), "files_sha256.net.py:net", "model_code_sha256"),
    "noise": (lambda f: (f / "n.yaml").write_text(NOISE.format(reference="l2")), "files_sha256.n.yaml", "reference"),
    "weights": (lambda f: (f / "w.safetensors").write_bytes((f / "v.safetensors").read_bytes()), "", "weights"),
}
TRAIN = ["train", "--model", "net.py:net", "--data", "npz:data.npz", "--epochs", "2"]
TRAIN += ["--method.name", "rwp", "--method.noise.name", "n.yaml"]
EVALUATE = ["evaluate", "--model", "net.py:net", "--data", "npz:data.npz", "--noise", "n.yaml", "--levels", "0", "0.1"]
EVALUATE += ["--weights", "w.safetensors"]


@pytest.fixture(scope="module")
def begun(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    arrays(folder, 0)
    (folder / "net.py").write_text(NET.format(factor=1))
    (folder / "n.yaml").write_text(NOISE.format(reference="max"))
    for seed, name in ((0, "w"), (1, "v")):
        end = forks.run(*TRAIN, "--seeds", seed, "--out", name, folder=folder)
        assert end.status == 0, end.err
        shutil.copy(folder / name / f"seed{seed}" / "best.safetensors", folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def folder(begun: Path, tmp_path: Path) -> Path:
    """Two trainings, and all that they were of."""
    return Path(shutil.copytree(begun, tmp_path / "folder"))


def refused(end: Ended, said: str) -> None:
    assert end.status == 2, end.err
    assert end.complaint.startswith("noiserobust: error: Expected ")
    assert said in end.complaint, end.complaint


@pytest.mark.parametrize("kind", CHANGES)
def test_between_two_runs(kind: str, forks: Forks, folder: Path) -> None:
    change, trains, evaluates = CHANGES[kind]
    assert forks.run(*EVALUATE, "--draws", "3", "--out", "results", folder=folder).status == 0
    before = content(folder / "w"), content(folder / "results")
    change(folder)
    if trains:
        refused(forks.run(*TRAIN, "--seeds", "0", "2", "--out", "w", folder=folder), f"differing: {trains}")
    end = forks.run(*EVALUATE, "--draws", "3", "--out", "results", folder=folder)
    refused(end, "differing: ")
    assert evaluates in end.complaint.partition("differing: ")[2]
    assert (content(folder / "w"), content(folder / "results")) == before


def change_during(change: Callable[[Path], object], words: list[str], forks: Forks, folder: Path) -> Ended:
    """Change something when the first draw of an evaluation is there, and return how it ended."""
    running = forks.start(*words, folder=folder)
    deadline = time.monotonic() + 60
    while not (folder / "out" / ".draws.journal.csv").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    change(folder)
    return running.ended()


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["data", "code", "noise"])
def test_during_a_run(kind: str, forks: Forks, folder: Path) -> None:
    """What was read is what counts."""
    change, _, evaluates = CHANGES[kind]
    words = [*EVALUATE, "--draws", "150"]
    assert forks.run(*words, "--out", "whole", folder=folder).status == 0
    end = change_during(change, [*words, "--out", "out"], forks, folder)
    assert end.status == 0, end.err
    assert content(folder / "out") == content(folder / "whole")
    refused(forks.run(*words, "--out", "out", folder=folder), evaluates)


def test_weights_that_are_read_again_have_to_be_the_same(forks: Forks, folder: Path) -> None:
    words = [*EVALUATE, "v.safetensors", "--method", "mine", "--draws", "30", "--out", "out"]
    end = change_during(lambda f: shutil.copy(f / "w.safetensors", f / "v.safetensors"), words, forks, folder)
    refused(end, "Expected weights v.safetensors to stay as they were, but they have changed meanwhile")
    shutil.copy(folder / "v" / "seed1" / "best.safetensors", folder / "v.safetensors")
    assert forks.run(*words, folder=folder).status == 0
    assert forks.run(*words[:-1], "whole", folder=folder).status == 0
    assert content(folder / "out") == content(folder / "whole")


def test_a_profile(forks: Forks, folder: Path) -> None:
    (folder / "p.yaml").write_text(PROFILE.read_text())
    words = [*EVALUATE[:5], *EVALUATE[-2:], "--noise", "p.yaml", "--levels", "1d", "--draws", "2", "--out", "p"]
    end = forks.run(*words, folder=folder)
    assert end.status == 0, end.err
    (folder / "p.yaml").write_text(PROFILE.read_text().replace("[25.0, 0.05]", "[25.0, 0.06]"))
    refused(forks.run(*words, folder=folder), "differing: noise")


def test_a_metric_and_data_of_ones_own(forks: Forks, folder: Path) -> None:
    words = [*EVALUATE, "--draws", "2", "--out", "own", "--metrics", "net.py:metric", "--data", "net.py:data"]
    end = forks.run(*words, folder=folder)
    assert end.status == 0, end.err
    (folder / "net.py").write_text(NET.format(factor=2))
    end = forks.run(*words, folder=folder)
    refused(end, "differing: data.sha256, metrics")
