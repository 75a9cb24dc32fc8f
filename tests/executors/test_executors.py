"""The same results from all executors, whatever happens to workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.errors import InvalidValueError
from noiserobust.executors import Executor, FailedJobsError, make_executor
from noiserobust.models.weights import write_weights

NAMES = ["serial", "processes", pytest.param("ray", marks=pytest.mark.thorough)]
PARALLEL = NAMES[1:]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start a Ray cluster once for all tests."""
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return make_executor(request.param, None if request.param == "serial" else 2)


def on(names: list[Any]) -> Any:
    return pytest.mark.parametrize("executor", names, indirect=True)


def collect(done: list[tuple[int, int]], results: Iterator[tuple[int, int]]) -> None:
    """Keep what is yielded before an error."""
    for pair in results:
        done.append(pair)


class Square:
    """Squares numbers; calls a function before."""

    def __init__(self, before: Callable[[int], None] = lambda job: None) -> None:
        self.before = before

    def __call__(self, job: int) -> int:
        self.before(job)
        return job**2


@on(NAMES)
@pytest.mark.parametrize("jobs", [0, 1, 40])
def test_each_job_is_done_once(executor: Executor, jobs: int) -> None:
    assert sorted(executor.map(Square(), range(jobs))) == [(j, j**2) for j in range(jobs)]


def die(path: Path, often: int, job: int) -> None:
    """Kill the worker that has job 7, as often as is said."""
    if job == 7 and len(list(path.iterdir())) < often:
        (path / str(time.monotonic_ns())).touch()
        os.kill(os.getpid(), signal.SIGKILL)


@on(PARALLEL)
@pytest.mark.thorough
def test_a_job_whose_worker_dies_is_tried_again(executor: Executor, tmp_path: Path) -> None:
    done = sorted(executor.map(Square(partial(die, tmp_path, 2)), range(20)))
    assert done == [(j, j**2) for j in range(20)]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.thorough  # each death costs new workers, and each worker the seconds that torch takes to import
