"""Loss landscapes: the loss along one direction or over a plane, each point a draw of an evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from noiserobust.diagnose.between import between
from noiserobust.diagnose.directions import Direction, NoiseDirection, Plane, RandomDirection
from noiserobust.errors import InvalidValueError, check_choice, check_integer, check_number
from noiserobust.evaluate.api import describe, hashes_of, make_forward, model_sha256, run_into, subjects_of
from noiserobust.evaluate.files import EvaluateConfig, resolve_files
from noiserobust.evaluate.forward import Data, Forward
from noiserobust.evaluate.montecarlo import as_result, parse_part, run
from noiserobust.evaluate.plan import Level, Plan, Subject
from noiserobust.evaluate.settle import settle, settled
from noiserobust.executors import Executor, make_executor
from noiserobust.models.weights import fit_weights, read_weights
from noiserobust.noise.base import CLEAN, Noise
from noiserobust.noise.registry import build_noise
from noiserobust.report.figures.landscape import draw_landscape, draw_surfaces, planes_of
from noiserobust.report.figures.style import KINDS
from noiserobust.results.files import write_atomic
from noiserobust.results.landscapes import LANDSCAPE_DTYPES, LANDSCAPE_FILE, SPLITS

KIND = "landscape"
"""What the manifest of a folder with such results says it holds."""

ALONG = ("random", "noise", "checkpoint")
METRICS = ("loss", "accuracy")

_MOST, _FARTHEST = 1_000_000, 1e6


@dataclass(frozen=True)
class LandscapeConfig:
    """Which points.

    Args:
        along: ``"random"``: Gaussian directions of which each filter has the norm of the weights' filter; ``"noise"``:
            what noise draws 0 and 1 do to the weights; ``"checkpoint"``: from these weights to others, all parameters
            and running statistics, with a random direction across if there are two dimensions.
        dimensions: 1 or 2.
        points: along each direction, >= 2; with an odd number the weights themselves are one of them.
        extent: the directions are followed from minus to plus this multiple, > 0, by default 1; between checkpoints
            from this far before the first (at 0) to this far behind the second (at 1), >= 0, by default 0.5.
        direction_seed: root seed of random directions, >= 0; models of one architecture have the same.

    Raises:
        InvalidValueError: if an argument is out of range.
    """

    along: str = "random"
    dimensions: int = 2
    points: int = 51
    extent: float | None = None
    direction_seed: int = 0

    def __post_init__(self) -> None:
        check_choice("along", self.along, ALONG)
        if check_integer("dimensions", self.dimensions, minimum=1) > 2:
            raise InvalidValueError(f"Expected `dimensions` to be 1 or 2, but got {self.dimensions}")
        check_integer("points", self.points, minimum=2)
        if self.points**self.dimensions > _MOST:
            raise InvalidValueError(f"Expected `points` to make no more than {_MOST:,} points, but got {self.points:,}")
        check_integer("direction_seed", self.direction_seed, minimum=0)
        if self.extent is not None:
            bound = {"minimum": 0.0} if self.along == "checkpoint" else {"above": 0.0}
            if check_number("extent", self.extent, **bound) > _FARTHEST:
                raise InvalidValueError(f"Expected `extent` to be at most {_FARTHEST:g}, but got {self.extent:g}")

    @property
    def axis(self) -> list[float]:
        """The multiples of a random direction or of a noise draw; the middle one of an odd number is 0 exactly."""
        extent = 1.0 if self.extent is None or self.along == "checkpoint" else self.extent
        return [extent * (2 * i / (self.points - 1) - 1) for i in range(self.points)]

    @property
    def line(self) -> list[float]:
        """The places between checkpoints."""
        extent = 0.5 if self.extent is None else self.extent
        return [-extent + (1 + 2 * extent) * i / (self.points - 1) for i in range(self.points)]


def landscape(
    models: nn.Module | Sequence[nn.Module],
    data: Data,
    *,
    along: str | Noise | nn.Module = "random",
    dimensions: int = 2,
    points: int = 51,
    extent: float | None = None,
    direction_seed: int = 0,
    noise: Noise | None = None,
    draws: int = 10,
    seed: int = 0,
    metrics: str | Sequence[Any] = METRICS,
    split: str = "test",
    precision: str = "fp32",
    device: str = "auto",
    method: str = "model",
    train_seeds: Sequence[int] | None = None,
    normalize: str = "auto",
    batch_size: int | None = None,
    executor: str | Executor = "serial",
    out: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure the loss along one direction, or over a plane, around trained weights.

    Args:
        models: one model, or several trainings of one method (one a train seed); left unchanged.
        data: as for :func:`noiserobust.evaluate`.
        along: ``"random"``, a noise (at its level), or the model at the other end of a line; see
            :class:`LandscapeConfig`.
        dimensions: 1 or 2.
        points: along each direction, >= 2.
        extent: how far the directions are followed; see :class:`LandscapeConfig`.
        direction_seed: root seed of random directions, >= 0.
        noise: falls on the weights of each point, at its level: the landscape is that of the mean over chips; by
            default without noise.
        draws: chips for each point with ``noise``, >= 1; the same for all points.
        seed: root seed of the chips, >= 0.
        metrics: as for :func:`noiserobust.evaluate`.
        split: what the table says the data are, ``"test"`` or ``"train"``.
        precision: ``"fp32"`` or ``"bf16"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"``, ...
        method: name of the method in the table.
        train_seeds: the train seed of each model, by default 0, 1, ...
        normalize: as for :func:`noiserobust.evaluate`.
        batch_size: examples a pass through the network, >= 1.
        executor: where points are computed; the results are the same.
        out: folder for the table, pictures and ``manifest.json``; finished points found there are kept.
        progress: whether to show progress.

    Returns:
        One row a (model, metric, point): :data:`noiserobust.results.landscapes.LANDSCAPE_DTYPES`.

    Raises:
        InvalidValueError: if an argument is not valid, or model, data and noise do not fit together.
        OutputError: if ``out`` cannot be written to.
        FailedJobsError: if points could not be computed because workers died, after all others are.
    """
    subjects = subjects_of(models, method, train_seeds)
    check_choice("split", split, SPLITS)
    if noise is not None and not isinstance(noise, Noise):
        raise InvalidValueError(f"Expected `noise` to be a noise object, but got {noise!r}")
    where = executor if isinstance(executor, Executor) else make_executor(executor)
    kind = along if isinstance(along, str) else "noise" if isinstance(along, Noise) else "checkpoint"
    config = LandscapeConfig(kind, dimensions, points, extent, direction_seed)
    if isinstance(along, str) and along != "random":
        raise InvalidValueError(f"Expected `along` to be 'random', a noise or a model, but got {along!r}")
    forward = make_forward(data, normalize, device, precision, batch_size, metrics)
    direction = along if isinstance(along, Noise) else None
    end = along if isinstance(along, nn.Module) else None
    job = _Job.of(config, subjects, forward, direction, end, noise, draws, seed, split)
    if out is None:
        fast = settled(forward, settle(job.subjects[0], forward, job.plan))
        return job.table(as_result(run(job.subjects, fast, job.plan, progress=progress, executor=where)).draws)
    more: dict[str, Any] = {"weights": job.entries(hashes_of(subjects))}
    if end is not None:
        more["to"] = hashes_of(subjects_of(end))[0]["sha256"]
    return job.into(Path(out), subjects[0].load(), more, where, progress)


