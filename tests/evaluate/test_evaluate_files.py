"""Weights files by name give what the models in memory give."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import values

import noiserobust as nr
from noiserobust.errors import InvalidValueError
from noiserobust.evaluate import files
from noiserobust.evaluate.files import EvaluateConfig, evaluate_files
from noiserobust.models.digits import digits_mlp
from noiserobust.models.weights import write_weights


@pytest.fixture
def config(tmp_path: Path) -> EvaluateConfig:
    """Two weights files that say what they are, and data of their own."""
    random = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=random.normal(size=(50, 64)).astype(np.float32), y=random.integers(0, 10, 50))
    for seed in (3, 1):
        metadata = {"method": "rwp", "train_seed": str(seed), "normalize": "none"}
        write_weights(tmp_path / f"{seed}.safetensors", model(seed), metadata)
    paths = [tmp_path / "3.safetensors", tmp_path / "1.safetensors"]
    return EvaluateConfig("digits-mlp", paths, f"npz:{tmp_path}/data.npz", "gaussian", ["clean", "0.3"], draws=3)


def model(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return digits_mlp()


def test_files_and_models_in_memory_give_the_same_values(config: EvaluateConfig, tmp_path: Path) -> None:
    result = evaluate_files(config, tmp_path / "out")
    with np.load(tmp_path / "data.npz") as arrays:
        data = (arrays["x"], arrays["y"])
    expected = nr.evaluate(
        [model(3), model(1)], data, noise=nr.GaussianNoise(0), levels=[0, 0.3], draws=3, train_seeds=[3, 1]
    )
    assert values(result.draws) == values(expected.draws)
    assert set(result.draws["method"]) == {"rwp"}
    assert set(result.draws["weights"]) == {p.as_posix() for p in config.weights}
    before = (tmp_path / "out" / "draws.csv").read_bytes()
    evaluate_files(config, tmp_path / "out")
    assert (tmp_path / "out" / "draws.csv").read_bytes() == before
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())["configuration"]
    assert manifest["data"]["name"] == config.data
    assert [w["train_seed"] for w in manifest["weights"]] == [3, 1]


def test_the_manifest_says_what_the_weights_were_trained_for(config: EvaluateConfig, tmp_path: Path) -> None:
    old = {"method": "rwp", "train_seed": "1", "normalize": "none"}
    cases: list[tuple[dict[str, str], dict | None]] = [
        ({}, None),
        ({"trained_noise": "gaussian", "trained_level": "0.1"}, None),
        ({"trained_method": "sam"}, {"method": "sam"}),
        ({"trained_method": "sam", "trained_level": "0.1"}, {"method": "sam"}),
        (
            {"trained_method": "rwp", "trained_noise": "gaussian", "trained_level": "0.1"},
            {"method": "rwp", "noise": "gaussian", "level": 0.1},
        ),
    ]
    for text in ("", "high", "nan", "-inf", "1e999"):
        metadata = {"trained_method": "rwp", "trained_noise": "gaussian", "trained_level": text}
        cases.append((metadata, {"method": "rwp", "noise": "gaussian"}))
    for metadata, trained in cases:
        write_weights(config.weights[1], model(1), old | metadata)
        *_, made = files.resolve_files(config)
        before, entry = made["weights"]
        assert before.keys() == {"file", "sha256", "method", "train_seed"}  # as in folders of earlier versions
        assert entry.get("trained") == trained, metadata
        assert ("trained" in entry) == (trained is not None)
    write_weights(config.weights[1], model(1), old | cases[4][0])
    evaluate_files(config, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())["configuration"]["weights"]
    assert [w.get("trained") for w in written] == [None, cases[4][1]]
    evaluate_files(config, tmp_path / "out")  # the same again


def test_files_that_say_nothing_are_numbered_in_order(config: EvaluateConfig, tmp_path: Path) -> None:
    paths = [tmp_path / "b.pt", tmp_path / "a.pt"]
    for path in paths:
        torch.save(model(0).state_dict(), path)
    draws = evaluate_files(replace(config, weights=paths), tmp_path / "out").draws
    assert set(draws["method"]) == {"model"}
    assert dict(zip(draws["weights"], draws["train_seed"], strict=True)) == {str(p): n for n, p in enumerate(paths)}


def test_changed_weights_under_the_same_name_are_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    evaluate_files(config, tmp_path / "out")
    write_weights(config.weights[1], model(7), {"method": "rwp", "train_seed": "1"})
    with pytest.raises(nr.NoiseRobustError, match=r"differing: weights$"):
        evaluate_files(config, tmp_path / "out")


def test_bad_files_are_found_before_the_first_draw(config: EvaluateConfig, tmp_path: Path) -> None:
    first, second = config.weights
    wrong = tmp_path / "wrong.safetensors"
    write_weights(wrong, digits_mlp(hidden=8), {})
    other = tmp_path / "other.safetensors"
    write_weights(other, model(0), {"normalize": "digits"})
    cases = {
        "of another shape": [first, wrong],
        "no_such_file": [first, tmp_path / "no_such_file.pt"],
        "a second one of method 'rwp' with train seed 3": [first, second, first],
        "trained with one normalisation": [first, other],
    }
    for said, weights in cases.items():
        with pytest.raises(nr.NoiseRobustError) as caught:
            evaluate_files(replace(config, weights=weights), tmp_path / "out")
        assert re.search(said, str(caught.value))
    assert not (tmp_path / "out").exists()


def test_weights_that_change_meanwhile_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    model = nr.build_model("digits-mlp")
    write_weights(path, model, {})
    load = files._Load(model, files.read_weights(path))
    assert load() is model
    copied = pickle.loads(pickle.dumps(load))  # for a worker on a machine without the file
    write_weights(path, nr.build_model("digits-mlp"), {})
    with pytest.raises(InvalidValueError, match=r"w\.safetensors to stay as they were, but the"):
        load()
    path.unlink()
    state = copied().state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_the_train_split_is_other_data_and_said_of_it_only(config: EvaluateConfig, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    with np.load(tmp_path / "data.npz") as arrays:
        test = dict(arrays)
    train = {"x": random.normal(size=(30, 64)).astype(np.float32), "y": random.integers(0, 10, 30)}
    both = {f"{split}_{k}": v for split, part in (("train", train), ("test", test)) for k, v in part.items()}
    np.savez(tmp_path / "data.npz", **both)
    expected = {"test": test, "train": train}
    for split, arrays in expected.items():
        result = evaluate_files(replace(config, split=split), tmp_path / split)
        wanted = nr.evaluate(
            [model(3), model(1)],
            (arrays["x"], arrays["y"]),
            noise=nr.GaussianNoise(0),
            levels=[0, 0.3],
            draws=3,
            train_seeds=[3, 1],
        )
        assert values(result.draws) == values(wanted.draws)
        said = json.loads((tmp_path / split / "manifest.json").read_text())["configuration"]["data"]
        assert said.get("split") == {"test": None, "train": "train"}[split]  # as in folders of earlier versions
    with pytest.raises(InvalidValueError, match=r"differing: data\.n_examples, data\.sha256, data\.split"):
        evaluate_files(replace(config, split="train"), tmp_path / "test")
    with pytest.raises(InvalidValueError, match="`split` to be one of 'test', 'train', but got 'valid'"):
        evaluate_files(replace(config, split="valid"), tmp_path / "valid")
