"""Files that change while they are in use: what comes of them belongs to one content, or is refused by name.

That what has changed between two runs is refused is said where folders are continued, for trainings and evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from noiserobust.cli.sweep import read
from noiserobust.config import MethodConfig, NoiseConfig, TrainConfig
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate.heldout import held_out_score
from noiserobust.executors.serial import Serial
from noiserobust.sweep.plan import JOBS_FOLDER
from noiserobust.sweep.run import run_sweep
from noiserobust.train.runs import train_seeds

NET = "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
NOISE = "{noise: gaussian, reference: l2}\n"


def files(folder: Path) -> dict[str, Path]:
    written = {"net.py": folder / "net.py", "noise.yaml": folder / "noise.yaml"}
    for path, content in zip(written.values(), (NET, NOISE), strict=True):
        path.write_text(content)
    return written


@pytest.mark.parametrize("changing", ["net.py", "noise.yaml"])
def test_between_two_train_seeds(changing: str, tmp_path: Path) -> None:
    named = files(tmp_path)
    method = MethodConfig("rwp", noise=NoiseConfig(str(named["noise.yaml"]), 0.01))
    config = TrainConfig(f"{named['net.py']}:net", "digits", method=method, epochs=1, batch_size=100)

    def train(after_epoch: Callable[..., object] | None = None) -> None:
        how: dict[str, Any] = {"make_score": held_out_score, "device": torch.device("cpu"), "after_epoch": after_epoch}
        train_seeds(config, [0, 1], tmp_path / "out", **how)

    before = named[changing].read_text()
    with pytest.raises(InvalidValueError, match=rf"{changing}\S* to stay as they were, but they have changed"):
        train(lambda seed, rows: named[changing].write_text(f"{before}# edited\n"))
    first = (tmp_path / "out" / "seed0" / "best.safetensors").read_bytes()
    assert not list((tmp_path / "out").glob("seed1/*.safetensors"))
    with pytest.raises(InvalidValueError, match=rf"differing: files_sha256.*{changing}"):
        train()
    named[changing].write_text(before)
    train()
    assert (tmp_path / "out" / "seed0" / "best.safetensors").read_bytes() == first
    assert (tmp_path / "out" / "seed1" / "best.safetensors").is_file()


class EditingAfterTheFirst(Serial):
    """Somebody edits a file when the first job is done."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def map(self, work: Any, jobs: Iterable[Any]) -> Iterator[Any]:
        for number, done in enumerate(super().map(work, jobs)):
            if not number:
                self.path.write_text(f"{self.path.read_text()}# edited\n")
            yield done


@pytest.mark.thorough
@pytest.mark.parametrize("changing", ["net.py", "noise.yaml"])
def test_between_two_jobs_of_a_sweep(changing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is done with other files than it is named after; with the new ones there are new jobs."""
    monkeypatch.chdir(tmp_path)
    named = files(tmp_path)
    (tmp_path / "grid.yaml").write_text(
        "base: {model: 'net.py:net', data: digits, epochs: 1, select: {draws: 1}}\n"
        "seeds: [0, 1]\n"
        "evaluate: {e: {noise: noise.yaml, levels: [0.01], draws: 2}}\n"
    )
    sweep = read(tmp_path / "grid.yaml")
    how: dict[str, Any] = {"device": torch.device("cpu")}
    result = run_sweep(sweep, tmp_path / "out", executor=EditingAfterTheFirst(named[changing]), **how)
    first, second = result.states.values()
    assert (first.word, second.word) == ("finished", "failed")
    assert "to stay as they were when it began, but they have changed" in second.error
    again = run_sweep(read(tmp_path / "grid.yaml"), tmp_path / "out", retry=True, **how)
    assert [state.word for state in again.states.values()] == ["finished"] * 2
    if changing == "net.py":
        assert not set(again.states) & set(result.states)
        assert len(list((tmp_path / "out" / JOBS_FOLDER).iterdir())) == 4
