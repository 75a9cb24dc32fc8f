"""The results of a sweep's jobs as few folders that ``noiserobust report`` reads, to be kept: no weights.

    python experiments/record.py runs/cifar experiments/incorruptible/small/results --config experiments/.../table1.yaml

Evaluations of one name and network become one, ``RESULTS/evaluate/<name>``, as a single ``noiserobust evaluate`` of all
weights would have left it; trainings of one configuration become one with all train seeds,
``RESULTS/train/<name>``. What is there of other jobs stays.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noiserobust.cli.sweep import read
from noiserobust.errors import InvalidValueError
from noiserobust.results.files import read_json
from noiserobust.results.schema import MANIFEST_FILE
from noiserobust.results.store import DrawStore, Row, as_frame, read_rows
from noiserobust.results.summary import summarize
from noiserobust.results.trainings import METRICS_FILE
from noiserobust.sweep.plan import Job, Sweep, evaluation_folder, training_folder
from noiserobust.sweep.state import FINISHED, state_of

EVALUATIONS, TRAININGS = "evaluate", "train"


@dataclass
class Whole:
    """Evaluations of one name and one network.

    Args:
        manifest: of the first of them.
        weights: entries of the manifests, by file.
        rows: draws by file of weights, in the order of each.
    """

    manifest: dict[str, Any]
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, folder: Path) -> None:
        """Add an evaluation; of weights that are there already what is known stays.

        Raises:
            InvalidValueError: if a file had other weights.
        """
        for entry in read_json(folder / MANIFEST_FILE)["configuration"]["weights"]:
            file = entry["file"]
            if file not in self.weights:
                self.weights[file] = entry
                self.rows[file] = [row for row in read_rows(folder) if row["weights"] == file]
            elif self.weights[file]["sha256"] != entry["sha256"]:
                raise InvalidValueError(f"Expected {file} of {folder} to have the weights recorded, but it has others")

    def write(self, out: Path) -> None:
        """Write all of them in place of what is there, methods together and train seeds ascending."""
        methods = list(dict.fromkeys(entry["method"] for entry in self.weights.values()))
        order = sorted(self.weights.values(), key=lambda e: (methods.index(e["method"]), e["train_seed"]))
        configuration = {**self.manifest["configuration"], "weights": order}
        fresh, old = (out.with_name(f".{out.name}.{word}") for word in ("new", "old"))
        shutil.rmtree(fresh, ignore_errors=True)
        with DrawStore(fresh, configuration, self.manifest["environment"], self.manifest["kind"]) as store:
            if "settled" in self.manifest:
                store.remember("settled", lambda: self.manifest["settled"])
            for entry in order:
                for row in self.rows[entry["file"]]:
                    store.append(row)
            store.finish(summarize(as_frame(store.rows)))
        for lock in fresh.glob(".lock"):
            lock.unlink()
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        fresh.rename(out)
        shutil.rmtree(old, ignore_errors=True)


def place_of(name: str, configuration: dict[str, Any]) -> str:
    """Return where evaluations are: under their name in the sweep, and what the network is built with."""
    return "-".join([name, *(f"{k}{v}" for k, v in sorted(configuration.get("model_args", {}).items()))])


def record_evaluations(folders: Iterable[tuple[str, Path]], results: Path) -> None:
    """Join evaluations, each with its name, and those in ``results``.

    Raises:
        InvalidValueError: if two of one name were made otherwise.
    """
    wholes: dict[str, Whole] = {}
    found = [(place_of(name, _configuration(folder)), folder) for name, folder in folders]
    kept = [(place, results / EVALUATIONS / place) for place in dict.fromkeys(place for place, _ in found)]
    for place, folder in [*(k for k in kept if (k[1] / MANIFEST_FILE).is_file()), *found]:
        whole = wholes.setdefault(place, Whole(read_json(folder / MANIFEST_FILE)))
        known, new = ({**c, "weights": None} for c in (whole.manifest["configuration"], _configuration(folder)))
        if known != new:
            differing = [key for key in known | new if known.get(key) != new.get(key)]
            raise InvalidValueError(f"Expected {folder} to be made as the other {place}, but it differs in {differing}")
        whole.add(folder)
    for place, whole in wholes.items():
        (results / EVALUATIONS).mkdir(parents=True, exist_ok=True)
        whole.write(results / EVALUATIONS / place)


def _configuration(folder: Path) -> dict[str, Any]:
    configuration: dict[str, Any] = read_json(folder / MANIFEST_FILE)["configuration"]
    return configuration


def record_training(folder: Path, job: Job, results: Path) -> None:
    """Copy configuration and epochs of a training beside those of other train seeds."""
    out = results / TRAININGS / re.sub(r"[^a-z0-9.+-]+", "-", job.method.lower()).strip("-")
    manifest, metrics = read_json(folder / MANIFEST_FILE), folder / f"seed{job.seed}" / METRICS_FILE
    if (out / MANIFEST_FILE).is_file():
        known = read_json(out / MANIFEST_FILE)["configuration"]
        if known != manifest["configuration"]:
            raise InvalidValueError(f"Expected {out} to be trained as {folder}, but it was not")
    (out / f"seed{job.seed}").mkdir(parents=True, exist_ok=True)
    if not (out / MANIFEST_FILE).is_file():
        (out / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n")
    shutil.copyfile(metrics, out / f"seed{job.seed}" / METRICS_FILE)


def record(sweep: Sweep, out: Path, results: Path, names: Sequence[str] | None = None) -> int:
    """Record the finished jobs of a sweep, and some or all evaluations of each; return how many jobs there are."""
    jobs = [job for job in sweep.jobs.values() if state_of(out, job, sweep).word == FINISHED]
    evaluations = {name: e for name, e in sweep.evaluations.items() if names is None or name in names}
    folders = [(name, evaluation_folder(out, job.name, e)) for name, e in evaluations.items() for job in jobs]
    record_evaluations(folders, results)
    for job in jobs:
        record_training(training_folder(out, job.name), job, results)
    return len(jobs)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Record the results of sweeps.")
    parser.add_argument("out", type=Path, help="folder of the sweeps")
    parser.add_argument("results", type=Path, help="folder for what is recorded")
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="files of sweeps")
    parser.add_argument("--seeds", type=int, nargs="+", help="train seeds, instead of those of the files")
    parser.add_argument("--evaluations", nargs="+", help="names of those to record, by default all")
    args = parser.parse_args(arguments)
    for path in args.config:
        sweep = read(path, args.seeds)
        print(f"{path}: {record(sweep, args.out, args.results, args.evaluations)} of {len(sweep.jobs)} jobs")


if __name__ == "__main__":
    main()
