"""Readers bear what a coverage-guided fuzzer makes up, each in a process of its own for a bounded time."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "experiments" / "hardening" / "fuzz.py"
TARGETS = ("profile", "config", "sweep", "noise", "results", "journal", "merge", "continued", "tables", "sensitivity")
TARGETS += ("measurements",)

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed"),
]


def fuzz(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FUZZ), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, timeout=300)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_a_refusal_comes_out(target, tmp_path):
    done = fuzz(tmp_path, "--target", target, "--seconds", "20")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr
    assert not list(tmp_path.glob(f"fuzz-{target}-*/crash-*"))


def test_all_targets_are_fuzzed(tmp_path):
    said = fuzz(tmp_path, "--target", "none").stderr
    assert all(f"'{target}'" in said or target in said for target in TARGETS)
    assert said.partition("choose from ")[2].count(",") + 1 == len(TARGETS)
