"""What is tried of the machine itself; see :mod:`noiserobust.doctor.probes`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from noiserobust.doctor.state import Found, State


def cores(thorough: bool) -> Found:
    """Say how many cores and how much memory there are for this process."""
    affinity = getattr(os, "sched_getaffinity", None)
    usable, present = len(affinity(0)) if affinity else os.cpu_count() or 1, os.cpu_count() or 1
    details: dict[str, Any] = {"cores": usable, "present": present}
    said = [f"{usable} cores" + (f" of {present}" if usable < present else "")]
    share = _read("/sys/fs/cgroup/cpu.max").split()
    if len(share) == 2 and share[0].isdecimal():
        details["quota"] = round(int(share[0]) / int(share[1]), 2)
        said.append(f"a quota of {details['quota']:g}")
    memory = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        memory[name] = value
    if "MemAvailable" in memory:
        total, free = (int(memory[key].split()[0]) / 2**20 for key in ("MemTotal", "MemAvailable"))
        limit = _read("/sys/fs/cgroup/memory.max").strip()
        total = min(total, int(limit) / 2**30) if limit.isdecimal() else total
        details |= {"memory_gib": round(total, 1), "free_gib": round(min(free, total), 1)}
        said.append(f"{details['free_gib']:g} of {details['memory_gib']:g} GiB of memory free")
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    said += [f"{name}={value}" for name, value in threads.items()]
    if usable < present and not threads and details.get("quota", usable) < usable / 2:
        raise State("limited", f"{', '.join(said)}: more threads than the quota lets work", **details)
    return ", ".join(said), details


def disk(thorough: bool) -> Found:
    """Say how much room there is where results, data and temporary files go."""
    data = Path(os.environ.get("NOISEROBUST_DATA") or "data")
    places = {"here": Path(), "data": data if data.is_dir() else data.absolute().parent}
    places["temporary files"] = Path(tempfile.gettempdir())
    free = {}
    for name, place in places.items():
        try:
            free[name] = round(shutil.disk_usage(place).free / 2**30, 1)
        except OSError as error:
            raise State("fails", f"{place}: {error.strerror}") from error
    text = ", ".join(f"{value:g} GiB free for {name}" for name, value in free.items())
    if min(free.values()) < 0.5:
        raise State("limited", text, free_gib=free)
    return text.replace(" for here", " here"), {"free_gib": free}


def temporary(thorough: bool) -> Found:
    """Try to write a temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(b"noise" * 10_000)
        assert path.stat().st_size == 50_000
        path.replace(path.with_name("renamed"))
    return f"{tempfile.gettempdir()} can be written to", {"folder": tempfile.gettempdir()}


def locks(thorough: bool) -> Found:
    """Try a lock in the working folder: two runs into one folder are kept apart by one."""
    try:
        import fcntl
    except ImportError:
        raise State("limited", "this system has none: see to it that no two runs write to one folder") from None
    try:
        file = tempfile.NamedTemporaryFile(prefix=".noiserobust-doctor-", dir=".")  # noqa: SIM115
    except OSError as error:
        raise State("limited", f"{Path.cwd()} cannot be written to: {error.strerror}") from error
    with file as first, open(first.name, "rb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise State("limited", f"the file system of {Path.cwd()} has no locks: {error.strerror}") from error
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"files in {Path.cwd()} can be locked", {"folder": str(Path.cwd())}
    raise State("limited", f"locks in {Path.cwd()} keep nobody out: see to it that no two runs write to one folder")


def terminal(thorough: bool) -> Found:
    """Say whether names in any script can be shown and stored."""
    import locale

    said = locale.getpreferredencoding(False)
    files = sys.getfilesystemencoding()
    details = {"text": said, "files": files, "LANG": os.environ.get("LANG"), "LC_ALL": os.environ.get("LC_ALL")}
    if said.lower().replace("-", "") != "utf8" or files.lower().replace("-", "") != "utf8":
        raise State("limited", f"text is {said}, names of files {files}; PYTHONUTF8=1 makes both UTF-8", **details)
    return "text and names of files are UTF-8", details


def cpu_flags() -> set[str]:
    """Return what the processor says it can do; nothing where the system has no such list."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return set()
    lines = [line.partition(":")[2] for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    return set(lines[0].split()) if lines else set()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
