import pytest
import torch
from torch import nn

from noiserobust.errors import InvalidValueError
from noiserobust.models.registry import MODELS, build_model
from noiserobust.models.vit import Attention


def test_the_resnet_shortcut_without_parameters_is_that_of_option_a():
    model = build_model("resnet20").eval()
    block = model.layer2[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 16, 32, 32)
    expected = torch.zeros(1, 32, 16, 16)
    expected[:, 8:24] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize("name", ["resnet20", "resnet9", "wrn-10-2", "vgg16-bn"])
def test_convolutions_start_from_he_s_distribution(name):
    convolutions = [m for m in build_model(name).modules() if isinstance(m, nn.Conv2d)]
    for layer in convolutions:
        fan_out = layer.out_channels * layer.kernel_size[0] ** 2
        tolerance = 5 / layer.weight.numel() ** 0.5  # seven standard errors
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=tolerance)
        assert layer.bias is None or not layer.bias.any()


def test_the_vision_transformer_starts_from_a_truncated_normal_distribution():
    model = build_model("vit", {"depth": 1, "width": 64})
    drawn = [model.class_token, model.positions, *(m.weight for m in model.modules() if isinstance(m, nn.Linear))]
    values = torch.cat([weight.detach().flatten() for weight in drawn])
    # A normal distribution cut at two standard deviations has 0.8796 of the standard deviation.
    assert values.std().item() == pytest.approx(0.8796 * 0.02, rel=0.02)
    assert values.abs().max() <= 0.04
    assert not any(m.bias.any() for m in model.modules() if isinstance(m, nn.Linear))


def test_the_shortcut_of_a_wide_block_starts_from_the_activated_input():
    block = build_model("wrn-10-2").eval().layer2[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(1, 32, 8, 8)
    assert torch.equal(block(x), block.shortcut(block.bn1(x).relu()))


def test_attention_agrees_with_torch_s_own():
    ours = Attention(width=24, heads=4)
    reference = nn.MultiheadAttention(24, 4, batch_first=True)
    reference.in_proj_weight, reference.in_proj_bias = ours.qkv.weight, ours.qkv.bias
    reference.out_proj = ours.out
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(ours(x), reference(x, x, x)[0])


def test_the_vision_transformer_sees_where_a_patch_is():
    model = build_model("vit", {"depth": 1, "width": 32}).eval()
    x = torch.randn(1, 3, 32, 32)
    moved = x.roll(4, dims=3)
    assert not torch.allclose(model(x), model(moved), atol=1e-6)
    nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(x), model(moved))


@pytest.mark.parametrize("name", ["resnet20", "wrn-10-1", "vgg16-bn"])
def test_images_of_another_size(name):
    assert build_model(name).eval()(torch.rand(1, 3, 48, 40)).shape == (1, 10)


def test_the_vision_transformer_says_which_images_it_takes():
    model = build_model("vit", {"image_size": 16, "patch": 8, "depth": 1, "width": 32})
    assert model(torch.rand(1, 3, 16, 16)).shape == (1, 10)
    with pytest.raises(InvalidValueError, match=r"Expected images of 16x16 pixels, .* but got 32x32"):
        model(torch.rand(1, 3, 32, 32))


def test_a_model_from_a_file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\ndef make(width=2): return nn.Linear(3, width)\ndef text(): return 'net'\n"
        "def broken(): raise OSError('no disk')\n"
    )
    assert build_model(f"{path}:make", {"width": 5}).out_features == 5
    with pytest.raises(InvalidValueError, match=r"to return a torch.nn.Module, but got str"):
        build_model(f"{path}:text")
    with pytest.raises(InvalidValueError, match=r"it raised OSError: no disk"):
        build_model(f"{path}:broken")


@pytest.mark.parametrize(
    ("spec", "args", "message"),
    [
        ("resnt20", {}, r"Expected `model` to be one of .*, but got 'resnt20'; did you mean 'resnet20'\?"),
        ("resnet20", {"num_class": 3}, r"\(.*num_classes.*in_channels.*\), but got .*; did you mean 'num_classes'\?"),
        ("resnet20", {"num_classes": 0}, "Expected `num_classes` to be an integer >= 1, but got 0"),
        ("resnet18", {"in_channels": "3"}, "Expected `in_channels` to be an integer >= 1, but got '3'"),
        ("digits-mlp", {"hidden": 2.5}, "Expected `hidden` to be an integer >= 1, but got 2.5"),
        ("digits-cnn", {"num_classes": True}, "Expected `num_classes`"),
        ("WRN-28-10", {}, r"one of .*'vgg16-bn', 'vit', .*'wrn-<depth>-<width>', but .*; did you mean 'wrn-28-10'\?"),
        ("wrn-28", {}, r"Expected `model` to be one of .*, but got 'wrn-28'; did you mean 'wrn-28-10'\?"),
        ("wrn-16--5", {}, r"Expected `model` to be one of .*; did you mean 'wrn-16-5'\?"),
        ("vgg16", {}, r"did you mean 'vgg16-bn'\?"),
        ("wrn-17-5", {}, r"Expected `depth` of a wide ResNet to be 6n \+ 4 \(10, 16, 22, 28, ...\), but got 17"),
        ("wrn-4-5", {}, "Expected `depth` to be an integer >= 10, but got 4"),
        ("wrn-16-0", {}, "Expected `width` to be an integer >= 1, but got 0"),
        ("wrn-16-5", {"width": 3}, r"\(num_classes: .*in_channels: .*\), but got \{'width': 3\}: got an"),
        ("wrn-16-5", {"num_classes": 0}, "Expected `num_classes` to be an integer >= 1, but got 0"),
        ("vgg16-bn", {"in_channels": 0}, "Expected `in_channels` to be an integer >= 1, but got 0"),
        ("vit", {"heads": 0}, "Expected `heads` to be an integer >= 1, but got 0"),
        ("vit", {"heads": 5}, r"Expected `width` to be a multiple of `heads` \(5\), but got 512"),
        ("vit", {"patch": 5}, r"Expected `image_size` to be a multiple of `patch` \(5\), but got 32"),
        ("vit", {"dropout": 2}, "Expected `dropout` to be a finite number >= 0 and <= 1, but got 2"),
        ("model.py", {}, "Expected `model` to be `package.module:callable`"),
    ],
)
def test_wrong_names_and_arguments(spec, args, message):
    with pytest.raises(InvalidValueError, match=message):
        build_model(spec, args)


def test_the_registry_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        MODELS["mine"] = nn.Identity
