"""``noiserobust train``: several train seeds of one configuration into one folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from noiserobust.callables import source_sha256
from noiserobust.config import MethodConfig, TrainConfig
from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import Normalize, parse_normalize
from noiserobust.data.registry import default_normalize, load_data
from noiserobust.endings import heed
from noiserobust.errors import InvalidValueError, MissingFileError, check_integer, check_number
from noiserobust.models.registry import build_model
from noiserobust.models.scores import class_scores, outputs
from noiserobust.models.weights import write_weights
from noiserobust.noise.registry import noise_from_config
from noiserobust.progress import Bar
from noiserobust.results.files import make_folder, sha256, write_atomic, write_errors
from noiserobust.results.manifest import environment
from noiserobust.results.schema import MANIFEST_FILE
from noiserobust.results.store import ResultFolder
from noiserobust.results.trainings import configuration_sha256
from noiserobust.rng import Stream
from noiserobust.train.checkpoint import CHECKPOINT_FILE, not_a_checkpoint, read_checkpoint, write_checkpoint
from noiserobust.train.distributed import Ranks
from noiserobust.train.progress import Epoch
from noiserobust.train.recipe import build_method, build_schedule
from noiserobust.train.trainer import Score, Trainer

BEST_FILE, LAST_FILE, METRICS_FILE = "best.safetensors", "last.safetensors", "metrics.csv"

MakeScore = Callable[[ArrayData, Normalize, TrainConfig, int, torch.device], Score]
"""Makes the measure of held-out accuracy for one train seed; the evaluator has it, the trainer does not import it."""


_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Looks on while a training goes on; :mod:`noiserobust.diagnose.recorder` has one."""

    def start(self) -> None:
        """Take notice of the first step to come."""

    def step(self) -> None:
        """Take notice of a step."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on."""


MakeRecorder = Callable[[Trainer, ArrayData | None, Path], Recorder]
"""Makes what looks on, given the training, held-out data, and the folder of the train seed."""

AfterEpoch = Callable[[int, Sequence[Mapping[str, Any]]], object]
"""Called with train seed and rows of ``metrics.csv`` after each epoch; what it raises ends the training there."""


