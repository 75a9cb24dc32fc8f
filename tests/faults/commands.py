"""Real commands in processes of their own, which tests kill, starve and compare.

A command of its own takes seconds to import what it needs. For what happens after that, :class:`Forks` has a process
that has imported it already and that each command is forked from.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

TRAIN = ["train", "--model", "digits-mlp", "--data", "digits", "--epochs", "3", "--checkpoint-minutes", "0"]
EVALUATE = ["evaluate", "--model", "digits-mlp", "--data", "digits", "--noise", "gaussian", "--levels", "0", "0.1"]
EVALUATE += ["--weights", "w/seed0/best.safetensors"]
SWEEP = """
base: {model: digits-mlp, data: digits, epochs: 2, select: {draws: 1}}
grid: {method: {name: [sgd, rwp]}}
seeds: [0]
evaluate: {gaussian: {noise: gaussian, levels: [0, 0.1], draws: 3}}
"""


def content(folder: Path) -> dict[str, object]:
    """Return all that there is in a folder, hidden files included, but for times and what is said of sessions."""
    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"):
        name = str(path.relative_to(folder))
        if path.name == "metrics.csv":
            found[name] = pd.read_csv(path).drop(columns="seconds").to_csv()
        elif path.name == "manifest.json":
            found[name] = json.loads(path.read_text())["configuration"]
        elif path.name == "jobs.csv":
            found[name] = pd.read_csv(path).drop(columns="seconds", errors="ignore").to_csv()
        elif path.name == "report.html" and (folder / "jobs").is_dir():
            found[name] = _page(path)
        elif path.name in ("job.json", "log.txt"):
            found[name] = ""
        else:
            found[name] = path.read_bytes()
    return found


def _page(path: Path) -> str:
    """Return the report of a sweep without where its jobs are, when they were begun, and minutes of trainings."""
    where, when, minutes = r"<code>[^<]*(?=/jobs/)", r"\d{4}-\d\d-\d\dT[\d:+]+", r"<td>[^<]*</td>(?=\s*<td>best on)"
    return re.sub("|".join((where, when, minutes)), "", path.read_text())


_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

_FORKING = """
import json, os, signal, sys, tempfile
import torch, sklearn.datasets, pandas, matplotlib.pyplot, scipy.stats, loky
import noiserobust.cli, noiserobust.train.runs, noiserobust.evaluate.files, noiserobust.report.write
import noiserobust.diagnose.recorder, noiserobust.evaluate.heldout, noiserobust.sweep.run
import noiserobust.__main__

def command(words, folder, env, uid, limit):
    os.setsid()
    os.environ.update(env)
    tempfile.tempdir = None
    os.chdir(folder)
    for number, name in ((1, "said.out"), (2, "said.err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    os.close(0)
    if limit:
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    if uid:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    sys.argv = ["noiserobust", *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = noiserobust.__main__.main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if not pid:
        try:
            command(**asked)
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(99)
    print(pid, flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a command has ended.

    Args:
        status: as :mod:`subprocess` has it: negative if a signal ended it.
        out: what it said.
        err: what it said on standard error.
        seconds: how long it took.
    """

    status: int
    out: str
    err: str
    seconds: float

    @property
    def complaint(self) -> str:
        """The last line, without progress bars and log before it."""
        return self.err.replace("\r", "\n").strip().rpartition("\n")[2].strip()


class Running:
    """A command that has been started, in a session of its own; made by :class:`Forks`."""

    def __init__(self, forks: Forks, pid: int, folder: Path) -> None:
        self.pid = pid
        self._forks, self._folder, self._start = forks, folder, time.monotonic()

    def send(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        os.kill(self.pid, number)  # until it is waited for, the number is its own

    def wait_until_it_heeds_signals(self) -> None:
        """Wait until it handles SIGTERM, as it does from its very beginning on."""
        wait_until_handled(self.pid, signal.SIGTERM)

    def ended(self) -> Ended:
        """Wait for the end."""
        status = int(self._forks.ask({"wait": self.pid}))
        out, err = ((self._folder / name).read_text(errors="replace") for name in ("said.out", "said.err"))
        return Ended(status, out, err, time.monotonic() - self._start)


class Forks:
    """Starts commands in next to no time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT
        )

    def ask(self, asked: dict[str, Any]) -> str:
        """Return the answer to a question."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def start(self, *words: object, folder: Path, uid: int = 0, limit: int = 0, **env: str) -> Running:
        """Start a command.

        Args:
            words: of the command.
            folder: where it runs, and where what it says is written, ``said.out`` and ``said.err``.
            uid: of the user that it becomes; by default it stays who we are.
            limit: bytes beyond which no file grows; 0 for none.
            env: more of the environment.
        """
        folder.mkdir(exist_ok=True)
        asked = {"words": [str(w) for w in words], "folder": str(folder), "env": env, "uid": uid, "limit": limit}
        return Running(self, int(self.ask(asked)), folder)

    def run(self, *words: object, folder: Path, **how: Any) -> Ended:
        """Run a command to its end."""
        return self.start(*words, folder=folder, **how).ended()

    def close(self) -> None:
        """Start no more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def wait_until_handled(pid: int, number: int) -> None:
    """Wait until a process has a handler for a signal, or has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if fields["State"].startswith("Z") or int(fields["SigCgt"], 16) >> (number - 1) & 1:
            return
        time.sleep(0.001)
    raise AssertionError(f"process {pid} never handled signal {number}")
