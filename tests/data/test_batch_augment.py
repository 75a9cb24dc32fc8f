import pytest
import torch

from noiserobust.config import AugmentConfig
from noiserobust.data.augment import Augment, Cutout
from noiserobust.data.normalize import parse_normalize
from noiserobust.errors import InvalidValueError
from noiserobust.rng import Stream


def reference(x, crop, flip, stream):
    """One image after the other, by slices: the plain meaning of what the class does at once."""
    n, c, h, w = x.shape
    offsets = stream.child("crop").generator().integers(0, 2 * crop + 1, size=(2, n))
    coins = stream.child("flip").generator().integers(0, 2, size=n)
    out = torch.empty_like(x)
    for i in range(n):
        padded = torch.zeros(c, h + 2 * crop, w + 2 * crop, dtype=x.dtype)
        padded[:, crop : crop + h, crop : crop + w] = x[i]
        dy, dx = (int(o) for o in offsets[:, i])
        image = padded[:, dy : dy + h, dx : dx + w]
        out[i] = image.flip(-1) if flip and coins[i] else image
    return out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("crop", "flip"), [(0, False), (4, False), (0, True), (2, True), (9, True)])
def test_the_batch_is_what_a_loop_over_images_gives(dtype, layout, crop, flip):
    x = (torch.rand(17, 3, 6, 8) * 255).to(dtype).to(memory_format=layout)
    before = x.clone()
    out = Augment(crop, flip)(x, Stream(0, "augment", 5))
    assert torch.equal(out, reference(x, crop, flip, Stream(0, "augment", 5)))
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


def test_every_shift_and_both_sides_are_equally_frequent():
    x = torch.zeros(9000, 1, 5, 5)
    x[:, :, 2, 1] = 1
    out = Augment(1, True)(x, Stream(0))
    rows, columns = out[:, 0].flatten(1).argmax(1).div(5, rounding_mode="floor"), out[:, 0].flatten(1).argmax(1) % 5
    # 3 x 3 shifts of column 1 give columns 0, 1, 2; mirrored 4, 3, 2: column 2 twice.
    counts = torch.zeros(5, 5)
    counts.index_put_((rows, columns), torch.ones(9000), accumulate=True)
    expected = torch.zeros(5, 5)
    expected[1:4] = 9000 / 18
    expected[1:4, 2] *= 2
    assert ((counts - expected).abs() <= 4.5 * expected.sqrt()).all()


def test_streams_tell_batches_apart_and_repeat():
    x = torch.rand(8, 1, 8, 8)
    augment = Augment(crop=2, flip=True)
    assert torch.equal(augment(x, Stream(0, 1)), augment(x, Stream(0, 1)))
    assert not torch.equal(augment(x, Stream(0, 1)), augment(x, Stream(0, 2)))


def test_wrong_arguments():
    with pytest.raises(InvalidValueError, match="Expected `crop` to be an integer >= 0, but got -1"):
        Augment(-1)
    with pytest.raises(InvalidValueError, match=r"to be N x C x H x W images, but got shape \(2, 64\)"):
        Augment(1)(torch.zeros(2, 64), Stream(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [0, 1, 2, 3, 8, 40])
def test_a_square_of_each_image_is_zero(dtype, layout, side):
    x = (torch.rand(23, 3, 6, 9) + 1).to(dtype).to(memory_format=layout)
    before = x.clone()
    out = Cutout(side)(x, Stream(0, "augment", 5))
    generator = Stream(0, "augment", 5, "cutout").generator()
    downs, acrosses = (generator.integers(0, length, size=23).tolist() for length in (6, 9))
    expected = x.clone()
    if side:
        for image, down, across in zip(expected, downs, acrosses, strict=True):
            top, left = down - side // 2, across - side // 2
            image[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
    assert torch.equal(out, expected)
    assert (out.dtype, out.is_contiguous(memory_format=layout)) == (dtype, True)
    assert torch.equal(x, before)


def test_every_pixel_is_the_centre_equally_often_and_the_border_cuts():
    out = Cutout(1)(torch.ones(9000, 1, 3, 5), Stream(1))
    counts = (out == 0).sum(0)[0]
    assert ((counts - 600).abs() <= 4.5 * 600**0.5).all()
    areas = (Cutout(4)(torch.ones(2000, 1, 8, 8), Stream(1)) == 0).sum((1, 2, 3))
    assert (areas.min(), areas.max()) == (4, 16)


def test_a_hole_in_a_normalised_image_is_the_mean_of_the_data():
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    normalize = parse_normalize("cifar10")
    out = Cutout(4)(normalize(x), Stream(0))
    hole = (out == 0).all(1)
    assert hole.flatten(1).any(1).all()
    assert torch.equal(out[~hole[:, None].expand_as(out)], normalize(x)[~hole[:, None].expand_as(out)])


def test_streams_of_holes_and_wrong_arguments():
    x = torch.ones(8, 1, 8, 8)
    assert torch.equal(Cutout(3)(x, Stream(0, 1)), Cutout(3)(x, Stream(0, 1)))
    assert not torch.equal(Cutout(3)(x, Stream(0, 1)), Cutout(3)(x, Stream(0, 2)))
    with pytest.raises(InvalidValueError, match=r"Expected `cutout` to be an integer >= 0, but got 1\.5"):
        Cutout(1.5)
    with pytest.raises(InvalidValueError, match=r"Expected `augment\.cutout` to be an integer >= 0, but got -1"):
        AugmentConfig(cutout=-1)
    features = torch.zeros(2, 64)
    assert Cutout()(features, Stream(0)) is features
    with pytest.raises(InvalidValueError, match=r"to be N x C x H x W images, but got shape \(2, 64\)"):
        Cutout(1)(features, Stream(0))
