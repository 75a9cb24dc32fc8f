"""Two commands with one folder at the same time: one is refused, or both come to the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from commands import EVALUATE, TRAIN, Forks, content

from noiserobust.results.lock import in_use

REFUSED = "noiserobust: error: Expected `out` to be used by one process at a time, but another is writing to out"


@pytest.mark.parametrize("verb", ["train", pytest.param("evaluate", marks=pytest.mark.slow)])
def test_the_second_is_refused_and_the_first_does_not_notice(verb: str, forks: Forks, tmp_path: Path) -> None:
    words = [*TRAIN[:-2], "--checkpoint-minutes", "0", "--method.name", "rwp"]
    if verb == "evaluate":
        assert forks.run(*words, "--out", "w", folder=tmp_path).status == 0
        words = [*EVALUATE, "--draws", "400"]
    first = forks.start(*words, "--out", "out", folder=tmp_path)
    deadline = time.monotonic() + 60
    while not in_use(tmp_path / "out"):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "out").symlink_to(tmp_path / "out")  # the same folder by another name
    (tmp_path / "second" / "w").symlink_to(tmp_path / "w")
    second = forks.run(*words, "--out", "out", folder=tmp_path / "second")
    assert second.status == 2, second.err
    assert second.complaint == REFUSED
    end = first.ended()
    assert end.status == 0, end.err
    assert forks.run(*words, "--out", "whole", folder=tmp_path).status == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.slow
def test_two_reports(forks: Forks, tmp_path: Path) -> None:
    """Files get their names when they are whole, and both write the same."""
    assert forks.run(*TRAIN[:-2], "--out", "w", folder=tmp_path).status == 0
    assert forks.run(*EVALUATE, "--draws", "3", "--out", "results", folder=tmp_path).status == 0
    assert forks.run("report", "results", "--out", "whole", folder=tmp_path).status == 0
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    both = [forks.start("report", "../results", "--out", "../out", folder=tmp_path / name) for name in ("one", "two")]
    for running in both:
        end = running.ended()
        assert end.status == 0, end.err
    one, whole = content(tmp_path / "out"), content(tmp_path / "whole")
    assert one.keys() == whole.keys()
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert all(one[name] == whole[name] for name in one if name.endswith(".csv"))
