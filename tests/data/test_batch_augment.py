import pytest
import torch

from noiserobust.data.augment import Augment
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
