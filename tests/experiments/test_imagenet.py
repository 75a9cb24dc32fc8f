"""The loop for ImageNet, on photographs of noise: its crops, its batches, and that it goes on where it was left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_record import EXPERIMENTS, load

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.models.weights import read_weights

imagenet = load("rwp/imagenet")
images = sys.modules["images"]

MODEL = """
from torch import nn

def small(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(32, num_classes))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 36 and 12 images of different sizes, of three classes that a colour tells apart, and a network."""
    folder = tmp_path_factory.mktemp("imagenet")
    (folder / "small.py").write_text(MODEL)
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label in range(3):
            (folder / split / f"n{label}").mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 120, (*draw.integers(20, 50, 2), 3))
                pixels[..., label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / f"n{label}" / f"{number:02}.JPEG")
    return folder


def arguments(folder: Path, out: Path, method: str, *more: str) -> list[str]:
    own = ["--data", str(folder), "--model", f"{folder / 'small.py'}:small", "--method", method, "--out", str(out)]
    return [*own, "--size", "16", "--batch", "8", "--together", "4", "--epochs", "3", "--workers", "0", *more]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return read_weights(out / "last.safetensors").state


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_crops_are_of_the_areas_and_shapes_and_places_asked_for() -> None:
    stream = nr.Stream(0, "crops")
    boxes = np.array([images.random_crop(400, 300, stream.child(i)) for i in range(4000)])
    left, upper, right, lower = boxes.T
    assert boxes.min() >= 0
    assert right.max() <= 400
    assert lower.max() <= 300
    width, height = right - left, lower - upper
    area, aspect = width * height / (400 * 300), width / height
    assert 0.078 < area.min() < 0.09
    assert area.max() > 0.9
    assert 0.73 < aspect.min() < 0.77
    assert 1.30 < aspect.max() < 1.36
    small = area < 0.5  # all shapes of which fit: neither area nor shape nor place is preferred
    assert np.mean(area[small]) == pytest.approx((0.08 + 0.5) / 2, abs=0.01)
    assert np.mean(np.log(aspect[small])) == pytest.approx(0, abs=0.02)
    assert np.mean(left[small] / (400 - width[small])) == pytest.approx(0.5, abs=0.02)
    assert np.mean(upper[small] / (300 - height[small])) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("width", "height", "box"), [(1000, 10, (493, 0, 506, 10)), (10, 1000, (0, 493, 10, 506))])
def test_of_a_strip_the_middle_is_taken(width: int, height: int, box: tuple[int, ...]) -> None:
    assert images.random_crop(width, height, nr.Stream(0)) == box


def test_an_image_is_the_crop_of_its_key_and_nothing_else(folder: Path) -> None:
    data = images.Images(folder / "train", 16)
    assert (len(data), data.classes, data.labels) == (36, 3, [0] * 12 + [1] * 12 + [2] * 12)
    stream = nr.Stream(0, "one")
    x, y = data[20, stream]
    assert (x.shape, x.dtype, y) == ((3, 16, 16), torch.uint8, 1)
    with Image.open(folder / "train" / "n1" / "08.JPEG") as opened:
        box = images.random_crop(*opened.size, stream.child("crop"))
        whole = np.asarray(opened.convert("RGB").crop(box).resize((16, 16), Image.Resampling.BILINEAR))
    if stream.child("flip").generator().integers(2):
        whole = whole[:, ::-1]
    assert torch.equal(x, torch.from_numpy(whole.transpose(2, 0, 1).copy()))
    assert torch.equal(x, data[20, stream][0])
    assert not torch.equal(x, data[20, stream.child(1)][0])
    middle = nr.load_data(f"imagefolder:{folder}@size=16,resize=18", "test")  # what `noiserobust evaluate` sees
    held = images.Images(folder / "val", 16)
    assert torch.equal(torch.stack([held[i, None][0] for i in range(12)]), middle.x)


def test_shares_of_batches_are_the_batch_and_every_example_is_seen_once() -> None:
    stream = nr.Stream(0, "epoch", 1)
    whole = list(images.Batches(36, 8, stream))
    assert [len(batch) for batch in whole] == [8] * 4
    seen = [index for batch in whole for index, _ in batch]
    assert len(set(seen)) == 32
    assert seen != sorted(seen)
    shares = [list(images.Batches(36, 8, stream, share, 2)) for share in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole


@pytest.mark.parametrize("method", ["sgd", "sam", "rwp"])
def test_an_interrupted_training_goes_on_to_the_same_weights(folder, tmp_path, method, monkeypatch) -> None:
    before = torch.get_rng_state()
    imagenet.main(arguments(folder, tmp_path / "whole", method))
    assert torch.equal(torch.get_rng_state(), before)
    rows = pd.read_csv(tmp_path / "whole" / "epochs.csv")
    assert rows["epoch"].tolist() == [1, 2, 3]
    assert rows["top5"].tolist() == [100.0] * 3  # of three classes
    assert rows["top1"].iloc[-1] > 50
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]

    score = imagenet.Training.score
    calls = []

    def stopped(self):
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(self)

    monkeypatch.setattr(imagenet.Training, "score", stopped)
    with pytest.raises(KeyboardInterrupt):
        imagenet.main(arguments(folder, tmp_path / "parts", method))
    assert not (tmp_path / "parts" / "last.safetensors").exists()
    imagenet.main(arguments(folder, tmp_path / "parts", method))
    assert len(calls) == 4  # the first epoch was not trained again
    assert equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    with pytest.raises(nr.NoiseRobustError, match="lr"):
        imagenet.main(arguments(folder, tmp_path / "parts", method, "--lr", "0.2"))


def test_workers_change_nothing_and_methods_and_seeds_do(folder, tmp_path) -> None:
    for name, more in {"a": (), "b": ("--workers", "2"), "c": ("--seed", "1")}.items():
        imagenet.main(arguments(folder, tmp_path / name, "rwp", "--epochs", "1", *more))
    imagenet.main(arguments(folder, tmp_path / "sgd", "sgd", "--epochs", "1"))
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "sgd"))


def test_evaluate_finds_the_accuracy_of_the_last_epoch(folder, tmp_path) -> None:
    imagenet.main(arguments(folder, tmp_path / "sam", "sam", "--epochs", "1", "--lr", "0.001"))
    top1 = pd.read_csv(tmp_path / "sam" / "epochs.csv")["top1"].iloc[-1]
    model = ["--model", f"{folder / 'small.py'}:small", "--model-args", "num_classes=3"]
    data = ["--data", f"imagefolder:{folder}@size=16,resize=18", "--normalize", "imagenet"]
    weights_file = ["--weights", str(tmp_path / "sam" / "last.safetensors")]
    noise = ["--noise", "gaussian", "--levels", "0", "0.1", "--draws", "2"]
    assert main(["evaluate", *model, *weights_file, *data, *noise, "--out", str(tmp_path / "out")]) == 0
    draws = pd.read_csv(tmp_path / "out" / "draws.csv")
    assert set(draws["method"]) == {"sam"}
    assert draws.loc[draws["level"] == 0, "value"].tolist() == [pytest.approx(top1)]
    assert 0 < top1 < 100


def test_methods_are_those_of_the_paper() -> None:
    rwp, sam = imagenet.METHODS["rwp"](), imagenet.METHODS["sam"]()
    assert (rwp.perturbed_weight, rwp.noise.level, rwp.noise.reference, rwp.noise.granularity) == (
        0.5,
        0.005,
        "l2",
        "filter",
    )
    assert (sam.rho, sam.perturbed_weight, sam.per_micro_batch) == (0.05, 1.0, True)


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("sam", ["--together", "3"], "multiple of --together 3"),
        ("sam", ["--together", "0"], "--together. to be an integer >= 1, but got 0"),
        ("sgd", ["--epochs", "0"], "--epochs. to be an integer >= 1, but got 0"),
        ("sgd", ["--batch", "37"], "--batch to be from 1 to 36 images, but got 37"),
        ("sgd", ["--batch", "0"], "--batch to be from 1 to 36 images, but got 0"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(folder, tmp_path, method, more, said) -> None:
    with pytest.raises(nr.NoiseRobustError, match=said):
        imagenet.main(arguments(folder, tmp_path / "out", method, *more))
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_no_images_are_refused(tmp_path) -> None:
    with pytest.raises(nr.NoiseRobustError, match=r"Expected a folder of images .*train, but there is none"):
        images.Images(tmp_path / "train", 16)
    (tmp_path / "train" / ".hidden").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "train" / ".hidden" / "0.png")
    with pytest.raises(nr.NoiseRobustError, match="to hold a folder of images for each class"):
        images.Images(tmp_path / "train", 16)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sgd", "sam", "rwp"])
def test_two_processes_take_the_steps_of_one(folder, tmp_path, method) -> None:
    imagenet.main(arguments(folder, tmp_path / "one", method))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(EXPERIMENTS / "rwp" / "imagenet.py"), *arguments(folder, tmp_path / "two", method)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)
    rows = [pd.read_csv(tmp_path / name / "epochs.csv").drop(columns=["seconds", "loss"]) for name in ("one", "two")]
    assert rows[0].equals(rows[1])
