"""`--dry-run` says what an evaluation would do, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.evaluate import rehearsal
from noiserobust.evaluate.files import EvaluateConfig, evaluate_files, rehearse_files
from noiserobust.evaluate.forward import Forward
from noiserobust.models.weights import write_weights


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        torch.manual_seed(seed)
        write_weights(
            Path(f"w{seed}.safetensors"), nr.build_model("digits-cnn"), {"method": "sgd", "train_seed": str(seed)}
        )
    weights = [Path("w0.safetensors"), Path("w1.safetensors")]
    return {"model": "digits-cnn", "weights": weights, "data": "digits", "noise": "gaussian", "levels": [0, 0.1, 0.3]}


@pytest.mark.slow
def test_it_counts_what_is_to_do_and_what_is_done(config: dict[str, Any]) -> None:
    plan = EvaluateConfig(**config, draws=6)
    found = rehearse_files(plan, Path("out"))
    assert (found.to_do, found.done) == (2 * (1 + 6 + 6), 0)
    assert not Path("out").exists()
    evaluate_files(plan, Path("out"), shard="1/2")
    before = {p: p.read_bytes() for p in Path("out").iterdir()}
    found = rehearse_files(plan, Path("out"))
    assert (found.to_do, found.done) == (13, 13)
    assert {p: p.read_bytes() for p in Path("out").iterdir()} == before
    assert rehearse_files(plan, Path("out"), shard="2/2").to_do == 13
    assert rehearse_files(plan, Path("out"), shard="1/2").to_do == 0


def test_its_time_is_that_of_the_draws_to_do(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    now, measure = [0.0], Forward.measure

    def slow(self: Forward, *arguments: Any) -> Any:  # a second a draw, and a hundredth of one an example
        values, examples = measure(self, *arguments)
        now[0] += 1 + examples / 100
        return values, examples

    monkeypatch.setattr(Forward, "measure", slow)
    monkeypatch.setattr(rehearsal, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    found = rehearse_files(EvaluateConfig(**config, draws=60), Path("out"))
    data = nr.load_data("digits", "test")
    first = min(256, len(data))  # what is slow is timed once, and taken to be so by its examples alone
    assert found.seconds == pytest.approx(2 * 121 * (1 + first / 100) * len(data) / first)
    monkeypatch.setattr(rehearsal, "_SLOW", 100.0)
    found = rehearse_files(EvaluateConfig(**config, draws=60), Path("out"))
    assert found.seconds == pytest.approx(2 * 121 * (1 + len(data) / 100))


@pytest.mark.slow
def test_an_evaluation_of_a_precision(config: dict[str, Any]) -> None:
    plan = EvaluateConfig(**config, until=1.5)
    found = rehearse_files(plan, Path("out"))
    assert found.sampled is not None
    assert set(found.sampled) == {0.1, 0.3}
    assert found.to_do == 2 * (1 + sum(chips for chips, _ in found.sampled.values()))
    assert found.seconds > 0
    assert not Path("out").exists()
    done = evaluate_files(plan, Path("out")).draws.query("level > 0")
    assert found.to_do / 5 < len(done) < found.to_do * 5
    again = rehearse_files(plan, Path("out"))
    assert (again.to_do, again.done) == (0, len(done) + 2)


@pytest.mark.parametrize("more", [[], ["--until", "2"], ["--precision", "bf16"], ["--metrics", "accuracy", "loss"]])
@pytest.mark.slow
def test_the_command_line(config: dict[str, Any], capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    words = "evaluate --model digits-cnn --weights w0.safetensors w1.safetensors --data digits --noise gaussian"
    words += " --levels 0 0.1 0.3 --out out --dry-run"
    assert main([*words.split(), *more]) == 0
    out = capsys.readouterr().out
    assert "w0.safetensors, w1.safetensors" in out
    assert "0 done" in out
    assert "about" in out
    assert "nothing written" in out
    assert not Path("out").exists()


def test_results_of_another_configuration_are_refused_as_by_the_run(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_files(EvaluateConfig(**config, draws=2), Path("out"))
    words = "evaluate --model digits-cnn --weights w0.safetensors w1.safetensors --data digits --noise gaussian"
    words += " --levels 0 0.1 0.3 --draws 2 --out out --dry-run --seed 5"
    assert main(words.split()) == 2
    assert "differing: seed" in capsys.readouterr().err
