"""How far a run is, on a terminal and in a log."""

from __future__ import annotations

import io
import sys
import time

import pytest

from noiserobust import progress
from noiserobust.progress import duration, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(number: int = 10) -> None:
    with progress_bar(number, "draw") as bar:
        for _ in range(number):
            time.sleep(0.02)
            bar.update()


def test_a_log_has_whole_lines_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.05)
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    run()
    lines = log.getvalue().splitlines()
    assert 2 <= len(lines) <= 9
    assert all(" of 10 draws, 00:00 elapsed, 00:00 left" in line for line in lines)
    assert lines[-1].startswith("10 of 10 draws")
    assert "\r" not in log.getvalue()


def test_nothing_is_said_of_a_short_run_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    run()
    assert log.getvalue() == ""


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run()
    assert "\r" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()


def test_nothing_is_seen_that_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(3, "draw", shown=False) as bar:
        bar.update()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.26, "0.3 s"),
        (42, "42 s"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (7199, "2 h"),
        (200_000, "2 d 8 h"),
    ],
)
def test_a_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
