"""``noiserobust evaluate``: weights, data and noise by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from noiserobust.callables import source_sha256
from noiserobust.data.arrays import ArrayData
from noiserobust.data.registry import load_data
from noiserobust.errors import InvalidValueError, check_choice, check_integer
from noiserobust.evaluate.api import describe, draws_of, make_forward, run_into
from noiserobust.evaluate.calibration import KINDS, Calibration
from noiserobust.evaluate.forward import Forward
from noiserobust.evaluate.montecarlo import EvaluationResult, parse_part
from noiserobust.evaluate.plan import Plan, Subject, parse_levels
from noiserobust.evaluate.rehearsal import Rehearsal, rehearse
from noiserobust.executors import Executor
from noiserobust.models.registry import build_model
from noiserobust.models.weights import Weights, fit_weights, read_weights
from noiserobust.noise.registry import build_noise
from noiserobust.rng import Stream

Loaded = ArrayData | DataLoader[Any]

TEST = "test"
"""The split that is evaluated unless another is asked for."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What the command line says.

    Args:
        model: registered name, package.module:callable or path/to/file.py:callable.
        weights: weights files; each is one train seed.
        data: name of the data set.
        noise: name of the noise, of a profile, or a .yaml file.
        levels: severities in the units of the noise, or ``clean``.
        draws: chips for each file and level, by default 10; with ``until`` at most so many, by default 10,000.
        seed: root seed of the chips.
        model_args: keyword arguments of the model.
        normalize: by default what the weights were trained with, or what the data set has.
        method: name of the method in the results; by default what the weights file says, else ``model``.
        device: where to compute.
        precision: ``fp32`` or ``bf16``.
        batch_size: examples a pass through the network.
        calibrate: what is done to each chip first: ``batchnorm``, ``layer`` or ``column``; by default nothing.
        reads: how often a device is read: once a ``pass`` over the data, or anew for each ``batch``.
        analog: whether layers are simulated as full analog tiles.
        metrics: what is measured: ``accuracy``, ``top5``, ``loss`` or file.py:callable.
        examples: how many examples of the split are used, the first of a fixed random order; by default all.
        calibration_examples: how many training examples it takes, >= 2.
        until: half-width of the 95% interval for the mean over chips at which no more are drawn.
        split: of the data set, ``test`` or ``train``.
        root: folder relative to which results name the weights; by default they are named as given.
    """

    model: str
    weights: Sequence[Path]
    data: str
    noise: str
    levels: Sequence[float | str]
    draws: int | None = None
    seed: int = 0
    model_args: Mapping[str, Any] = field(default_factory=dict)
    normalize: str | None = None
    method: str | None = None
    device: str = "auto"
    precision: str = "fp32"
    batch_size: int | None = None
    calibrate: str | None = None
    calibration_examples: int = 500
    reads: str = "pass"
    analog: bool = False
    examples: int | None = None
    metrics: Sequence[str] = ("accuracy",)
    until: float | None = None
    split: str = TEST
    root: Path | None = None


def evaluate_files(
    config: EvaluateConfig,
    out: Path,
    *,
    download: bool = False,
    progress: bool = False,
    shard: str | None = None,
    executor: Executor | None = None,
) -> EvaluationResult:
    """Evaluate weights files into a folder.

    Args:
        config: what, on what, under which noise.
        out: folder; finished draws of the same configuration are kept.
        download: whether to fetch data of a known data set that are not there.
        progress: whether to show progress.
        shard: which part of the draws is computed, such as ``2/8``; by default all.
        executor: where draws are computed; by default here, one after the other.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    part = parse_part(shard)
    return run_into(
        out, *resolve_files(config, shard, download=download), progress=progress, part=part, executor=executor
    )


