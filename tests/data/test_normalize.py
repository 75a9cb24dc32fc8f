import pytest
import torch

from noiserobust.data.digits import load_digits
from noiserobust.data.normalize import NORMALIZATIONS, Normalize, parse_normalize
from noiserobust.errors import InvalidValueError


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_scaled_then_normalised_channel_by_channel(layout):
    x = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8).to(memory_format=layout)
    before = x.clone()
    out = Normalize((0.1, 0.2, 0.3), (1, 2, 4))(x)
    for c, (m, s) in enumerate(zip((0.1, 0.2, 0.3), (1, 2, 4), strict=True)):
        assert torch.equal(out[:, c], (x[:, c].float() / 255 - m) / s)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_floats_are_not_rescaled_and_not_changed(dtype):
    x = torch.ones(2, 3, dtype=dtype)
    out = Normalize((0.5, 0.5, 1), (0.25, 0.5, 1))(x)
    assert out.tolist() == [[2, 1, 0]] * 2
    assert out.dtype == dtype
    assert x.eq(1).all()


def test_none_scales_bytes_only():
    none = parse_normalize("none")
    assert none(torch.tensor([[255, 51]], dtype=torch.uint8)).tolist() == [[1, pytest.approx(0.2)]]
    x = torch.full((1, 2), 7.0)
    assert torch.equal(none(x), x)


@pytest.mark.parametrize("text", [*NORMALIZATIONS, "0.5/2", "1e-3,0.2/1,3.0"])
def test_the_text_of_a_normalisation_gives_it_back(text):
    normalize = parse_normalize(text)
    assert parse_normalize(str(normalize)) == normalize
    assert str(parse_normalize(str(normalize))) == str(normalize)


def test_the_numbers_of_the_digits_are_those_of_their_training_part():
    x = load_digits("train").x.double()
    digits = NORMALIZATIONS["digits"]
    assert digits.mean[0] == round(x.mean().item(), 4)
    assert digits.std[0] == round(x.std(correction=0).item(), 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar01", "Expected `normalize` to be one of .*; did you mean 'cifar10'"),
        ("0.5", "Expected `normalize` to be one of"),
        ("0.5,x/1,1", "to be means and stds like 0.5,0.5,0.5/0.25,0.25,0.25, but got '0.5,x/1,1'"),
        ("1/2/3", "to be means and stds like"),
        ("/", "to be means and stds like"),
        ("0,0/1", "to have as many stds as means, but got 2 means and 1 stds"),
        ("0/0", "finite stds > 0"),
        ("0/-1", "finite stds > 0"),
        ("nan/1", "finite means"),
        ("0/inf", "finite stds"),
    ],
)
def test_wrong_texts(text, message):
    with pytest.raises(InvalidValueError, match=message):
        parse_normalize(text)


def test_wrong_inputs():
    with pytest.raises(InvalidValueError, match=r"inputs with 3 channels .* but got shape \(2, 1, 8, 8\)"):
        parse_normalize("cifar10")(torch.zeros(2, 1, 8, 8))
    with pytest.raises(InvalidValueError, match=r"inputs to be uint8 or floating, but got torch.int64"):
        parse_normalize("none")(torch.ones(2, 3, dtype=torch.int64))
