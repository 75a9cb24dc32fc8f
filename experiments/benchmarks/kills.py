"""An evaluation that is killed again and again, and begun again with the same command, ends with the same bytes.

    python experiments/benchmarks/kills.py [--kills 50] [--executor serial|processes|ray]

Kills are SIGKILL at random moments, those of start-up among them. With `serial` and `processes` the main process is
killed, and it alone: its workers have to notice. With `processes` and `ray` single workers are killed too: then the run
has to go on by itself. Without `--executor`: half of the kills with each of `serial` and `processes`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

import noiserobust as nr
from noiserobust.models.weights import write_weights

COMMAND = f"{sys.executable} -m noiserobust evaluate --model digits-cnn --weights seed0.safetensors seed1.safetensors"
COMMAND += " --data digits --noise gaussian --levels 0 0.1 0.2 --draws 400"
MORE, PATIENCE = 3.0, 10.0  # seconds that a life may last after start-up; that workers have to go
WORKERS = {"processes": "popen_loky", "ray": "ray::_Worker"}  # what stands in their command lines
Run = subprocess.Popen[bytes]


class Killing:
    """Evaluations with one executor, one after the other, in a folder that has the weights."""

    def __init__(self, scratch: Path, executor: str, rng: random.Random) -> None:
        self.scratch, self.executor, self.rng = scratch, executor, rng
        self.folders: list[Path] = []
        self.sessions: set[int] = set()
        self.seen: list[int] = []  # how many rows there were at each kill
        self.in_vain = self.failed = 0
        self.slowest = 0.0

    def new_folder(self) -> None:
        self.folders.append(Path(tempfile.mkdtemp(prefix=f"{self.executor}-", dir=self.scratch)))

    def begin(self) -> Run:
        """Start the command, the same one each time, in a session of its own."""
        words = f"{COMMAND} --executor {self.executor} --out {self.folders[-1]}"
        words += "" if self.executor == "serial" else " --workers 2"
        own = {} if self.executor == "ray" else {"TMPDIR": str(self.scratch / "tmp")}  # too long for Ray's sockets
        with self.folders[-1].with_suffix(".log").open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **own}
            run = Run(words.split(), cwd=self.scratch, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.sessions.add(run.pid)
        return run

    def finish(self, run: Run) -> None:
        """Wait for the end, which has to be a good one."""
        if run.wait():
            self.failed += 1
            log = self.folders[-1].with_suffix(".log").read_text(errors="replace")
            print(f"{self.executor}: exit status {run.returncode}; its log ends with\n{log[-1500:]}")

    def rows(self) -> int:
        journal = self.folders[-1] / ".draws.journal.csv"
        with suppress(FileNotFoundError):
            return journal.read_bytes().count(b"\n")
        return 0

    def wait_for_more(self, run: Run, than: int) -> None:
        while run.poll() is None and self.rows() <= than:
            time.sleep(0.002)

    def kill_main(self, kills: int) -> None:
        """Kill the main process, begin again, and at last let it end."""
        self.new_folder()
        start, before = 0.0, 0
        while len(self.seen) < kills:
            run, began = self.begin(), time.monotonic()
            if start:
                with suppress(subprocess.TimeoutExpired):
                    run.wait(self.rng.uniform(0.1, start + MORE))
            else:  # the first shows how long start-up takes
                self.wait_for_more(run, 0)
                start = time.monotonic() - began
            now = self.rows()
            run.kill()
            if run.wait() != -signal.SIGKILL:  # it was done before: another evaluation for the other kills
                self.finish(run)
                self.new_folder()
                before = 0
                continue
            self.seen.append(now)
            self.in_vain += now == before
            before = now
            if self.rng.random() < 0.5:  # else the next one starts beside the workers of this one
                self.left()
        self.finish(self.begin())

    def kill_workers(self, kills: int) -> None:
        """Kill one worker now and then, in runs that have to end by themselves."""
        while len(self.seen) < kills and not self.failed:
            self.new_folder()
            run, now = self.begin(), 0
            while run.poll() is None and len(self.seen) < kills:
                self.wait_for_more(run, now)
                with suppress(subprocess.TimeoutExpired):
                    run.wait(self.rng.uniform(0, MORE))
                workers, now = self.workers(run), self.rows()
                if workers and now:  # it is not at its end
                    with suppress(ProcessLookupError):
                        os.kill(self.rng.choice(workers), signal.SIGKILL)
                        self.seen.append(now)
            self.finish(run)

    def workers(self, run: Run) -> list[int]:
        """Return those among the processes that a run has started, or that they have."""
        found, parents = [run.pid], {pid: parent for pid, (parent, _) in processes().items()}
        for ancestor in found:  # which grows
            found += sorted(pid for pid, parent in parents.items() if parent == ancestor)
        commands = {}
        for pid in found[1:]:
            with suppress(OSError):  # it has just ended
                commands[pid] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        return [pid for pid, words in commands.items() if WORKERS[self.executor] in words]

    def left(self) -> int:
        """Wait until all processes of all runs are gone; return how many are not."""
        began, left = time.monotonic(), 1
        while left and time.monotonic() < began + PATIENCE:
            left = sum(session in self.sessions for _, session in processes().values())
            time.sleep(0.05 * bool(left))
        self.slowest = max(self.slowest, time.monotonic() - began)
        return left

    def report(self, whom: str, whole: Path) -> bool:
        """Print what came out, and return whether it is right."""
        results = [f / name for f in self.folders for name in ("draws.csv", "summary.csv")]
        same = all(p.exists() and p.read_bytes() == (whole / p.name).read_bytes() for p in results)
        left, expected = self.left(), {"draws.csv", "summary.csv", "manifest.json", ".lock"}
        files = [p.name for f in self.folders for p in f.iterdir() if p.name not in expected]
        files += [p.name for p in (self.scratch / "tmp").glob("noiserobust-*")]
        print(
            f"{self.executor}: {whom} killed {len(self.seen)} times at {min(self.seen)}..{max(self.seen)} draws "
            f"({self.in_vain} of them without a new one) in {len(self.folders)} evaluation(s): identical {same}; "
            f"{self.failed} failed; {left} processes left, gone after {self.slowest:.1f} s; files left {files}",
            flush=True,
        )
        return same and not left and not self.failed


def processes() -> dict[int, tuple[int, int]]:
    """Return parent and session of each process that has not ended."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent, _, session, *_ = stat.read_text().rpartition(")")[2].split()
            if state not in "ZX":
                found[int(stat.parent.name)] = int(parent), int(session)
    return found


