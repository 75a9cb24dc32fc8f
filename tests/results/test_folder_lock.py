"""Two processes never write into one folder; nobody is shut out by one that is gone."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rows import row

from noiserobust.errors import InvalidValueError, OutputError
from noiserobust.results.store import DrawStore

fcntl = pytest.importorskip("fcntl")

HOLD = """
import sys
from pathlib import Path
from noiserobust.results.store import ResultFolder
folder = ResultFolder(Path(sys.argv[1]), "training", {"by": "the other"}, {})
print("held", flush=True)
sys.stdin.read()
"""

FORK = """
import os, signal, sys
from pathlib import Path
from noiserobust.errors import OutputError
from noiserobust.results.store import ResultFolder

def tell():
    try:
        ResultFolder(Path(sys.argv[1]), "training", {}, {}).close()
        print("free", flush=True)
    except OutputError:
        print("held", flush=True)

folder = ResultFolder(Path(sys.argv[1]), "training", {}, {})
asked, answer = os.pipe()
worker = os.fork()
if worker == 0:
    if sys.argv[2] == "closes":
        folder.close()
    os.write(answer, b".")
    signal.pause()
os.read(asked, 1)
try:
    tell()
    folder.close()
    tell()
finally:
    os.kill(worker, signal.SIGKILL)
"""


def store_in(folder: Path, configuration: object = None) -> DrawStore:
    return DrawStore(folder, configuration or {"draws": 3}, {})


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds ``tmp_path`` until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_another_process_writes_to_is_refused_and_left_alone(tmp_path: Path, holder) -> None:
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="Expected `out` to be used by one process at a time, but another is writing"):
        store_in(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_the_folder_is_free_when_the_other_process_ends(tmp_path: Path, holder, end: str) -> None:
    if end == "kill":
        holder.send_signal(signal.SIGKILL)
    else:
        holder.stdin.close()
    assert holder.wait() == (-signal.SIGKILL if end == "kill" else 0)
    # The other left a lock file and a manifest, which are no results.
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "manifest.json"]
    store_in(tmp_path).append(row())


def test_in_one_process_too_the_first_keeps_the_folder_until_it_is_closed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with pytest.raises(OutputError, match="one process at a time"):
        store_in(tmp_path)
    with pytest.raises(OutputError, match="one process at a time"):  # the refused one took nothing away
        store_in(tmp_path)
    store.close()
    store.close()
    with store_in(tmp_path), pytest.raises(OutputError):
        store_in(tmp_path)
    store_in(tmp_path)  # collected at once
    store_in(tmp_path)


def test_an_error_inside_a_with_block_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, store_in(tmp_path):
        raise KeyboardInterrupt
    store_in(tmp_path)
    assert caught.traceback


def test_a_folder_that_is_refused_is_free(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        store.append(row())
    with pytest.raises(InvalidValueError, match="differing") as other:
        store_in(tmp_path, {"draws": 4})
    store_in(tmp_path)
    (tmp_path / "draws.csv").write_text("damaged")
    with pytest.raises(InvalidValueError, match="columns") as damaged:
        store_in(tmp_path)
    with pytest.raises(InvalidValueError, match="columns"):
        store_in(tmp_path)
    assert other.traceback  # kept, as a notebook keeps the last error with all it refers to
    assert damaged.traceback


@pytest.mark.parametrize("worker", ["closes", "does not close"])
def test_a_forked_worker_neither_gives_away_nor_keeps_the_lock(tmp_path: Path, worker: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path), worker]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "held\nfree\n", done.stderr


@pytest.mark.parametrize("missing", ["module", "support of the file system"])
def test_without_locks_a_folder_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if missing == "module":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", unsupported)
    with store_in(tmp_path) as store:
        store.append(row())
    assert len(store_in(tmp_path).rows) == 1
