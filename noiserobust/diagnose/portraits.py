"""What figures need that no training records but its weights tell: landscapes and norms of filters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from noiserobust.config import PRECISIONS
from noiserobust.diagnose.files import DiagnoseConfig
from noiserobust.diagnose.folders import filter_files
from noiserobust.diagnose.surface import KIND, METRICS, LandscapeConfig, landscape_files
from noiserobust.errors import InvalidValueError, NoiseRobustError, OutputError, check_choice, check_integer
from noiserobust.evaluate.files import EvaluateConfig
from noiserobust.evaluate.forward import pick_device
from noiserobust.executors import Executor, FailedJobsError
from noiserobust.log import say
from noiserobust.report.gather import find
from noiserobust.report.papers.surroundings import is_random
from noiserobust.results.files import read_json, sha256
from noiserobust.results.filters import FILTERS_FILE
from noiserobust.results.landscapes import LANDSCAPE_FILE, SPLITS
from noiserobust.results.schema import MANIFEST_FILE
from noiserobust.results.trainings import TrainingRun

PLANE, LINE, NORMS = "plane", "line", "filters"
KINDS = (PLANE, LINE, NORMS)

_WEIGHTS, _BEST = "last.safetensors", "best.safetensors"
_LINE_POINTS = 51


@dataclass(frozen=True)
class PortraitConfig:
    """How landscapes for figures are made.

    Args:
        points: of a plane, along each direction, >= 2.
        examples: of each split, >= 1.
        precision: ``"fp32"`` or ``"bf16"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"``, ...
    """

    points: int = 25
    examples: int = 1000
    precision: str = "fp32"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_integer("points", self.points, minimum=2)
        check_integer("examples", self.examples, minimum=1)
        check_choice("precision", self.precision, PRECISIONS)
        pick_device(self.device)


def make_portraits(
    runs: Mapping[str, Sequence[TrainingRun]],
    folders: Sequence[Path],
    out: Path,
    kinds: Sequence[str],
    config: PortraitConfig,
    *,
    executor: Executor | None = None,
    progress: bool = False,
) -> tuple[list[Path], list[str]]:
    """Compute what is lacking for the last weights of each training; of several train seeds those of the first.

    Args:
        runs: trainings by what they are called.
        folders: searched for what is there already.
        out: folder; each portrait has one of its own in it, and finished parts of it are kept.
        kinds: some of :data:`KINDS`: planes of figure 7, lines of rwp-2, norms of rwp-4.
        config: of the landscapes.
        executor: where points are computed; by default here, one after the other.
        progress: whether to show progress, and what is computed.

    Returns:
        The folders of the portraits, those of an earlier call among them, and what could not be computed, a sentence
        each.

    Raises:
        OutputError: if ``out`` cannot be written to.
        FailedJobsError: if points could not be computed because workers died.
    """
    there = {portrait for folder in folders for portrait in _there(folder, out)}
    wanted: dict[Path, tuple[str, TrainingRun, str, str]] = {}
    for name, trainings in runs.items():
        run = next((training for training in trainings if (training.folder / _WEIGHTS).is_file()), None)
        if run is None:
            continue
        last, *best = [sha256(run.folder / file) for file in (_WEIGHTS, _BEST) if (run.folder / file).is_file()]
        for kind, split in _parts(kinds):
            if not {(digest, kind, split) for digest in (last, *best)} & there:
                wanted[out / _name(run, last, kind, split, config)] = name, run, kind, split
    lacking = [f for f, (_, _, kind, _) in wanted.items() if not _finished(f, "filters" if kind == NORMS else KIND)]
    failed: dict[Path, str] = {}
    for number, folder in enumerate(lacking, start=1):
        name, run, kind, split = wanted[folder]
        what = f"{name}, {kind} {split}".rstrip()
        if progress:
            say(f"{number} of {len(lacking)} to be computed: {what}")
        try:
            _make(run, kind, split, folder, config, executor, progress)
        except (OutputError, FailedJobsError):
            raise
        except NoiseRobustError as error:
            failed[folder] = f"{what}: {error}"
    return [folder for folder in wanted if folder not in failed], list(failed.values())


def _make(
    run: TrainingRun,
    kind: str,
    split: str,
    out: Path,
    config: PortraitConfig,
    executor: Executor | None,
    progress: bool,
) -> None:
    settings = run.configuration
    if not all(isinstance(settings.get(name), str) for name in ("model", "data")):
        raise InvalidValueError(f"Expected {run.folder.parent} to say model and data, but it does not")
    arguments = settings.get("model_args")
    given: dict[str, Any] = {
        "model": settings["model"],
        "weights": [run.folder / _WEIGHTS],
        "model_args": arguments if isinstance(arguments, Mapping) else {},
        "normalize": settings.get("normalize"),
    }
    if kind == NORMS:
        filter_files(DiagnoseConfig(**given), out)
        return
    shape = LandscapeConfig(points=config.points) if kind == PLANE else LandscapeConfig("random", 1, _LINE_POINTS)
    more: dict[str, Any] = {"examples": config.examples, "precision": config.precision, "device": config.device}
    evaluated = EvaluateConfig(
        data=settings["data"], split=split, noise="", levels=[], metrics=METRICS, **given, **more
    )
    landscape_files(evaluated, shape, out, executor=executor, progress=progress, pictures=False)


def _parts(kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each kind with the splits it is of; norms of filters are of none."""
    for kind in kinds:
        for split in ("",) if kind == NORMS else SPLITS:
            yield kind, split


def _name(run: TrainingRun, weights: str, kind: str, split: str, config: PortraitConfig) -> str:
    """Return the name of a folder, another one for other weights and for other landscapes of them."""
    how = [] if kind == NORMS else [config.examples, config.precision, *([config.points] if kind == PLANE else [])]
    digest = hashlib.sha256(json.dumps([weights, run.sha256, *how]).encode()).hexdigest()
    return quote("-".join(filter(None, (run.method, kind, split, digest[:8]))), safe="")


def _there(folder: Path, out: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the hash of the weights, kind and split of each finished portrait that was made by hand."""
    for path, kind in find(folder):
        if out.resolve() in path.resolve().parents or not _finished(path, kind):
            continue
        settings = _configuration(path)
        for entry in settings.get("weights") or []:
            if isinstance(entry, dict):
                yield str(entry.get("sha256")), _kind(kind, settings), str(settings.get("split") or "")


def _finished(folder: Path, kind: str) -> bool:
    name = {"landscape": LANDSCAPE_FILE, "filters": FILTERS_FILE}.get(kind)
    return name is not None and (folder / name).is_file()


def _configuration(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / MANIFEST_FILE)
    settings = manifest.get("configuration") if isinstance(manifest, dict) else None
    return settings if isinstance(settings, dict) else {}


def _kind(kind: str, settings: Mapping[str, Any]) -> str:
    """Return which portrait a diagnosis can stand for: none with noise on top or along other directions."""
    if kind == "filters":
        return NORMS
    if not is_random(settings):
        return ""
    directions = (settings.get("noise") or {}).get("directions") or []
    return {1: LINE, 2: PLANE}.get(len(directions), "")
