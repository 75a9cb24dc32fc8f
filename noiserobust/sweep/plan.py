"""What a sweep is to do: jobs, each the training of one train seed and its evaluations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from noiserobust.callables import source_sha256
from noiserobust.config import CALIBRATIONS, PRECISIONS, READS, SPLITS, TrainConfig
from noiserobust.errors import (
    InvalidValueError,
    MissingFileError,
    NoiseRobustError,
    check_choice,
    check_integer,
    check_number,
    unknown_name,
)
from noiserobust.results.files import sha256
from noiserobust.sweep.grid import Point, applied, expand, label_of
from noiserobust.yamlfile import read_settings

JOBS_FOLDER = "jobs"
TRAINING_FOLDER, EVALUATIONS_FOLDER = "train", "evaluate"
_KEYS = ("base", "grid", "seeds", "evaluate", "report", "name")
_CRITERIA = ("spec", "target", "drop", "baseline")

ParseTraining = Callable[[Mapping[str, Any]], TrainConfig]
ParseEvaluation = Callable[[Mapping[str, Any]], "EvaluationConfig"]


@dataclass(frozen=True)
class EvaluationConfig:
    """An evaluation of every network of a sweep; the settings are those of ``noiserobust evaluate``.

    Args:
        noise: gaussian, laplace, a device profile or FILE.yaml.
        levels: severities in the units of the noise, or clean.
        draws: chips for each network and level, >= 1, by default 10; with until at most so many.
        seed: root seed of the chips, >= 0.
        data: data set, by default that of the training.
        split: of the data set, test or train.
        examples: how many of its examples, by default all.
        metrics: accuracy, top5, loss or file.py:callable.
        precision: fp32 or bf16.
        calibrate: batchnorm, layer or column; by default nothing.
        calibration_examples: training examples that it takes, >= 2.
        reads: how often a device is read: once a pass, or each batch.
        until: half-width of the interval for the mean over chips at which no more are drawn.
    """

    noise: str
    levels: list[float | str]
    draws: int | None = None
    seed: int = 0
    data: str | None = None
    split: str = "test"
    examples: int | None = None
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])
    precision: str = "fp32"
    calibrate: str | None = None
    calibration_examples: int = 500
    reads: str = "pass"
    until: float | None = None

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("reads", self.reads, READS)
        if self.calibrate is not None:
            check_choice("calibrate", self.calibrate, CALIBRATIONS)
        for name, least in {"draws": 1, "examples": 1, "calibration_examples": 2}.items():
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum=least)
        check_integer("seed", self.seed, minimum=0)
        if self.until is not None:
            check_number("until", self.until, above=0)

    def as_dict(self) -> dict[str, Any]:
        """Return all settings, JSON-able."""
        return asdict(self)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the settings, and of the files that they name."""
        return _digest([self.as_dict(), _files(self.noise, self.data, *self.metrics)])


@dataclass(frozen=True)
class Job:
    """One training of one train seed, and its evaluations.

    Args:
        config: of the training.
        seed: train seed.
        point: what sets it apart from others of the sweep.
    """

    config: TrainConfig
    seed: int
    point: Point = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Name in result tables."""
        return self.config.method_label

    @cached_property
    def name(self) -> str:
        """The first 16 digits of the SHA-256 of configuration, train seed, and files that the configuration names."""
        noises = self.config.method.noise.name, self.config.selection_noise.name
        return _digest([self.config.as_dict(), self.seed, _files(self.config.model, self.config.data, *noises)])[:16]

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{self.method}, seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """Jobs by name, and what is done with each network.

    Args:
        name: of the folder for the joint results.
        jobs: in the order of the grid, train seeds of a point together.
        evaluations: by name.
        criteria: of the report: ``spec``, ``target``, ``drop``, ``baseline``.
    """

    name: str
    jobs: Mapping[str, Job]
    evaluations: Mapping[str, EvaluationConfig]
    criteria: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return everything that determines the results, JSON-able."""
        return {
            "jobs": {n: {"train": j.config.as_dict(), "train_seed": j.seed} for n, j in self.jobs.items()},
            "evaluations": {name: evaluation.as_dict() for name, evaluation in self.evaluations.items()},
        }


def check_unchanged(job: Job, sweep: Sweep) -> None:
    """Raise unless the files that a job names are those it is named after: with others it would be another job.

    Raises:
        InvalidValueError: if they have changed since the sweep was read.
        MissingFileError: if one is gone.
    """
    evaluations = sweep.evaluations.values()
    if replace(job).name != job.name or any(replace(e).sha256 != e.sha256 for e in evaluations):
        raise InvalidValueError(
            "Expected the files that the sweep names to stay as they were when it began, but they have changed "
            "meanwhile; begin it again, with `--retry`, for jobs with the new ones"
        )


def training_folder(out: Path, name: str) -> Path:
    """Return where the training of a job is."""
    return out / JOBS_FOLDER / name / TRAINING_FOLDER


def evaluation_folder(out: Path, name: str, evaluation: EvaluationConfig) -> Path:
    """Return where an evaluation of a job is; other settings of it have a place of their own."""
    return out / JOBS_FOLDER / name / EVALUATIONS_FOLDER / evaluation.sha256[:16]


