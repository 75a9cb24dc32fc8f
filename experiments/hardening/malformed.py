"""Malformed files for all readers: none may end in a traceback, hang, or write outside of its folder.

    python experiments/hardening/malformed.py --inputs 2000 --seed 0 --out DIR

Each input is a valid file, spoiled in one way, and read as a user has it read, most through the command line, in a
worker process that is replaced when it dies or takes too long.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import stat
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from mutations import ANY, kinds_of

REFUSED, ACCEPTED, TRACEBACK, HANG, STRAY = "refused", "accepted", "traceback", "hang", "stray"
OUTCOMES = (REFUSED, ACCEPTED, TRACEBACK, HANG, STRAY)
_MEMORY = 6 << 30  # bytes of addresses beyond those that the worker has when it is ready
_RANDOM_BYTES = "damaged bytes"


@dataclass(frozen=True)
class Input:
    """One malformed file.

    Args:
        number: which; with the seed it determines the file.
        reader: a key of ``READERS``.
        kind: what is wrong with it.
    """

    number: int
    reader: str
    kind: str


@dataclass(frozen=True)
class Case:
    """What became of an input: ``said`` is the error, or what is at fault."""

    number: int
    reader: str
    kind: str
    file: str
    outcome: str
    said: str


def plan(number: int, readers: Sequence[str] | None = None, module: str = "readers") -> list[Input]:
    """Return inputs: readers in turn by their share, and for each reader one kind after the other."""
    known = import_module(module).READERS
    chosen = {name: known[name] for name in readers or known}
    # A reader of twice the share has twice the turns, between those of others.
    turns = sorted((k / reader.share, name) for name, reader in chosen.items() for k in range(reader.share))
    return [Input(i, turns[i % len(turns)][1], "") for i in range(number)]


def spoil(folder: Path, reader: Any, item: Input, seed: int, met: int) -> tuple[str, str]:
    """Spoil one file in a folder; return its name and what was done."""
    rng = random.Random(f"{seed}/{item.reader}/{item.number}")
    path = rng.choice(reader.files(folder))
    if reader.binary:
        # One in eight is an odd file rather than odd bytes.
        odd = [kind for kind in ANY if kind not in ("UTF-16", "not UTF-8")]
        kind = odd[met // 8 % len(odd)] if met % 8 == 0 else _RANDOM_BYTES
        if kind == _RANDOM_BYTES:
            from binary_mutations import mutations

            path.write_bytes(next(mutations(path.read_bytes(), rng)))
        else:
            ANY[kind](path, rng)
    else:
        kinds = kinds_of(path)
        kind = list(kinds)[met % len(kinds)]
        kinds[kind](path, rng)
    return path.relative_to(folder).as_posix(), kind.strip()


def listing(folder: Path, but: Sequence[Path] = ()) -> dict[str, tuple[object, ...]]:
    """Return what a folder holds, with the content of files."""
    found: dict[str, tuple[object, ...]] = {}
    for base, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if Path(base, f) not in but]
        for path in (Path(base, name) for name in (*folders, *names) if Path(base, name) not in but):
            state = path.lstat()
            content = hashlib.sha256(path.read_bytes()).digest() if stat.S_ISREG(state.st_mode) else b""
            found[path.relative_to(folder).as_posix()] = stat.S_IFMT(state.st_mode), state.st_size, content
    return found


class Desk:
    """Where inputs are made and read, one after the other.

    Args:
        seed: with an input's number it determines the file.
        home: folder for all that is written.
        module: in which readers are listed.
    """

    def __init__(self, seed: int, home: str, module: str) -> None:
        self.seed, self.home = seed, Path(home)
        self.found = import_module(module)
        self._valid: dict[str, Path] = {}

    def lay(self, item: Input, met: int) -> tuple[str, str]:
        """Make an input, the ``met``-th of its reader; return the name of the file and what is wrong with it."""
        self.reader = self.found.READERS[item.reader]
        if item.reader not in self._valid:
            self._valid[item.reader] = Path(tempfile.mkdtemp(dir=self.home))
            self.reader.make(self._valid[item.reader])
        self.base = self.home / f"input{item.number}"
        shutil.rmtree(self.base, ignore_errors=True)  # of a worker that has died of it
        self.folder, self.out = self.base / "given" / "in", self.base / "out"
        shutil.copytree(self._valid[item.reader], self.folder)
        (self.base / "beside").mkdir()
        (self.base / "beside" / "draws.csv").write_text("of somebody else")
        self.own = (self.out, *(self.folder / name for name in self.found.OUTPUTS.get(item.reader, "").split()))
        return spoil(self.folder, self.reader, item, self.seed, met)

    def read(self) -> tuple[str, str]:
        """Have the input read; return what came of it, and what was said."""
        before, place = listing(self.base, self.own), Path.cwd()
        os.chdir(self.base / "beside")
        try:
            outcome, said = judged(self.reader.read, self.folder, self.out)
        finally:
            os.chdir(place)
        after = listing(self.base, self.own)
        if before != after:
            strays = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
            outcome, said = STRAY, f"{', '.join(strays)}; {said}"
        shutil.rmtree(self.base, ignore_errors=True)
        return outcome, said


def work(connection: Connection, seed: int, home: str, module: str) -> None:
    """Read inputs until there are no more; run in a process of its own."""
    desk = Desk(seed, home, module)
    warnings.simplefilter("ignore")
    os.environ["MPLCONFIGDIR"] = str(Path(home, "matplotlib"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))
    connection.send("ready")
    while (task := connection.recv()) is not None:
        connection.send(desk.lay(*task))
        connection.send(desk.read())


def numbered(items: Sequence[Input]) -> list[tuple[Input, int]]:
    """Return inputs, each with how many of its reader are before it."""
    met: Counter[str] = Counter()
    found = []
    for item in items:
        found.append((item, met[item.reader]))
        met[item.reader] += 1
    return found


def judged(read: Callable[[Path, Path], object], folder: Path, out: Path) -> tuple[str, str]:
    """Return what came of reading, and what was said."""
    from noiserobust.errors import NoiseRobustError

    try:
        read(folder, out)
    except NoiseRobustError as error:
        return REFUSED, str(error)
    except BaseException as error:
        where = [f for f in traceback.extract_tb(error.__traceback__) if "noiserobust/" in f.filename]
        place = f"{Path(where[-1].filename).name}:{where[-1].lineno}: " if where else ""
        return TRACEBACK, f"{place}{type(error).__name__}: {error}"
    return ACCEPTED, ""


class Worker:
    """A process that reads one input at a time."""

    def __init__(self, *how: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, *how), daemon=True)
        self.process.start()
        other.close()
        self.item: Input | None = None
        self.file = self.kind = ""
        self.since = time.monotonic()
        self.ready = self.gone = False

    def give(self, item: Input, met: int) -> None:
        """Have an input read."""
        self.item, self.file, self.kind, self.since = item, "", "", time.monotonic()
        self.connection.send((item, met))

    def case(self, outcome: str, said: str) -> Case:
        """Return what became of the input that it has, and take it away."""
        assert self.item is not None
        item, self.item = self.item, None
        return Case(item.number, item.reader, self.kind, self.file, outcome, " ".join(said.split())[:500])

    def stop(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def run(
    items: Sequence[Input],
    seed: int,
    home: str,
    *,
    workers: int = 2,
    seconds: float = 120.0,
    module: str = "readers",
) -> Iterator[Case]:
    """Yield what becomes of inputs, as they are done.

    Args:
        items: of :func:`plan`.
        seed: with an input's number it determines the file.
        home: folder for all that is written.
        workers: processes.
        seconds: that an input may take; longer is a hang.
        module: in which readers are listed.
    """
    Path(home).mkdir(parents=True, exist_ok=True)
    how = seed, home, module
    waiting = numbered(items)[::-1]
    crew = [Worker(*how) for _ in range(min(workers, len(items)))]
    try:
        while waiting or any(worker.item for worker in crew):
            for place, worker in enumerate(crew):
                if worker.item and time.monotonic() - worker.since > seconds:
                    yield worker.case(HANG, f"more than {seconds:g} s")
                elif not worker.gone:
                    continue
                elif worker.item:
                    yield worker.case(TRACEBACK, f"the process ended with {worker.process.exitcode}")
                elif not worker.ready:
                    raise RuntimeError("a worker could not be started")
                worker.stop()
                crew[place] = Worker(*how)
            for found in wait([worker.connection for worker in crew if not worker.gone], timeout=1.0):
                worker = next(w for w in crew if w.connection is found)
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    worker.gone = True
                    continue
                if message == "ready":
                    worker.ready = True
                elif not worker.kind:
                    worker.file, worker.kind = message
                else:
                    yield worker.case(*message)
                if worker.item is None and waiting:
                    worker.give(*waiting.pop())
    finally:
        for worker in crew:
            worker.stop()


def table(cases: Sequence[Case], key: Callable[[Case], tuple[str, ...]]) -> list[list[str]]:
    """Return how often each outcome was met, by a key, with a total."""
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for case in cases:
        counts.setdefault(key(case), Counter())[case.outcome] += 1
    rows = [
        [*name, *map(str, (found.total(), *(found[o] for o in OUTCOMES)))] for name, found in sorted(counts.items())
    ]
    total = Counter(case.outcome for case in cases)
    blank = [""] * (len(key(cases[0])) - 1)
    return [*rows, ["all", *blank, *map(str, (total.total(), *(total[o] for o in OUTCOMES)))]]


def write(cases: Sequence[Case], out: Path) -> None:
    """Write figures by reader and kind, and all that went wrong."""
    out.mkdir(parents=True, exist_ok=True)
    counted = ["inputs", "refused", "accepted", "tracebacks", "hangs", "strays"]
    with (out / "figures.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [["reader", "kind", *counted], *table(cases, lambda c: (c.reader, c.kind))]
        )
    with (out / "cases.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, list(asdict(cases[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: v.replace("\0", "\\0") if isinstance(v, str) else v for k, v in asdict(c).items()} for c in cases
        )
    blocks = []
    for name, key in (("reader", lambda c: (c.reader,)), ("kind", lambda c: (c.kind,))):
        head = [f"| {' | '.join([name, *counted])} |", f"|{'---|' * 7}"]
        blocks.append("\n".join([*head, *(f"| {' | '.join(row)} |" for row in table(cases, key))]))
    wrong = [c for c in cases if c.outcome not in (REFUSED, ACCEPTED)]
    blocks += [
        "\n".join(f"- {c.number} {c.reader}, {c.kind}: {c.outcome}: {c.said[:200]}" for c in wrong)
        or "Nothing went wrong."
    ]
    (out / "figures.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8", errors="backslashreplace")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120.0, help="that an input may take")
    parser.add_argument("--readers", nargs="+", help="by default all")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    cases = []
    with tempfile.TemporaryDirectory(prefix="malformed") as home:
        items = plan(chosen.inputs, chosen.readers)
        for case in run(items, chosen.seed, home, workers=chosen.workers, seconds=chosen.seconds):
            cases.append(case)
            if case.outcome not in (REFUSED, ACCEPTED):
                print(f"{case.number} {case.reader}, {case.kind}: {case.outcome}: {case.said!r}", flush=True)
            if len(cases) % 100 == 0:
                print(f"{len(cases)} of {len(items)}", flush=True)
    write(sorted(cases, key=lambda c: c.number), chosen.out)
    print(chosen.out / "figures.md")
    return int(any(case.outcome not in (REFUSED, ACCEPTED) for case in cases))


if __name__ == "__main__":
    sys.exit(main())