@on(PARALLEL)
def test_a_job_that_always_kills_takes_no_other_with_it(executor: Executor, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    said = r"but 1 failed, the first, 7, with: .*(died each time|unavailable)"
    with pytest.raises(FailedJobsError, match=said) as raised:
        collect(done, executor.map(Square(partial(die, tmp_path, 99)), range(20)))
    assert list(raised.value.failures) == [7]
    assert sorted(done) == [(j, j**2) for j in range(20) if j != 7]


class Slow:
    """Does nothing, slowly."""

    def __call__(self, job: int) -> None:
        time.sleep(0.05)


@pytest.mark.thorough
def test_a_worker_may_die_while_nobody_looks() -> None:
    results = make_executor("processes", 2).map(Square(Slow()), range(12))
    done = [next(results)]
    workers = [pid for pid in children(os.getpid()) if b"popen_loky" in (pid / "cmdline").read_bytes()]
    os.kill(int(workers[0].name), signal.SIGKILL)
    time.sleep(1)  # as if what was found had to be written
    done.extend(results)
    assert sorted(done) == [(j, j**2) for j in range(12)]


class Unloadable:
    """Cannot be made in another process."""

    def __reduce__(self) -> Any:
        return refuse, ()

    def __call__(self, job: int) -> int:
        return job


def refuse() -> None:
    """Fail."""
    raise ImportError("no module named blocks")


@on(PARALLEL)
@pytest.mark.thorough
def test_work_that_cannot_be_loaded_is_said_once(executor: Executor) -> None:
    with pytest.raises(InvalidValueError, match=r"workers to be able to load .* ImportError: no module named blocks"):
        list(executor.map(Unloadable(), range(30)))


@pytest.mark.thorough
def test_more_workers_than_the_cluster_has_room_for(cluster: None) -> None:
    assert len(list(make_executor("ray", 9).map(Square(), range(20)))) == 20


def complain(kind: type[Exception], job: int) -> None:
    """Raise for job 3."""
    if job == 3:
        raise kind("no threes")


@on(PARALLEL)
def test_a_job_that_fails_takes_no_other_with_it(executor: Executor) -> None:
    done: list[tuple[int, int]] = []
    with pytest.raises(FailedJobsError, match="1 failed, the first, 3, with: ZeroDivisionError: no threes"):
        collect(done, executor.map(Square(partial(complain, ZeroDivisionError)), range(10)))
    assert sorted(job for job, _ in done) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


@on(NAMES)
def test_bad_input_is_said_at_once(executor: Executor) -> None:
    with pytest.raises(InvalidValueError, match="no threes"):
        list(executor.map(Square(partial(complain, InvalidValueError)), range(10)))


class Looks:
    """Says where a tensor lies, and how many threads there are."""

    def __init__(self) -> None:
        self.large, self.small = torch.arange(10**6, dtype=torch.float32), torch.arange(5)

    def __call__(self, job: int) -> tuple[float, bool, int]:
        maps = Path("/proc/self/maps").read_text().splitlines()
        at = self.large.data_ptr()
        mapped = any(
            int(line.split("-")[0], 16) <= at < int(line.split("-")[1].split()[0], 16) and "/noiserobust-" in line
            for line in maps
        )
        return float(self.large.sum() + self.small.sum()), mapped, torch.get_num_threads()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
@pytest.mark.thorough
def test_processes_share_large_tensors_and_divide_the_cores() -> None:
    found = dict(make_executor("processes", 2).map(Looks(), range(4)))
    available = len(os.sched_getaffinity(0))
    assert {f[:2] for f in found.values()} == {(float(Looks().large.sum() + 10), True)}
    assert {f[2] for f in found.values()} == {max(available // 2, 1)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("threads",), "`executor` to be one of"),
        (("processes", 0), "`workers` to be an integer >= 1, but got 0"),
        (("serial", 2), "`workers` with the executors processes and ray only"),
        (("processes", 2, "auto"), "`address` with the executor ray only"),
    ],
)
def test_executors_are_checked(arguments: Any, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        make_executor(*arguments)


BLOCKS = """
from torch import nn

class Head(nn.Linear):
    def __init__(self):
        super().__init__(144, 10)
"""

MODEL = """
from torch import nn
from blocks import Head

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), Head())

    def forward(self, x):
        return self.layers(x)

def surprise(output, target):
    return (output.logsumexp(1) - output.mean(1)).sum(), len(target)
"""


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MODEL)
    Path("blocks.py").write_text(BLOCKS)  # what is beside a user's file can be imported by it
    monkeypatch.delitem(sys.modules, "blocks", raising=False)
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = nr.build_model("mine.py:Mine")
        write_weights(Path(f"w{seed}.safetensors"), model, {"method": "sgd", "train_seed": str(seed)})
    command = "evaluate --model mine.py:Mine --weights w0.safetensors w1.safetensors --data digits --noise pcm-hermes-2"
    return f"{command} --levels clean 1s 1d --draws 12 --metrics accuracy loss mine.py:surprise --out".split()


@pytest.mark.parametrize("name", [PARALLEL[0], pytest.param("ray", marks=pytest.mark.thorough)])
def test_evaluations_are_the_same_to_the_byte(name: str, words: list[str], request: pytest.FixtureRequest) -> None:
    if name == "ray":
        request.getfixturevalue("cluster")
    assert main([*words, "serial"]) == 0
    assert main([*words, "other", "--executor", name, "--workers", "2"]) == 0
    for file in ("draws.csv", "summary.csv"):
        assert Path("other", file).read_bytes() == Path("serial", file).read_bytes()


def killed(words: list[str], rows: int) -> None:
    """Kill an evaluation in processes when some rows are there."""
    command = [sys.executable, "-m", "noiserobust", *words, "--executor", "processes", "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal, deadline = Path(words[-1], ".draws.journal.csv"), time.monotonic() + 120
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= rows):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    workers = children(process.pid)
    assert len(workers) >= 2 or process.poll() is not None
    process.kill()
    process.wait()
    while time.monotonic() < deadline and any(pid.exists() for pid in workers):  # they notice that they are alone
        time.sleep(0.1)
    assert not any(pid.exists() for pid in workers)


def children(parent: int) -> list[Path]:
    """Return the folders in /proc of the processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found += [stat.parent] if stat.read_text().rpartition(")")[2].split()[1] == str(parent) else []
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_a_killed_evaluation_in_processes_goes_on_to_the_same_bytes(words: list[str]) -> None:
    assert main([*words, "whole"]) == 0
    for rows in (1, 40):
        killed([*words, "cut"], rows)
    assert main([*words, "cut", "--executor", "processes"]) == 0
    for file in ("draws.csv", "summary.csv"):
        assert Path("cut", file).read_bytes() == Path("whole", file).read_bytes()
    left = [p.name.split("-")[1] for p in Path(tempfile.gettempdir()).glob("noiserobust-*")]
    assert all(Path("/proc", pid).exists() for pid in left)
