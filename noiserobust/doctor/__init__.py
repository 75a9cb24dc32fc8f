"""What works on this machine, and why something does not, found by trying it.

Each thing is tried in a process of its own: what crashes or hangs is reported, and not suffered.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from noiserobust.doctor import probes
from noiserobust.threads import cores

STATES = ("works", "limited", "fails", "absent", "untried")
"""As it should; with something to know; not, though it is there; not there; not tried."""

NEEDED = (
    *("torch", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "pillow", "jinja2", "safetensors"),
    *("jsonargparse", "pyyaml", "loky", "cloudpickle", "tqdm", "shtab"),
)
OPTIONAL = ("aihwkit", "ray", "optuna", "lightning", "transformers", "accelerate", "tensorboard")

_TEXT = "utf-8", "replace"


@dataclass(frozen=True)
class Finding:
    """What came of trying one thing.

    Args:
        name: of the thing.
        state: one of :data:`STATES`.
        text: a sentence: what there is, or why it does not work.
        details: the same in numbers, JSON-able.
        seconds: how long it took to try it.
    """

    name: str
    state: str
    text: str
    details: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Args:
        versions: of Python, this package and others by name; None for those that are not installed.
        findings: one a thing, in a fixed order.
    """

    versions: Mapping[str, str | None]
    findings: Sequence[Finding]

    @property
    def summary(self) -> str:
        """All findings in one line: how many work, and which do not."""
        parts = []
        for state in STATES:
            names = [f.name for f in self.findings if f.state == state]
            if names:
                parts.append(f"{len(names)} {state}" + ("" if state == "works" else f" ({', '.join(names)})"))
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        return {
            "versions": dict(self.versions),
            "findings": [asdict(finding) for finding in self.findings],
            "summary": self.summary,
        }


def examine(names: Sequence[str] | None = None, *, thorough: bool = False, timeout: float = 60.0) -> Diagnosis:
    """Try what can be tried.

    Args:
        names: keys of :data:`noiserobust.doctor.probes.PROBES`; by default all.
        thorough: whether what takes long is tried too, such as Ray.
        timeout: after how many seconds a thing that is tried counts as hanging, > 0; three times as many for what
            takes long.

    >>> examine(["temporary files"]).summary
    '1 works'
    """
    asked = list(probes.PROBES) if names is None else list(names)
    with ThreadPoolExecutor(min(cores(), 4)) as pool:
        findings = list(pool.map(lambda name: try_out(name, thorough=thorough, timeout=timeout), asked))
    return Diagnosis(versions(), findings)


def versions() -> dict[str, str | None]:
    """Return the versions of Python, of this package and of those it can use."""
    found: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("noiserobust", *NEEDED, *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    from noiserobust import __version__

    return {**found, "noiserobust": __version__}


def try_out(name: str, *, thorough: bool = False, timeout: float = 60.0) -> Finding:
    """Try one thing in a process of its own.

    Args:
        name: a key of :data:`noiserobust.doctor.probes.PROBES`.
        thorough: whether it is tried if it takes long.
        timeout: in seconds, > 0; three times as many if it takes long.
    """
    start = time.monotonic()
    # By its path: no module of the working folder is taken for another.
    command = [sys.executable, str(Path(probes.__file__)), name, *(["--thorough"] if thorough else [])]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    limit = timeout * (3 if thorough and name in probes.SLOW else 1)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        _end(process)
        return Finding(name, "fails", f"it took longer than {limit:g} s, and was ended", {}, limit)
    except BaseException:
        _end(process)
        raise
    seconds = round(time.monotonic() - start, 2)
    answers = [line for line in out.decode(*_TEXT).splitlines() if line.startswith(probes.ANSWER)]
    if not answers:
        return Finding(name, "fails", _why(process.returncode, err.decode(*_TEXT)), {}, seconds)
    answer = json.loads(answers[-1].removeprefix(probes.ANSWER))
    return Finding(name, answer["state"], answer["text"], answer["details"], seconds)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(subprocess.TimeoutExpired):  # one that the system itself cannot end
        process.communicate(timeout=5)


def _why(status: int, err: str) -> str:
    """Return why a process gave no answer."""
    if status < 0:
        with suppress(ValueError):
            return f"it crashed: killed by {signal.Signals(-status).name}"
    lines = err.strip().splitlines()
    return f"it ended with exit status {status}" + (f": {lines[-1].strip()}" if lines else "")


def as_text(found: Diagnosis, width: int | None = None) -> str:
    """Return a diagnosis as people read it.

    Args:
        found: what was found.
        width: of the lines, in characters; by default that of the terminal, or 100.
    """
    import shutil

    width = width or max(shutil.get_terminal_size((100, 24)).columns, 60)
    there = [f"{name} {number}" for name, number in found.versions.items() if number]
    lacking = [name for name, number in found.versions.items() if not number]
    lines = textwrap.wrap(", ".join(there), width, break_on_hyphens=False)
    lines += [f"not installed: {', '.join(lacking)}"] if lacking else []
    lines.append("")
    indent = max((len(finding.name) for finding in found.findings), default=0) + 2
    for finding in found.findings:
        head = f"{finding.name:<{indent}}{finding.state:<9}"
        text = textwrap.wrap(finding.text, max(width - len(head), 20), break_on_hyphens=False) or [""]
        lines += [head + text[0], *(" " * len(head) + line for line in text[1:])]
    return "\n".join([*lines, "", found.summary])
