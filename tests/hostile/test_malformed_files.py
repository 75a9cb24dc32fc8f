"""Malformed files for all readers, through the command line where that is the reader; and faults that are seen."""

from __future__ import annotations

import csv
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

HARDENING = Path(__file__).parents[2] / "experiments" / "hardening"
sys.path.insert(0, str(HARDENING))

from malformed import ACCEPTED, REFUSED, Case, Desk, Input, judged, numbered, plan, run, write  # noqa: E402
from readers import READERS  # noqa: E402


def wrong(cases: list[Case]) -> list[Case]:
    return [case for case in cases if case.outcome not in (REFUSED, ACCEPTED)]


SLOW = ("report", "figures", "profiles", "sweep", "train", "evaluate")  # the slow test has them


def cases_of(items: list[Input], seed: int, home: Path, module: str = "readers") -> list[Case]:
    """Return what becomes of inputs in this process; one that is waited for for a minute is an error."""

    def end(*_: object) -> None:
        raise TimeoutError

    desk, cases = Desk(seed, str(home), module), []
    before = signal.signal(signal.SIGALRM, end)
    try:
        for item, met in numbered(items):
            signal.alarm(60)
            file, kind = desk.lay(item, met)
            cases.append(Case(item.number, item.reader, kind, file, *desk.read()))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return cases


@pytest.mark.slow
def test_some_malformed_files_of_each_reader_are_refused_or_harmless(tmp_path):
    quick = [name for name in READERS if not name.startswith(SLOW)]
    cases = cases_of(plan(100, quick), 0, tmp_path)
    assert wrong(cases) == []
    assert {case.reader for case in cases} == set(quick)
    assert sum(case.outcome == REFUSED for case in cases) > 50


@pytest.mark.thorough
def test_many_malformed_files_are_refused_or_harmless(tmp_path):
    signal.alarm(0)  # the workers have a time for each file
    cases = list(run(plan(1000), 1, str(tmp_path), workers=2))
    assert wrong(cases) == []
    assert {case.reader for case in cases} == set(READERS)


@pytest.mark.thorough
@pytest.mark.parametrize("name", READERS)
def test_what_is_spoiled_was_valid_before(name, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    READERS[name].make(folder)
    assert READERS[name].files(folder)
    assert judged(READERS[name].read, folder, tmp_path / "out") == (ACCEPTED, "")


FAULTS = {
    ("refuses", "refused"): 2,
    ("reads", "accepted"): 2,
    ("raises", "traceback"): 2,
    ("exits", "traceback"): 2,
    ("strays", "stray"): 2,
    ("changes", "stray"): 2,
}


def test_faults_are_seen(tmp_path):
    """A traceback, an early exit and a stray file are told from a refusal, and counted."""
    names = [name for name, _ in FAULTS]
    cases = cases_of(plan(12, names, module="planted_readers"), 0, tmp_path, "planted_readers")
    assert Counter((case.reader, case.outcome) for case in cases) == FAULTS
    write(cases, tmp_path / "out")
    with (tmp_path / "out" / "figures.csv").open(newline="") as file:
        *_, total = csv.DictReader(file)
    counted = ("inputs", "refused", "accepted", "tracebacks", "hangs", "strays")
    assert [total[k] for k in counted] == ["12", "2", "2", "4", "0", "4"]
    assert "ZeroDivisionError" in (tmp_path / "out" / "figures.md").read_text()


@pytest.mark.thorough
def test_deaths_and_hangs_are_seen_and_others_are_read_on(tmp_path):
    items = plan(16, module="planted_readers")
    cases = list(run(items, 0, str(tmp_path / "home"), workers=2, seconds=10.0, module="planted_readers"))
    found = Counter((case.reader, case.outcome) for case in cases)
    assert found == {**FAULTS, ("dies", "traceback"): 2, ("waits", "hang"): 2}


def test_the_same_seed_makes_the_same_files(tmp_path):
    items = plan(24, ["read_filters", "read_landscape", "read_sensitivity"])
    first, again, other = (
        [(c.kind, c.file, c.outcome, c.said) for c in cases_of(items, seed, tmp_path)] for seed in (5, 5, 6)
    )
    assert first == again
    assert [case[0] for case in first] == [case[0] for case in other]
    assert first != other