def train_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    out: Path,
    *,
    make_score: MakeScore,
    device: torch.device,
    make_recorder: MakeRecorder | None = None,
    after_epoch: AfterEpoch | None = None,
    ranks: Ranks | None = None,
    resume: bool = False,
    download: bool = False,
    checkpoint_seconds: float = 300.0,
    progress: bool = False,
) -> list[Path]:
    """Train one model a train seed into ``out/seed<N>/``: ``best.safetensors``, ``last.safetensors``, ``metrics.csv``.

    Seeds that are finished in an ``out`` of the same configuration are kept, an unfinished one goes on from its last
    checkpoint: on a CPU in fp32 to the very weights it would have had. A seed has its ``best.safetensors`` when its
    training is over, not before.

    Args:
        config: the training.
        seeds: train seeds, distinct integers >= 0.
        out: folder.
        make_score: makes the measure by which the best epoch is selected.
        device: where to compute.
        make_recorder: makes what records the loss around the weights; needed if ``config.record`` asks for it.
        after_epoch: called after each epoch, when its checkpoint is written: a training it ends goes on from there.
        ranks: which of several processes this is; the first writes, all need to see the same ``out``.
        resume: whether ``out`` has to hold a training of this configuration already.
        download: whether to fetch data of a known data set that are not there.
        checkpoint_seconds: a checkpoint is written after each epoch and, by a single process, when the last one is at
            least this old, >= 0.
        progress: whether to show a progress bar on a terminal.

    Returns:
        The files of the best weights, in the order of ``seeds``.

    Raises:
        NoiseRobustError: if a setting or the data are not valid, the folder holds another configuration or cannot be
            written to, or the loss diverges.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise InvalidValueError(f"Expected `seeds` to be distinct integers >= 0, but got {list(seeds)!r}")
    for seed in seeds:
        check_integer("seeds", seed, minimum=0)
    check_number("checkpoint_seconds", checkpoint_seconds, minimum=0)
    if config.record.every is not None and make_recorder is None:
        raise InvalidValueError("Expected `make_recorder` to be given with `config.record`, but got None")
    ranks, config = ranks or Ranks(), config.resolved()
    # Everything that can be wrong with the settings is found before the first epoch.
    build_method(config.method)
    build_schedule(config.method.schedule)
    noise_from_config(config.selection_noise)
    normalize = parse_normalize(config.normalize or default_normalize(config.data))
    if not ranks.leads:
        ranks.wait()  # for what the first process downloads
    data = load_data(config.data, "train", download=download)
    if ranks.leads:
        ranks.wait()
    if isinstance(data, DataLoader):
        raise InvalidValueError(
            f"Expected the training data {config.data} to be arrays (x, y), but got a DataLoader; use "
            "PerturbedOptimizer in a loop of your own"
        )
    _check_fits(initial_model(config, seeds[0]), data, normalize, device)
    configuration = {**config.as_dict(), "normalize": str(normalize), "data_sha256": data.sha256()}
    configuration["files_sha256"] = files = _files_of(config)
    metadata = {
        "method": config.method_label,
        "model": config.model,
        "normalize": str(normalize),
        "training_sha256": configuration_sha256(configuration),
        **_trained(config.method),
    }
    with _held(out, configuration, device, ranks, resume):
        rest, held_out = data, None
        if config.held_out:
            rest, held_out = data.split(config.held_out, Stream(config.seed, "held-out"))
        for seed in seeds:
            folder = out / f"seed{seed}"
            if ranks.leads:
                make_folder(folder)
            results = [folder / name for name in (BEST_FILE, LAST_FILE)]  # in the order in which they are written
            ranks.wait()
            if all(file.is_file() and file.stat().st_size for file in results):
                _log.info("train seed %d is finished, and kept", seed)
                continue
            _check_unchanged(files, _files_of(config))
            score = make_score(held_out, normalize, config, seed, device) if held_out else None
            model = initial_model(config, seed)
            trainer = Trainer(model, rest, config, normalize, train_seed=seed, device=device, score=score, ranks=ranks)
            recorder = None
            if make_recorder and config.record.every is not None and ranks.leads:
                recorder = make_recorder(trainer, held_out, folder)
            run = _Run(trainer, folder, metadata | {"train_seed": str(seed)}, checkpoint_seconds, recorder)
            run.after_epoch = partial(after_epoch, seed) if after_epoch else None
            run.finish(progress and ranks.leads)
            ranks.wait()
    return [out / f"seed{seed}" / BEST_FILE for seed in seeds]


def _held(
    out: Path, configuration: dict[str, object], device: torch.device, ranks: Ranks, resume: bool
) -> AbstractContextManager[object]:
    """Return a context in which the folder is this training's; only the first process holds it."""
    if not ranks.leads:
        return nullcontext()
    if resume and not (out / MANIFEST_FILE).is_file():
        raise MissingFileError(f"Expected {out} to hold a training to resume, but it does not")
    return ResultFolder(out, "training", configuration, environment({"device": str(device), "processes": ranks.world}))


def _files_of(config: TrainConfig) -> dict[str, str]:
    """Return the hashes of the files that a configuration names: they count with their content."""
    noises = {config.selection_noise.name or "", config.method.noise.name or ""}
    code = {config.model: source_sha256(config.model)}
    files = {name: sha256(Path(name)) for name in sorted(noises) if name.endswith((".yaml", ".yml"))}
    return {name: digest for name, digest in {**code, **files}.items() if digest}


