"""A disk that is full or read-only, a folder that goes away: a line says so, and the same command goes on afterwards.

The disk is a small file system in memory; where tests may not mount one, only the limit on the size of files is there.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import EVALUATE, SWEEP, TRAIN, Ended, Forks, content

from noiserobust.models.registry import build_model
from noiserobust.models.weights import write_weights


class Disk:
    """A file system of its own, of a size that can be changed at any time.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def mounted(self) -> bool:
        """Mount it, and return whether that is allowed."""
        self.path.mkdir()
        try:
            return subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.path], capture_output=True).returncode == 0
        except OSError:
            return False

    def become(self, options: str) -> None:
        """Change options of the mount: ``size=64k``, ``ro``."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    if not disk.mounted():
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", disk.path], check=True)


def refused(end: Ended, *said: str, expected: str = "to be able to write ") -> bool:
    """Check how a command ended for which there was no room; return whether there was none."""
    assert "Traceback" not in end.err
    if end.status == 0:
        return False
    assert end.status == 2, end.err
    assert end.complaint.startswith(f"noiserobust: error: Expected {expected}"), end.complaint
    assert any(word in end.complaint for word in said), end.complaint
    return True


def leavings(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp"))


@pytest.fixture
def commands(forks: Forks, tmp_path: Path) -> dict[str, list[str]]:
    """Commands by verb, with all that they need in the folder of the test."""
    (tmp_path / "grid.yaml").write_text(SWEEP)
    assert forks.run(*TRAIN[:-2], "--out", "w", folder=tmp_path).status == 0
    assert forks.run(*EVALUATE, "--draws", "2", "--out", "results", folder=tmp_path).status == 0
    return {
        "train": [*TRAIN, "--method.name", "rwp"],
        "evaluate": [*EVALUATE, "--draws", "60"],
        "report": ["report", "results"],
        "sweep": ["sweep", "--config", "grid.yaml"],
    }


SIZES = {"train": [4, 40], "evaluate": [4, 8], "report": [4, 200, 400], "sweep": [4, 16, 64, 128]}
"""KiB that there are one after the other."""
VERBS = ["evaluate", *(pytest.param(verb, marks=pytest.mark.thorough) for verb in ("train", "report", "sweep"))]


@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_is_full_and_one_that_is_read_only(
    verb: str, commands: dict[str, list[str]], forks: Forks, disk: Disk, tmp_path: Path
) -> None:
    assert forks.run(*commands[verb], "--out", "whole", folder=tmp_path).status == 0
    full = 0
    for size in SIZES[verb]:
        disk.become(f"size={size}k")
        end = forks.run(*commands[verb], "--out", "disk/out", folder=tmp_path)
        full += refused(end, "No space left on device")
        assert not leavings(disk.path)
    assert full, "there was always room"
    disk.become("size=100m,ro")
    assert refused(forks.run(*commands[verb], "--out", "disk/out", folder=tmp_path), "Read-only file system")
    disk.become("rw")
    assert forks.run(*commands[verb], "--out", "disk/out", folder=tmp_path).status == 0
    assert content(disk.path / "out") == content(tmp_path / "whole")


@pytest.mark.thorough
@pytest.mark.parametrize("verb", ["train", "evaluate", "report", "sweep"])
def test_files_that_may_not_grow(verb: str, commands: dict[str, list[str]], forks: Forks, tmp_path: Path) -> None:
    """As with a quota: the failure is in the middle of a file."""
    assert forks.run(*commands[verb], "--out", "whole", folder=tmp_path).status == 0
    for limit in (600, 3000):
        assert refused(forks.run(*commands[verb], "--out", "out", folder=tmp_path, limit=limit), "File too large")
        assert not leavings(tmp_path / "out")
    assert forks.run(*commands[verb], "--out", "out", folder=tmp_path).status == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


MISSED = ("No such file or directory", "but there is none", "but it does not")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("verb", "expected"),
    # A sweep reads, too, what its jobs have written.
    [("train", "to be able to write "), ("evaluate", "to be able to write "), ("sweep", "")],
)
def test_a_folder_that_is_removed_while_it_is_written_to(
    verb: str, expected: str, commands: dict[str, list[str]], forks: Forks, tmp_path: Path
) -> None:
    whole = forks.run(*commands[verb], "--out", "whole", folder=tmp_path)
    moments, removed = random.Random(verb), 0
    for _ in range(4):
        running = forks.start(*commands[verb], "--out", "out", folder=tmp_path)
        running.wait_until_it_heeds_signals()
        time.sleep(moments.uniform(0.2, 0.8) * whole.seconds)
        while (tmp_path / "out").exists():
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
        removed += refused(running.ended(), *MISSED, expected=expected)
    assert removed, "it was always done before"
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert forks.run(*commands[verb], "--out", "out", folder=tmp_path).status == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_full_folder_for_temporary_files(forks: Forks, disk: Disk, tmp_path: Path) -> None:
    """Processes share large data by files in it."""
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=generator.normal(size=(6000, 64)).astype(np.float32), y=np.arange(6000) % 10)
    (tmp_path / "w" / "seed0").mkdir(parents=True)
    write_weights(tmp_path / "w" / "seed0" / "best.safetensors", build_model("digits-mlp"), {})
    words = [*EVALUATE, "--data", "npz:data.npz", "--draws", "2", "--out", "out", "--executor", "processes"]
    disk.become("size=300k")
    end = forks.run(*words, folder=tmp_path, TMPDIR=str(disk.path))
    assert refused(end, "No space left on device")
    assert str(disk.path) in end.complaint
    assert not list(disk.path.iterdir())
    assert forks.run(*words[:-2], folder=tmp_path).status == 0  # without processes it goes on
