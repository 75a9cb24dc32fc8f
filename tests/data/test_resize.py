import numpy as np
import pytest
import torch
from PIL import Image

from noiserobust.data.registry import load_data
from noiserobust.data.resize import ResizeCrop, split_options
from noiserobust.errors import InvalidValueError


def gradient(width, height):
    """Red grows to the right from 0 to 255, green downwards."""
    red = np.broadcast_to(np.linspace(0, 255, width)[None, :], (height, width))
    green = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 9)], -1).round().astype(np.uint8))


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_a_tree_like_imagenet(tmp_path):
    for split, count in (("train", 3), ("val", 1)):
        for label in ("n01440764", "n01443537"):
            for index in range(count):
                save(tmp_path / split / label / f"{label}_{index}.JPEG", gradient(40 + 10 * index, 30))
    data = load_data(f"imagefolder:{tmp_path}@size=16,resize=20", "test")
    assert data.x.shape == (2, 3, 16, 16)
    assert data.x.dtype == torch.uint8
    assert data.classes == ("n01440764", "n01443537")
    assert load_data(f"imagefolder:{tmp_path}@size=16", "train").x.shape == (6, 3, 16, 16)
    with pytest.raises(InvalidValueError, match=r"to have one size, but .*; imagefolder:DIR@size=S scales and crops"):
        load_data(f"imagefolder:{tmp_path}", "train")


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (65, 32), (32, 32), (200, 40)])
def test_the_shorter_side_is_scaled_and_the_middle_is_kept(size):
    image = ResizeCrop(size=8, resize=16)(gradient(*size))
    assert image.size == (8, 8)
    pixels = np.asarray(image, dtype=float)
    for channel, axis, length in ((0, 1, size[0]), (1, 0, size[1])):
        # Centres of the scaled pixels in units of the original ones, and the colour there.
        scaled = 16 if length == min(size) else 16 * length // min(size)
        first = round((scaled - 8) / 2)
        places = (np.arange(first, first + 8) + 0.5) * length / scaled - 0.5
        colours = pixels[..., channel].mean(1 - axis)
        assert np.abs(colours - places * 255 / (length - 1)).max() < 1.5
    assert (pixels[..., 2] == 9).all()


def test_an_image_of_the_right_size_is_untouched():
    image = gradient(24, 24)
    assert np.array_equal(ResizeCrop(24, 24)(image), image)
    assert np.array_equal(ResizeCrop(8, 24)(image), np.asarray(image)[8:16, 8:16])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d", ("d", None)),
        ("a@b/c", ("a@b/c", None)),
        ("d@2x", ("d@2x", None)),
        ("a=b@c/d@size=3", ("a=b@c/d", ResizeCrop(3, 3))),
        ("/data/imagenet@resize=256,size=224", ("/data/imagenet", ResizeCrop(224, 256))),
    ],
)
def test_options_come_last(text, expected):
    assert split_options(text) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("siez=3", "Expected `option of images` to be one of 'resize', 'size', but got 'siez'; did you mean 'size'"),
        ("size=", "Expected `size` of images to be an integer >= 1, but got ''"),
        ("size=-1", "but got '-1'"),
        ("size=2.5", "but got '2.5'"),
        ("size=0", "1 <= size <= resize, but got 0 and 0"),
        ("size=4,resize=3", "1 <= size <= resize, but got 4 and 3"),
        ("resize=3", "to be like size=224,resize=256, but got 'd@resize=3'"),
        ("size=3,", "but got ''"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InvalidValueError, match=message):
        load_data(f"imagefolder:d@{options}", "test")


def test_an_image_that_would_grow_beyond_all_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    save(tmp_path / "a" / "0.png", gradient(2000, 1))
    with pytest.raises(
        InvalidValueError, match=r"0\.png to be a readable image, but got: 2000x1 would be scaled to 64000x32"
    ):
        load_data(f"imagefolder:{tmp_path}@size=32", "test")