def landscape_files(
    config: EvaluateConfig,
    shape: LandscapeConfig,
    out: Path,
    *,
    to: Path | None = None,
    noisy: bool = False,
    download: bool = False,
    progress: bool = False,
    shard: str | None = None,
    executor: Executor | None = None,
    pictures: bool = True,
) -> pd.DataFrame:
    """Do what :func:`landscape` does with weights files, into a folder.

    Args:
        config: what, on what; its noise, at its one level, is that of ``noisy`` and of ``shape.along`` noise.
        shape: which points.
        out: folder; finished points of the same configuration are kept.
        to: weights at the other end of the line, with ``shape.along`` checkpoint.
        noisy: whether noise falls on the weights of each point.
        download: whether to fetch data of a known data set that are not there.
        progress: whether to show progress.
        shard: which part of the points is computed, such as ``2/8``; by default all.
        executor: where points are computed; by default here, one after the other.
        pictures: whether they are drawn too.

    Returns:
        The table; of a part, the points that are known.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    part = parse_part(shard)
    wanted = noisy or shape.along == "noise"
    if wanted and not (config.noise and len(config.levels) == 1):
        raise InvalidValueError("Expected a noise and its one level with `noisy` and along noise, but got less or more")
    if not wanted and (config.noise or config.levels):
        raise InvalidValueError(
            f"Expected a noise with `noisy` or along noise only, but got {config.noise or 'a level'}"
        )
    if not noisy and config.draws is not None:
        raise InvalidValueError(f"Expected `draws` with `noisy` only, but got {config.draws}")
    if (to is not None) != (shape.along == "checkpoint"):
        got = f"it along {shape.along}" if to is not None else "none"
        raise InvalidValueError(f"Expected `to`, the weights at the other end, along checkpoint only, but got {got}")
    noise = None
    if wanted:
        noise = build_noise(config.noise)
        noise = noise.at(noise.parse_level(config.levels[0]))
    subjects, forward, _, told = resolve_files(
        replace(config, noise="gaussian", levels=[CLEAN], draws=None), download=download
    )
    model = subjects[0].load()
    end = None
    if to is not None:
        weights = read_weights(to)
        end = copy.deepcopy(model)
        fit_weights(end, weights)
    on_top = noise if noisy else None
    draws = 10 if config.draws is None else config.draws
    job = _Job.of(shape, subjects, forward, noise, end, on_top, draws, config.seed, config.split)
    more = {name: told[name] for name in ("model", "model_args", "model_code_sha256", "data")}
    more["weights"] = job.entries(told["weights"])
    if to is not None:
        more["to"] = {"file": to.as_posix(), "sha256": weights.sha256}
    return job.into(out, model, more, executor, progress, part, pictures)


@dataclass(frozen=True)
class _Job:
    """A landscape as an evaluation: which subjects at which levels, and where each is in the picture."""

    subjects: list[Subject]
    forward: Forward
    plan: Plan
    split: str
    places: Mapping[str, tuple[str, float]]
    """Of subjects between checkpoints: what the weights are called, and where on the line they are."""

    @classmethod
    def of(
        cls,
        config: LandscapeConfig,
        subjects: list[Subject],
        forward: Forward,
        direction: Noise | None,
        end: nn.Module | None,
        noise: Noise | None,
        draws: int,
        seed: int,
        split: str,
    ) -> _Job:
        places: dict[str, tuple[str, float]] = {}
        number = config.dimensions
        if end is not None:
            if len(subjects) > 1:
                raise InvalidValueError(f"Expected one model at the start of the line, but got {len(subjects)}")
            start = subjects[0]
            if model_sha256(start.load()) == model_sha256(end):
                raise InvalidValueError("Expected other weights at the other end of the line, but they are the same")
            subjects = between(start, end, config.line)
            places = {s.weights: (start.weights, x) for s, x in zip(subjects, config.line, strict=True)}
            number -= 1
        directions: list[Direction] = [RandomDirection(config.direction_seed, i) for i in range(number)]
        if config.along == "noise":
            if direction is None or direction.level == 0:
                raise InvalidValueError("Expected a noise with a level that is not 0 along noise, but got none")
            directions = [NoiseDirection(direction, draw) for draw in range(number)]
        check_integer("draws", draws, minimum=1)
        if directions:
            plane = Plane(directions, [config.axis] * number, noise)
            levels = [Level(float(p), plane.at(p)) for p in range(1, plane.size + 1)]
            plan = Plan(plane, levels, draws if noise else 1, seed)
        else:  # the line alone
            plane = Plane([], [], noise)
            plan = Plan(plane, [Level(1.0, plane.at(1)) if noise else Level(0.0, None)], draws, seed)
        return cls(subjects, forward, plan, split, places)

    def entries(self, weights: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return an entry of the configuration for each subject."""
        if not self.places:
            return [dict(entry) for entry in weights]
        return [{**weights[0], "place": place} for _, place in self.places.values()]

    def into(
        self,
        out: Path,
        model: nn.Module,
        more: dict[str, Any],
        executor: Executor | None,
        progress: bool,
        part: tuple[int, int] = (1, 1),
        pictures: bool = True,
    ) -> pd.DataFrame:
        """Compute into a folder; the table and the pictures are written when all points are known."""
        configuration = {**describe(self.plan, self.forward, model, more), "split": self.split}
        found = run_into(
            out,
            self.subjects,
            self.forward,
            self.plan,
            configuration,
            progress=progress,
            part=part,
            executor=executor,
            kind=KIND,
        )
        table = self.table(found.draws)
        if len(found.draws) == len(self.subjects) * len(self.plan.tasks()) * len(self.forward.metrics):
            for name, files in _pictures(table).items() if pictures else ():
                for kind, content in files.items():
                    write_atomic(out / f"{name}.{kind}", content)
            write_atomic(out / LANDSCAPE_FILE, table.to_csv(index=False))
        return table

    def table(self, draws: pd.DataFrame) -> pd.DataFrame:
        """Return the mean over draws at each point, with the columns of ``landscape.csv``."""
        keys = ["method", "train_seed", "weights", "metric", "level"]
        means = draws.groupby(keys, sort=False)["value"].agg(value="mean", n_draws="count").reset_index()
        plane = self.plan.noise
        assert isinstance(plane, Plane)
        points = [[*self._line(w), *(plane.coordinates(level) if level else ())] for w, level in _pairs(means)]
        means["x"] = [point[0] for point in points]
        means["y"] = [point[1] if len(point) > 1 else float("nan") for point in points]
        if self.places:
            means["weights"] = [self.places[w][0] for w in means["weights"]]
        means = means.assign(split=self.split).sort_values(["method", "train_seed", "metric", "y", "x"], kind="stable")
        table: pd.DataFrame = means[list(LANDSCAPE_DTYPES)].astype(LANDSCAPE_DTYPES).reset_index(drop=True)
        return table

    def _line(self, weights: str) -> list[float]:
        return [self.places[weights][1]] if self.places else []


def _pictures(table: pd.DataFrame) -> dict[str, Mapping[str, bytes]]:
    """Return the landscape's pictures by name and kind of file."""
    metrics = list(dict.fromkeys(table["metric"]))
    metric = "loss" if "loss" in metrics else str(metrics[0])
    pictures = {"landscape": draw_landscape(table, kinds=KINDS, metric=metric)}
    if planes := planes_of(table, metric):
        pictures["landscape-3d"] = draw_surfaces(planes, kinds=KINDS, metric=metric)
    return pictures


def _pairs(means: pd.DataFrame) -> Iterable[tuple[str, float]]:
    return zip(means["weights"], means["level"], strict=True)
