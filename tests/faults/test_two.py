"""Two processes that write to one folder at the same time: one is refused in a line, the results are those of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import EVALUATE, SWEEP, TRAIN, Forks, content


@pytest.fixture
def commands(forks: Forks, tmp_path: Path) -> dict[str, list[str]]:
    """Commands by verb, with all that they need in the folder of the test."""
    (tmp_path / "a").mkdir()
    (tmp_path / "grid.yaml").write_text(SWEEP)
    for words in ([*TRAIN[:-2], "--out", "w"], [*EVALUATE, "--draws", "2", "--out", "results"]):
        assert forks.run(*words, folder=tmp_path).status == 0
    return {
        "train": TRAIN,
        "evaluate": [*EVALUATE, "--draws", "60"],
        "report": ["report", "results"],
        "sweep": ["sweep", "--config", "grid.yaml"],
    }


VERBS = ["evaluate", *(pytest.param(verb, marks=pytest.mark.thorough) for verb in ("train", "report", "sweep"))]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.slow
def test_at_the_same_time(verb: str, commands: dict[str, list[str]], forks: Forks, tmp_path: Path) -> None:
    """Paths are absolute, for each says what it says into a folder of its own."""
    assert forks.run(*commands[verb], "--out", "whole", folder=tmp_path).status == 0
    for name in ("w", "results", "grid.yaml"):
        for place in ("a", "b"):
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / place / name).symlink_to(tmp_path / name)
    for _ in range(3):
        both = [forks.start(*commands[verb], "--out", tmp_path / "out", folder=tmp_path / p) for p in ("a", "b")]
        ends = [running.ended() for running in both]
        assert all("Traceback" not in end.err for end in ends)
        assert 0 in {end.status for end in ends}
        for end in ends:
            assert end.status in (0, 2), end.err
            if end.status == 2:
                assert "to be used by one process at a time, but another is writing to" in end.complaint
        found, expected = (content(tmp_path / out) for out in ("out", "whole"))
        if verb == "sweep":  # its page says where it was
            del found["grid/report/report.html"], expected["grid/report/report.html"]
        assert found == expected
        assert not list((tmp_path / "out").rglob("*.tmp"))
