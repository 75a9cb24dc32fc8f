"""Timing by turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

ROUNDS = 7


def in_turns(tasks: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return the seconds of each task in each round; the tasks take turns, the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(tasks: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median seconds of each task; the tasks take turns, the first round does not count."""
    return medians_of(in_turns(tasks, rounds))


def medians_of(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each task."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title: str, seconds: dict[str, float], baseline: str, unit: str = "ms") -> None:
    """Print seconds and their ratio to the baseline."""
    print(f"\n{title}")
    scale = 1000 if unit == "ms" else 1
    for name, value in seconds.items():
        print(f"  {name:<44} {value * scale:9.1f} {unit}   {value / seconds[baseline]:6.2f} x")


def ratios(seconds: dict[str, list[float]], baseline: str) -> dict[str, float]:
    """Return the median over rounds of the ratio of each task to the baseline in the same round."""
    return {
        name: statistics.median(b / a for a, b in zip(seconds[baseline], values, strict=True))
        for name, values in seconds.items()
    }
