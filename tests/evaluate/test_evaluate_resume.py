"""An interrupted evaluation goes on where it stopped, to the very same files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from plain import NOISE, CountingLinear, counting, features
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import noiserobust as nr
from noiserobust.results.store import JOURNAL_FILE, DrawStore

LEVELS = [0, 0.2, 0.4]
TASKS = 2 * (1 + 4 + 4)

KILLED = """
import sys, time
import test_evaluate_resume as t
append = t.DrawStore.append
def slow(store, row):
    append(store, row)
    time.sleep(0.05)
t.DrawStore.append = slow
t.evaluate(t.Path(sys.argv[1]))
"""


def evaluate(out: Path | None, **changed: object):
    settings = {"noise": NOISE, "levels": LEVELS, "draws": 4, "batch_size": 100, "out": out, **changed}
    models = settings.pop("models", [counting(0), counting(1)])
    return nr.evaluate(models, settings.pop("data", features()), **settings)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    append = DrawStore.append
    left = [rows]

    def limited(store: DrawStore, row: dict[str, object]) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(store, row)

    monkeypatch.setattr(DrawStore, "append", limited)


def undisturbed(tmp_path: Path) -> dict[str, bytes]:
    evaluate(tmp_path / "undisturbed")
    return csv_files(tmp_path / "undisturbed")


def csv_files(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.glob("*.csv"))}


@pytest.mark.parametrize("rows", [0, 1, 9, TASKS - 1])
def test_an_interrupted_evaluation_computes_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    expected = undisturbed(tmp_path)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt_after(patch, rows)
        with pytest.raises(KeyboardInterrupt):
            evaluate(out)
    assert not (out / "draws.csv").exists()
    CountingLinear.passes = 0
    result = evaluate(out)
    assert CountingLinear.passes == TASKS - rows
    assert csv_files(out) == expected
    pd.testing.assert_frame_equal(result.draws, evaluate(None).draws)


def test_a_folder_is_held_by_one_evaluation_at_a_time_and_free_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nested(store: DrawStore, row: dict[str, object]) -> None:
        with pytest.raises(nr.NoiseRobustError, match="one process at a time"):
            evaluate(tmp_path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DrawStore, "append", nested)
        with pytest.raises(KeyboardInterrupt) as caught:
            evaluate(tmp_path)
    evaluate(tmp_path)
    evaluate(tmp_path)
    assert caught.traceback  # kept, as a notebook keeps the last error with all it refers to


def test_a_finished_evaluation_computes_nothing_and_changes_nothing(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path)
    assert sorted(expected) == ["draws.csv", "summary.csv"]
    manifest = (tmp_path / "undisturbed" / "manifest.json").read_bytes()
    CountingLinear.passes = 0
    result = evaluate(tmp_path / "undisturbed")
    assert CountingLinear.passes == 0
    assert csv_files(tmp_path / "undisturbed") == expected
    assert (tmp_path / "undisturbed" / "manifest.json").read_bytes() == manifest
    pd.testing.assert_frame_equal(result.draws, evaluate(None).draws)


@pytest.mark.thorough
def test_a_killed_evaluation_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path)
    out = tmp_path / "killed"
    journal = out / JOURNAL_FILE
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 5:
            assert process.poll() is None, "the evaluation ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = journal.read_bytes().count(b"\n")
    assert 5 <= done < TASKS
    CountingLinear.passes = 0
    evaluate(out)
    assert CountingLinear.passes == TASKS - done
    assert csv_files(out) == expected


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_line_is_computed_again_even_after_a_second_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    expected = undisturbed(tmp_path)
    out = tmp_path / "out"
    for rows in (5, 2):
        with monkeypatch.context() as patch:
            interrupt_after(patch, rows)
            with pytest.raises(KeyboardInterrupt):
                evaluate(out)
        journal = out / JOURNAL_FILE
        journal.write_bytes(journal.read_bytes()[:-cut])
    CountingLinear.passes = 0
    evaluate(out)
    assert CountingLinear.passes == TASKS - 5
    assert csv_files(out) == expected


CHANGES = {
    "draws": {"draws": 5},
    "seed": {"seed": 1},
    "levels": {"levels": [0, 0.2]},
    "precision": {"precision": "bf16"},
    "normalize": {"data": (features()[0], features()[1]), "normalize": ",".join("0" * 6) + "/" + ",".join("1" * 6)},
    r"noise\.reference": {"noise": nr.GaussianNoise(0.3, reference="l2")},
    r"level_name, noise\.kind": {"noise": nr.LaplaceNoise(0.3)},
    r"data\.sha256": {"data": (features()[0] + 1, features()[1])},
    r"data\.n_examples, data\.sha256": {"data": features(39)},
    "weights": {"models": [counting(0), counting(2)]},
}


@pytest.mark.parametrize("named", CHANGES)
def test_another_configuration_is_refused_naming_what_differs(tmp_path: Path, named: str) -> None:
    evaluate(tmp_path / "out")
    before = csv_files(tmp_path / "out")
    with pytest.raises(nr.NoiseRobustError, match=f"differing: {named}$"):
        evaluate(tmp_path / "out", **CHANGES[named])
    assert csv_files(tmp_path / "out") == before


def test_what_is_selected_counts_and_not_how_it_is_said(tmp_path: Path) -> None:
    for select in ("w*", ["weight"], lambda name, module, weight: weight.ndim == 2):
        CountingLinear.passes = 0
        evaluate(tmp_path / "out", select=select)
    assert CountingLinear.passes == 0


def test_the_manifest_holds_configuration_hashes_versions_and_device(tmp_path: Path) -> None:
    evaluate(tmp_path / "out", device="cpu", method="mine")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["kind"] == "evaluation"
    configuration = manifest["configuration"]
    assert configuration["noise"]["kind"] == "gaussian"
    assert configuration["data"]["n_examples"] == 40
    assert [w["train_seed"] for w in configuration["weights"]] == [0, 1]
    hashes = [w["sha256"] for w in configuration["weights"]]
    assert len(set(hashes)) == 2
    assert all(len(h) == 64 for h in hashes)
    assert manifest["environment"]["device"] == "cpu"
    assert manifest["environment"]["versions"]["torch"] == torch.__version__


def test_a_loader_is_evaluated_into_a_folder(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(*features()), batch_size=7)
    evaluate(tmp_path / "out", data=loader)
    assert csv_files(tmp_path / "out") == undisturbed(tmp_path)


def test_a_loader_with_other_labels_is_another_configuration(tmp_path: Path) -> None:
    x, y = features()
    evaluate(tmp_path / "out", data=DataLoader(TensorDataset(x, y), batch_size=7))
    with pytest.raises(nr.NoiseRobustError, match=r"differing: data\.sha256$"):
        evaluate(tmp_path / "out", data=DataLoader(TensorDataset(x, (y + 1) % 3), batch_size=7))


def test_a_shuffling_loader_shows_every_chip_the_same_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(*features()), batch_size=7, shuffle=True)
    before = torch.get_rng_state()
    evaluate(tmp_path / "out", data=loader)
    evaluate(tmp_path / "out", data=loader)  # the hash of the data is the same
    assert torch.equal(torch.get_rng_state(), before)


@dataclass(frozen=True)
class Shift(nr.Noise):
    """Adds ``by`` to a weight."""

    share: float
    by: float = 0.0
    name: ClassVar[str] = "shift"
    level_name: ClassVar[str] = "share"

    @property
    def level(self) -> float:
        return self.share

    def at(self, level: float) -> Shift:
        return replace(self, share=level)

    def perturb(self, weight: torch.Tensor, stream: nr.Stream, view: object = None) -> torch.Tensor:
        return weight + self.share * self.by


def test_the_settings_of_a_noise_of_ones_own_count(tmp_path: Path) -> None:
    evaluate(tmp_path / "out", noise=Shift(0.1, by=1.0))
    evaluate(tmp_path / "out", noise=Shift(0.2, by=1.0))  # its level does not matter, levels are given
    with pytest.raises(nr.NoiseRobustError, match=r"differing: noise\.by$"):
        evaluate(tmp_path / "out", noise=Shift(0.1, by=2.0))
    for bad in (float("nan"), "x", float("inf")):
        with pytest.raises(nr.NoiseRobustError, match="share"):
            evaluate(tmp_path / "bad", noise=Shift(0.1), levels=[bad])


def test_numpy_integers_are_integers(tmp_path: Path) -> None:
    evaluate(tmp_path / "out", draws=np.int64(2), seed=np.int64(3))
    assert json.loads((tmp_path / "out/manifest.json").read_text())["configuration"]["seed"] == 3


def test_the_hash_of_weights_tells_values_dtypes_and_names_apart() -> None:
    from noiserobust.evaluate.api import model_sha256

    model = counting()
    other = counting(1)
    other.load_state_dict(model.state_dict())
    assert model_sha256(model) == model_sha256(other)
    assert model_sha256(nn.Sequential(model)) != model_sha256(other)
    relu, tanh = nn.Sequential(other, nn.ReLU()), nn.Sequential(other, nn.Tanh())
    assert model_sha256(relu) != model_sha256(tanh)  # equal weights, another network
    assert model_sha256(other.double()) != model_sha256(model)
    with torch.no_grad():
        model.bias[0] += 1e-6
    assert model_sha256(model) != model_sha256(counting())


@pytest.mark.parametrize("name", ["draws.csv", "summary.csv"])
def test_results_without_a_manifest_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(nr.NoiseRobustError, match=r"without a manifest\.json"):
        evaluate(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("path", ["file", "file/below", "x" * 300], ids=["file", "below a file", "too long"])
def test_an_out_that_cannot_be_written_is_an_output_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="Expected to be able to write") as caught:
        evaluate(tmp_path / path)
    assert isinstance(caught.value, nr.NoiseRobustError)
    assert (tmp_path / "file").read_text() == "mine"