def rehearse_files(config: EvaluateConfig, out: Path, *, download: bool = False, shard: str | None = None) -> Rehearsal:
    """Return what :func:`evaluate_files` would do and how long it would take; nothing is written.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    part = parse_part(shard)
    return rehearse(out, *resolve_files(config, shard, download=download), part)


def resolve_files(
    config: EvaluateConfig, shard: str | None = None, *, download: bool = False
) -> tuple[list[Subject], Forward, Plan, dict[str, Any]]:
    """Return weights, data, plan and everything that determines the results; nothing is written.

    Args:
        config: what, on what, under which noise.
        shard: which part of the draws will be computed; by default all.
        download: whether to fetch data of a known data set that are not there.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    if config.until is not None and shard is not None:
        raise InvalidValueError(
            "Expected no `shard` with `until`, but got one: which draws are needed is only known once others are done; "
            "an executor shares them out"
        )
    noise = build_noise(config.noise)
    levels = parse_levels(noise, list(config.levels))
    calibration = _calibration(config, download=download)
    extra: dict[str, Any] = {"calibration": calibration, "reads": config.reads, "analog": config.analog}
    plan = Plan(noise, levels, draws_of(config.draws, config.until), config.seed, **extra, until=config.until)
    found = resolve_weights(
        config.model, config.weights, config.model_args, config.method, config.normalize, config.root
    )
    data, said = resolve_data(config.data, config.split, config.examples, config.seed, download=download)
    forward = make_forward(data, found.normalize, config.device, config.precision, config.batch_size, config.metrics)
    return found.subjects, forward, plan, describe(plan, forward, found.model, {**found.described, "data": said})


@dataclass(frozen=True)
class NamedWeights:
    """Weights files of one architecture.

    Args:
        model: built, with the weights of one of the files.
        subjects: one a file; they share the model.
        normalize: what was asked for, else what the weights were trained with, else ``auto``.
        described: what a configuration says of them, JSON-able.
    """

    model: nn.Module
    subjects: list[Subject]
    normalize: str
    described: dict[str, Any]


def resolve_weights(
    model: str,
    weights: Sequence[Path],
    model_args: Mapping[str, Any] | None = None,
    method: str | None = None,
    normalize: str | None = None,
    root: Path | None = None,
) -> NamedWeights:
    """Return weights files with the model they belong to.

    Args:
        model: as in :class:`EvaluateConfig`.
        weights: as in :class:`EvaluateConfig`.
        model_args: as in :class:`EvaluateConfig`.
        method: as in :class:`EvaluateConfig`.
        normalize: as in :class:`EvaluateConfig`.
        root: as in :class:`EvaluateConfig`.

    Raises:
        NoiseRobustError: if anything named does not exist, is not valid or does not fit together.
    """
    network, files = build_model(model, model_args or {}), []
    for path in weights:  # all are checked before the first is evaluated, and no two are in memory at once
        file = read_weights(path)
        fit_weights(network, file)
        files.append(replace(file, state={}))
    subjects = _subjects(files, network, method, root)
    entries = [
        {"file": s.weights, "sha256": w.sha256, "method": s.method, "train_seed": s.train_seed, **_trained(w.metadata)}
        for s, w in zip(subjects, files, strict=True)
    ]
    described = {
        "model": model,
        "model_args": dict(model_args or {}),
        "model_code_sha256": source_sha256(model),
        "weights": entries,
    }
    return NamedWeights(network, subjects, normalize or _trained_normalize(files) or "auto", described)


def resolve_data(
    name: str, split: str = TEST, examples: int | None = None, seed: int = 0, *, download: bool = False
) -> tuple[Loaded, dict[str, Any]]:
    """Return data by name, and what a configuration says of them beside their hash.

    Args:
        name: of the data set.
        split: ``test`` or ``train``.
        examples: how many are used, the first of a random order; by default all.
        seed: root seed of that order.
        download: whether to fetch data of a known data set that are not there.

    Raises:
        NoiseRobustError: if they do not exist or are not valid.
    """
    data = load_data(name, split, download=download)
    if examples is not None:
        data = _chosen(data, check_integer("examples", examples, minimum=1), "examples", seed)
    # The test split is not named, so that folders of versions that knew no other are continued.
    return data, {"name": name, **({} if split == TEST else {"split": split})}