def read_sweep(
    path: Path, parse_training: ParseTraining, parse_evaluation: ParseEvaluation, seeds: Sequence[int] | None = None
) -> Sweep:
    """Read the YAML file of a sweep.

    Args:
        path: with ``base`` (settings of a training), ``grid`` (see :func:`noiserobust.sweep.grid.expand`), ``seeds``,
            ``evaluate`` (settings, or several by name), and perhaps ``report`` and ``name``.
        parse_training: makes checked settings of a training.
        parse_evaluation: makes checked settings of an evaluation.
        seeds: train seeds in place of those of the file.

    Raises:
        NoiseRobustError: if the file does not exist or a setting is not valid.
    """
    content = read_settings(path)
    for key in content:
        if key not in _KEYS:
            raise unknown_name("key", key, _KEYS)
    base = _mapping(content.get("base", {}), "base", path)
    evaluations = {
        _folder_name(name, "evaluate", path): parse_evaluation(_mapping(settings, f"evaluate.{name}", path))
        for name, settings in _named(content.get("evaluate"), path).items()
    }
    found = _seeds(content.get("seeds", [0]) if seeds is None else list(seeds))
    jobs = make_jobs(base, expand(content.get("grid", {})), found, parse_training)
    name = _folder_name(content.get("name", path.stem), "name", path)
    return Sweep(name, jobs, evaluations, _criteria(content.get("report", {}), path))


def _folder_name(name: Any, what: str, path: Path) -> str:
    if not isinstance(name, str) or Path(name).name != name or name in (JOBS_FOLDER, "..", ""):
        raise InvalidValueError(f"Expected `{what}` of {path} to be the name of a folder, but got {name!r}")
    return name


def make_jobs(
    base: Mapping[str, Any], points: Sequence[Point], seeds: Sequence[int], parse_training: ParseTraining
) -> dict[str, Job]:
    """Return jobs by name; of points that mean the same training the first counts.

    Raises:
        InvalidValueError: if a point is not valid, or two trainings would have one name in tables.
    """
    trainings: dict[str, TrainConfig] = {}
    known: dict[str, str] = {}
    jobs: dict[str, Job] = {}
    for point in points:
        settings = applied(base, point)
        try:
            config = parse_training(settings)
        except InvalidValueError as error:
            raise InvalidValueError(
                f"{error} (in {label_of(point, '')!r} of `grid`)" if point else str(error)
            ) from None
        same = _digest({**config.as_dict(), "label": None})
        if same in known:
            continue
        if config.label is None:
            config = parse_training({**settings, "label": label_of(point, config.method.name)})
        label = known[same] = config.method_label
        if trainings.setdefault(label, config) is not config:
            raise InvalidValueError(
                f"Expected different trainings to have different names, but two are called {label!r}; give blocks of "
                "`grid` a `label`"
            )
        for seed in seeds:
            job = Job(config, seed, point)
            jobs[job.name] = job
    return jobs


def _mapping(value: Any, what: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidValueError(f"Expected `{what}` of {path} to be settings, name: value, but got {value!r}")
    return value


def _named(value: Any, path: Path) -> dict[str, Any]:
    """Return evaluations by name; one alone is called after its noise."""
    if not isinstance(value, dict) or not value:
        raise InvalidValueError(
            f"Expected `evaluate` of {path} to be settings of an evaluation, or several by name, but got {value!r}"
        )
    return {str(value["noise"]): value} if "noise" in value and not isinstance(value["noise"], dict) else value


def _seeds(value: Any) -> list[int]:
    seeds = value if isinstance(value, list) else [value]
    for seed in seeds:
        check_integer("seeds", seed, minimum=0)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InvalidValueError(f"Expected `seeds` to be distinct integers >= 0, but got {value!r}")
    return seeds


def _criteria(value: Any, path: Path) -> dict[str, Any]:
    for key in _mapping(value, "report", path):
        if key not in _CRITERIA:
            raise unknown_name("report", key, _CRITERIA)
    found = dict(value)
    if "target" in found:
        target = found["target"]
        found["target"] = [str(t) for t in (target if isinstance(target, list) else [target])]
    return found


def _files(*names: str | None) -> dict[str, str]:
    """Return the hashes of the files among names: what they say counts, not what they are called."""
    found = {}
    for name in names:
        if name is None:
            continue
        try:
            digest = _digest_of(name)
        except NoiseRobustError:
            raise
        except OSError as error:
            raise InvalidValueError(f"Expected to be able to read {name}, but got: {error.strerror}") from error
        if digest is not None:
            found[name] = digest
    return found


def _digest_of(name: str) -> str | None:
    digest, path = source_sha256(name), Path(name.removeprefix("npz:"))
    if digest is not None or (not name.startswith("npz:") and path.suffix not in (".yaml", ".yml")):
        return digest
    if not path.is_file():
        if name.startswith("npz:"):  # whoever reads it says what is missing
            return None
        raise MissingFileError(f"Expected a file {name}, but there is none")
    seen = path.stat()
    return _digest_at(path.resolve(), seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=64)
def _digest_at(path: Path, mtime: int, size: int) -> str:
    """Return the hash of a file, which all jobs may name, once for each time that it was changed."""
    return sha256(path)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