def _check_unchanged(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise unless files, which are read anew for each train seed, are those that the folder's manifest says."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        raise InvalidValueError(f"Expected {', '.join(changed)} to stay as they were, but they have changed meanwhile")


def _trained(method: MethodConfig) -> dict[str, str]:
    """Return what the weights say of their method, and of the noise they were trained for if it has one level."""
    said = {"trained_method": method.name}
    if method.adds_noise and method.level_range is None:
        noise = noise_from_config(method.noise)
        said |= {"trained_noise": noise.name, "trained_level": repr(float(noise.level))}
    return said


def initial_model(config: TrainConfig, train_seed: int) -> nn.Module:
    """Return the network that a training starts from, on the CPU in torch's default precision.

    Args:
        config: of the training; its ``seed``, ``model`` and ``model_args`` count.
        train_seed: which of its networks, >= 0.
    """
    with Stream(config.seed, "initialisation", train_seed).as_torch_default():
        return build_model(config.model, config.model_args)


def _check_fits(model: nn.Module, data: ArrayData, normalize: Normalize, device: torch.device) -> None:
    """Raise unless a model returns scores for the examples and has an output for each label."""
    x = normalize(data.x[:1].to(device)).expand(2, *data.x.shape[1:])
    with torch.inference_mode():
        class_scores(outputs(model.to(device).eval(), x), torch.stack([data.y.min(), data.y.max()]))


class _Run:
    """One train seed on its way from wherever it was left to its weights files."""

    def __init__(
        self,
        trainer: Trainer,
        folder: Path,
        metadata: dict[str, str],
        checkpoint_seconds: float,
        recorder: Recorder | None = None,
    ) -> None:
        self.trainer = trainer
        self.folder = folder
        self.metadata = metadata
        self.checkpoint = folder / CHECKPOINT_FILE
        self.checkpoint_seconds = checkpoint_seconds
        self.recorder = recorder
        self.after_epoch: Callable[[Sequence[Mapping[str, Any]]], object] | None = None
        self.rows: list[dict[str, Any]] = []
        if self.checkpoint.is_file():
            state = read_checkpoint(self.checkpoint)
            try:
                trainer.load_state_dict(state["trainer"])
                self.rows = list(state["epochs"])
                if recorder is not None:
                    recorder.load_state_dict(state["recorder"])
                if len(self.rows) != trainer.progress.epoch - 1:
                    raise ValueError("epochs are missing")
            except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise not_a_checkpoint(self.checkpoint) from error
            _log.info("%s: goes on from epoch %d, step %d", folder, trainer.progress.epoch, trainer.progress.index)
        self.saved = time.monotonic()

    def finish(self, progress: bool) -> None:
        """Train to the end and write the weights; the best ones have their name only then."""
        trainer, config = self.trainer, self.trainer.config
        if trainer.ranks.leads:
            self._tidy()
        if self.recorder is not None:
            self.recorder.start()
        done = (trainer.progress.epoch - 1) * trainer.steps_per_epoch + trainer.progress.index
        label = f"{config.method_label} seed {self.metadata['train_seed']}"
        if self.rows and self.after_epoch is not None:  # which the end of an earlier session may have kept from looking
            self.after_epoch(self.rows)
        with Bar(
            initial=done, total=trainer.total_steps, desc=label, unit="step", disable=None if progress else True
        ) as bar:

            def tick() -> None:
                bar.update()
                heed()
                if self.recorder is not None:
                    self.recorder.step()
                # Several processes have generators of their own: their state is that of the end of an epoch.
                if trainer.ranks.world == 1 and time.monotonic() - self.saved >= self.checkpoint_seconds:
                    self._save()

            for epoch in trainer.epochs(tick):
                self.rows.append(epoch.as_row())
                _log.debug("%s: %s", label, epoch)
                shown = {"loss": f"{epoch.train_loss:.3f}", "noisy": f"{epoch.held_out_perturbed_accuracy:.1f}%"}
                if config.method.schedule.name != "constant":
                    shown["strength"] = f"{epoch.strength:.2f}"
                bar.set_postfix(shown)
                self._save()
                self._write_metrics()
                if self.after_epoch is not None:
                    self.after_epoch(self.rows)
        self._write_metrics()
        self._write_weights()

    def _tidy(self) -> None:
        """Remove what a killed run left: best weights without the last ones, files not yet under their names."""
        with write_errors(self.folder):
            for path in (self.folder / BEST_FILE, *self.folder.glob(".*.tmp")):
                path.unlink(missing_ok=True)

    def _save(self) -> None:
        if self.trainer.ranks.leads:
            state = {"trainer": self.trainer.state_dict(), "epochs": self.rows}
            if self.recorder is not None:
                state["recorder"] = self.recorder.state_dict()
            write_checkpoint(self.checkpoint, state)
        self.saved = time.monotonic()

    def _write_metrics(self) -> None:
        if self.trainer.ranks.leads:
            # The columns by name: rows of a checkpoint of an earlier version may lack some.
            columns = ["train_seed", *(f.name for f in fields(Epoch))]
            seed = {"train_seed": self.metadata["train_seed"]}
            rows = pd.DataFrame([seed | row for row in self.rows], columns=columns)
            write_atomic(self.folder / METRICS_FILE, rows.to_csv(index=False))

    def _write_weights(self) -> None:
        if not self.trainer.ranks.leads:
            return
        best = max(row["epoch"] for row in self.rows if row["best"])
        last = self.rows[-1]["epoch"]
        write_weights(self.folder / BEST_FILE, self.trainer.best_state, {**self.metadata, "epoch": str(best)})
        write_weights(self.folder / LAST_FILE, self.trainer.kept, {**self.metadata, "epoch": str(last)})
        with write_errors(self.checkpoint):
            self.checkpoint.unlink(missing_ok=True)
