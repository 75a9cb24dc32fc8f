import pytest
import torch
from torch import nn

from noiserobust.errors import InvalidValueError
from noiserobust.models.registry import MODELS, build_model
from noiserobust.models.resnet import ResNet


def count(model):
    return sum(p.numel() for p in model.parameters())


def resnet_count(blocks, widths, projection, num_classes, in_channels):
    """Parameters written out: 9 c_in c_out a 3x3 convolution, 2 c a batch norm, c_in c_out a 1x1 one."""
    total = 9 * in_channels * widths[0] + 2 * widths[0]
    before = widths[0]
    for depth, width in zip(blocks, widths, strict=True):
        total += 9 * before * width + 9 * width * width + 4 * width
        total += (depth - 1) * (2 * 9 * width * width + 4 * width)
        if projection and before != width:
            total += before * width + 2 * width
        before = width
    return total + before * num_classes + num_classes


NARROW, WIDE = ((3, 3, 3), (16, 32, 64), False), ((2, 2, 2, 2), (64, 128, 256, 512), True)


@pytest.mark.parametrize(
    ("name", "shape", "published"),
    [("resnet20", NARROW, 269_722), ("resnet18", WIDE, 11_173_962)],
)
def test_resnets_have_the_published_number_of_parameters(name, shape, published):
    assert count(build_model(name)) == published == resnet_count(*shape, 10, 3)
    assert count(build_model(name, {"num_classes": 7, "in_channels": 1})) == resnet_count(*shape, 7, 1)


@pytest.mark.parametrize(("depth", "millions"), [(3, 0.27), (5, 0.46), (7, 0.66), (9, 0.85), (18, 1.7)])
def test_deeper_narrow_resnets_match_table_6_of_he_et_al(depth, millions):
    with torch.device("meta"):
        model = ResNet((depth,) * 3, (16, 32, 64), projection=False, num_classes=10, in_channels=3)
    assert round(count(model) / 1e6, 2 if millions < 1 else 1) == millions


@pytest.mark.parametrize(
    ("name", "shape", "low", "high"),
    [
        ("digits-mlp", (2, 1, 8, 8), 19_210, 19_210),
        ("digits-cnn", (2, 1, 8, 8), 20_000, 40_000),
        ("resnet20", (2, 3, 16, 16), 0, 1e9),
        ("resnet18", (2, 3, 8, 8), 0, 1e9),
    ],
)
def test_registered_models_map_images_to_logits_and_learn(name, shape, low, high):
    model = build_model(name)
    assert low <= count(model) <= high
    logits = model(torch.randn(shape))
    assert logits.shape == (2, 10)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_resnet_shortcut_without_parameters_is_that_of_option_a():
    model = build_model("resnet20").eval()
    block = model.layer2[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 16, 32, 32)
    expected = torch.zeros(1, 32, 16, 16)
    expected[:, 8:24] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)


def test_resnet_initialisation_and_images_of_another_size():
    model = build_model("resnet20").eval()
    weight = model.layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert model(torch.rand(1, 3, 48, 40)).shape == (1, 10)


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
        ("model.py", {}, "Expected `model` to be `package.module:callable`"),
    ],
)
def test_wrong_names_and_arguments(spec, args, message):
    with pytest.raises(InvalidValueError, match=message):
        build_model(spec, args)


def test_the_registry_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        MODELS["mine"] = nn.Identity