def main() -> int:
    """Kill, compare, print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how many, of main processes; a fifth more of workers")
    parser.add_argument("--executor", choices=["serial", "processes", "ray"], help="with ray: two workers are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    settings = parser.parse_args()
    rng, good, began = random.Random(settings.seed), True, time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="kills-"))
    (scratch / "tmp").mkdir()
    for seed in (0, 1):
        torch.manual_seed(seed)
        about = {"method": "sgd", "train_seed": str(seed)}
        write_weights(scratch / f"seed{seed}.safetensors", nr.build_model("digits-cnn"), about)
    undisturbed = Killing(scratch, "serial", rng)
    undisturbed.new_folder()
    undisturbed.finish(undisturbed.begin())
    whole = undisturbed.folders[0]
    lines = (whole / "draws.csv").read_bytes().count(b"\n") - 1
    print(f"serial: not killed, {lines} draws in {time.monotonic() - began:.0f} s", flush=True)
    for executor in [settings.executor] if settings.executor else ["serial", "processes"]:
        if executor != "ray":
            killing = Killing(scratch, executor, rng)
            killing.kill_main(settings.kills if settings.executor else settings.kills // 2)
            good &= killing.report("main process", whole)
        if executor != "serial":
            killing = Killing(scratch, executor, rng)
            killing.kill_workers(2 if executor == "ray" else max(settings.kills // 5, 1))
            good &= killing.report("a worker", whole)
    if good:
        shutil.rmtree(scratch)
    else:
        print(f"see {scratch}")
    return not good


if __name__ == "__main__":
    sys.exit(main())