def _calibration(config: EvaluateConfig, *, download: bool) -> Calibration | None:
    if config.calibrate is None:
        return None
    check_choice("calibrate", config.calibrate, KINDS)
    number = check_integer("calibration-examples", config.calibration_examples, minimum=2)
    data = load_data(config.data, "train", download=download)
    return Calibration(config.calibrate, _chosen(data, number, "calibrate", config.seed).x)


def _chosen(data: Loaded, number: int, setting: str, seed: int) -> ArrayData:
    if not isinstance(data, ArrayData):
        raise InvalidValueError(f"Expected data of arrays for `{setting}`, but got a DataLoader")
    return data.subset(torch.from_numpy(Stream(seed, setting).permutation(len(data))[:number]))


def _subjects(
    files: Sequence[Weights], model: nn.Module, method: str | None, root: Path | None = None
) -> list[Subject]:
    """Return one subject a file; files that do not say their train seed are numbered in the order given."""
    subjects: list[Subject] = []
    taken: set[tuple[str, int]] = set()
    trainings: dict[str, str | None] = {}
    for number, file in enumerate(files):
        name = method or file.metadata.get("method") or "model"
        text = file.metadata.get("train_seed", "")
        seed = int(text) if text.isdecimal() else number
        if (name, seed) in taken:
            raise InvalidValueError(
                f"Expected `weights` to be of different train seeds, but {file.path} is a second one "
                f"of method {name!r} with train seed {seed}"
            )
        taken.add((name, seed))
        training = file.metadata.get("training_sha256")
        if trainings.setdefault(name, training) != training:
            raise InvalidValueError(
                f"Expected the weights of method {name!r} to come from one configuration, but {file.path} was trained "
                "with another than the files before it; train them with labels of their own or evaluate them apart"
            )

        label = (file.path if root is None else file.path.relative_to(root)).as_posix()
        subjects.append(Subject(name, seed, label, _Load(model, file), own=True))
    return subjects


class _Load:
    """Puts the weights of a file into a model, which all files share; between uses they are not kept.

    Args:
        model: of the architecture.
        file: read before; it has to stay as it is.
    """

    def __init__(self, model: nn.Module, file: Weights) -> None:
        self.model = model
        self.path, self.sha256 = file.path, file.sha256
        self.weights: Weights | None = None

    def __call__(self) -> nn.Module:
        fit_weights(self.model, self.weights or self._read())
        return self.model

    def __getstate__(self) -> dict[str, Any]:
        # Another process may be on a machine without the file.
        return {**self.__dict__, "weights": self.weights or self._read()}

    def _read(self) -> Weights:
        weights = read_weights(self.path)
        if weights.sha256 != self.sha256:
            raise InvalidValueError(
                f"Expected weights {self.path} to stay as they were, but they have changed meanwhile"
            )
        return weights


def _trained(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what a file says of its training, as an entry of the manifest; nothing if it says nothing."""
    if "trained_method" not in metadata:
        return {}  # so that results of such files can be continued
    said: dict[str, Any] = {"method": metadata["trained_method"]}
    if "trained_noise" in metadata:
        said["noise"] = metadata["trained_noise"]
        with suppress(ValueError):  # anybody can write a weights file
            level = float(metadata.get("trained_level", "nan"))
            said |= {"level": level} if math.isfinite(level) else {}
    if "training_sha256" in metadata:
        said["training_sha256"] = metadata["training_sha256"]
    return {"trained": said}


def _trained_normalize(files: Sequence[Weights]) -> str | None:
    found = {file.metadata["normalize"] for file in files if "normalize" in file.metadata}
    if len(found) > 1:
        raise InvalidValueError(
            f"Expected `weights` to be trained with one normalisation, but got {' and '.join(sorted(found))}; "
            "give `--normalize` or evaluate them apart"
        )
    return found.pop() if found else None
