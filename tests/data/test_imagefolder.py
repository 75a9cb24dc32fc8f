import numpy as np
import pytest
import torch
from PIL import Image

from noiserobust.data import arrays
from noiserobust.data.registry import load_data
from noiserobust.errors import InvalidValueError, MissingFileError

PIXELS = np.random.default_rng(0).integers(0, 256, size=(6, 5, 4, 3), dtype=np.uint8)


def save(path, pixels=PIXELS[0], **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def load(folder, split="test"):
    return load_data(f"imagefolder:{folder}", split)


def test_images_of_every_kind_in_the_order_of_names(tmp_path):
    save(tmp_path / "b" / "1.png", PIXELS[2])
    save(tmp_path / "a" / "2.bmp", PIXELS[1])
    save(tmp_path / "a" / "10.PNG", PIXELS[0])
    save(tmp_path / "Z" / "sub" / "x.webp", PIXELS[3], lossless=True)
    grey = save(tmp_path / "b" / "2.jpeg", PIXELS[4, :, :, 0])
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    data = load(tmp_path)
    assert data.classes == ("Z", "a", "b")
    assert data.y.tolist() == [0, 1, 1, 2, 2]
    expected = torch.from_numpy(PIXELS[[3, 0, 1, 2]]).permute(0, 3, 1, 2)
    assert torch.equal(data.x[:4], expected)
    assert torch.equal(data.x[4], torch.from_numpy(np.array(Image.open(grey))).expand(3, 5, 4))
    assert data.x.is_contiguous()
    assert torch.equal(load(tmp_path, "train").x, data.x)


@pytest.mark.parametrize("name", ["test", "val", "valid"])
def test_folders_of_splits(tmp_path, name):
    for label in "ab":
        save(tmp_path / "train" / label / "0.png", PIXELS[0])
        save(tmp_path / name / label / "0.png", PIXELS[1])
    assert load(tmp_path, "train").x[0, 0, 0, 0] == PIXELS[0, 0, 0, 0]
    assert load(tmp_path, "test").x[0, 0, 0, 0] == PIXELS[1, 0, 0, 0]
    save(tmp_path / "train" / "c" / "0.png")
    with pytest.raises(InvalidValueError, match=f"train and .*{name} to have the same classes, but only one has 'c'"):
        load(tmp_path, "train")


def test_a_class_may_be_called_like_a_split(tmp_path):
    save(tmp_path / "train" / "0.png")
    save(tmp_path / "bus" / "0.png")
    assert load(tmp_path).classes == ("bus", "train")


def test_a_set_of_many_parts_keeps_its_order(tmp_path):
    for i in range(600):
        save(tmp_path / "a" / f"{i:03d}.png", np.full((2, 2, 3), i % 256, dtype=np.uint8))
    assert load(tmp_path).x[:, 0, 0, 0].tolist() == [i % 256 for i in range(600)]


def test_missing_folders(tmp_path):
    with pytest.raises(MissingFileError, match=r"Expected a data folder .*absent, but there is none"):
        load(tmp_path / "absent")
    with pytest.raises(InvalidValueError, match="to hold one folder a class, but it holds no folders"):
        load(tmp_path)
    image = save(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(InvalidValueError, match="to be a folder, but it is a file"):
        load(image)
    with pytest.raises(
        InvalidValueError, match="to hold a folder `test` or `val` or `valid` of classes, but got: train"
    ):
        load(tmp_path)
    (tmp_path / "train" / "b").mkdir()
    with pytest.raises(InvalidValueError, match=r"train/b to hold images \(.png, .*\), but there are none"):
        load(tmp_path, "train")


def write_odd(path):
    save(path, PIXELS[0, :4])


def write_text(path):
    path.write_text("no image")


def write_truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, size=(5, 4, 3), dtype=np.uint8)
    save(path, noise)
    path.write_bytes(path.read_bytes()[:70])


def write_postscript(path):
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n")


def write_deep(path):
    save(path, np.zeros((5, 4), dtype=np.uint16))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_odd, r"to have one size, but .* has 4x\d and .* has 4x\d"),
        (write_text, "Expected .*bad.png to be a readable image, but got: cannot identify"),
        (write_truncated, "Expected .*bad.png to be a readable image, but got:"),
        (write_postscript, "Expected .*bad.png to be a readable image, but got: cannot identify"),
        (write_deep, "8 bits a channel, but .*bad.png has mode 'I;16'"),
    ],
)
def test_bad_images_are_named(tmp_path, write, message, first):
    good = save(tmp_path / "b" / "good.png")
    (tmp_path / "a").mkdir()
    save(tmp_path / "c" / "last.png")
    bad = tmp_path / ("a" if first else "c") / "bad.png"
    bad.parent.mkdir(exist_ok=True)
    write(bad)
    if not first:
        (tmp_path / "a").rmdir()
    with pytest.raises(InvalidValueError, match=message) as caught:
        load(tmp_path)
    assert str(bad) in str(caught.value)
    assert write is not write_odd or str(good) in str(caught.value)


def test_decompression_bombs_and_sets_beyond_memory_are_refused(tmp_path, monkeypatch):
    save(tmp_path / "a" / "0.png")
    with monkeypatch.context() as patch:
        # Between once and twice Pillow's limit it only warns; beyond, it raises.
        for limit in (15, 5):
            patch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            with pytest.raises(
                InvalidValueError, match=r"0\.png to be a readable image, but got: .*decompression bomb"
            ):
                load(tmp_path)
    monkeypatch.setattr(arrays, "MEMORY_LIMIT", 59)
    with pytest.raises(InvalidValueError, match=r"to fit into .* GiB of memory"):
        load(tmp_path)
