"""A sweep that is killed again and again, and begun again with the same command, ends with the same tables.

    python experiments/sweep/kills.py --kills 10 --out DIR  # SIGKILL of the main process
    python experiments/sweep/kills.py --cluster --out DIR  # Ray: one of two nodes is killed

The first undisturbed sweep is in ``DIR/undisturbed``; it is kept, and done again only where it lacks.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd

CONFIG = Path(__file__).parent / "digits.yaml"
TABLES = ("draws.csv", "summary.csv", "jobs.csv")
Run = subprocess.Popen[bytes]


def begin(out: Path, *more: str) -> Run:
    words = [sys.executable, "-m", "noiserobust", "sweep", "--config", str(CONFIG), "--out", str(out)]
    words += ["--device", "cpu", *more]  # on a GPU sums are not the same each time
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finished(out: Path) -> int:
    """Return how many jobs say that they are finished."""
    logs = [path.read_text(errors="replace") for path in out.glob("jobs/*/log.txt")]
    return sum(log.endswith("finished\n") for log in logs)


def killed_again_and_again(out: Path, kills: int, rng: random.Random, more: list[str]) -> None:
    """Kill the main process at random moments, and let the last run come to its end."""
    done = 0
    while done < kills:
        run = begin(out, *more)
        with suppress(subprocess.TimeoutExpired):
            run.wait(rng.uniform(5, 20))
        if run.poll() is None:
            run.kill()
            done += 1
        run.wait()
        print(f"kill {done}: {finished(out)} jobs finished", flush=True)
        if run.returncode == 0:
            print("done before it could be killed again")
            return
    if begin(out, *more).wait():
        raise SystemExit(f"the last run failed; see {out.with_suffix('.log')}")


def one_of_two_nodes_killed(out: Path) -> None:
    """Start two nodes on this machine, kill the one without the head half way, and let the sweep come to its end."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        run = begin(out, "--executor", "ray", "--address", cluster.address)
        while run.poll() is None and finished(out) < 12:
            time.sleep(0.5)
        cluster.remove_node(second, allow_graceful=False)  # SIGKILL, and with it its workers
        print(f"killed the second node with {finished(out)} jobs finished", flush=True)
        if run.wait():
            raise SystemExit(f"the sweep failed; see {out.with_suffix('.log')}")
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    more = ["--executor", "processes", "--workers", "2"]
    undisturbed = settings.out / "undisturbed"
    if begin(undisturbed, *more).wait():
        raise SystemExit(f"the undisturbed sweep failed; see {undisturbed.with_suffix('.log')}")
    disturbed = settings.out / ("cluster" if settings.cluster else "killed")
    shutil.rmtree(disturbed, ignore_errors=True)
    disturbed.with_suffix(".log").unlink(missing_ok=True)
    if settings.cluster:
        one_of_two_nodes_killed(disturbed)
    else:
        killed_again_and_again(disturbed, settings.kills, random.Random(settings.seed), more)
    for table in TABLES:
        same = (disturbed / "digits" / table).read_bytes() == (undisturbed / "digits" / table).read_bytes()
        print(f"{table}: {'identical' if same else 'DIFFERENT'}")
    print(f"{len(pd.read_csv(disturbed / 'digits' / 'jobs.csv'))} jobs")


if __name__ == "__main__":
    main()
