"""What every network does, whatever its architecture: one small member of each family, real numbers."""

from functools import cache, partial

import pytest
import torch
from torch import nn

from noiserobust.models.blocks import Bottleneck
from noiserobust.models.registry import MODELS, build_model
from noiserobust.models.resnet import ResNet
from noiserobust.noise.scaled import GaussianNoise
from noiserobust.noise.sites import find_sites
from noiserobust.perturb import displaced, perturbed

FAMILIES = {
    "digits-mlp": partial(build_model, "digits-mlp"),
    "digits-cnn": partial(build_model, "digits-cnn"),
    "resnet20": partial(build_model, "resnet20"),
    "resnet9": partial(build_model, "resnet9"),
    "bottlenecks": partial(ResNet, (1, 2, 1), (8, 16, 32), Bottleneck, num_classes=10, in_channels=3),
    "wrn-10-2": partial(build_model, "wrn-10-2"),
    "wrn-16-1": partial(build_model, "wrn-16-1"),
    "vgg16-bn": partial(build_model, "vgg16-bn"),
    "vit": partial(build_model, "vit", {"depth": 2, "width": 32, "hidden": 48, "heads": 4}),
}
families = pytest.mark.parametrize("name", FAMILIES)


def images(name, number=4):
    generator = torch.Generator().manual_seed(0)
    shape = (1, 8, 8) if name.startswith("digits") else (3, 32, 32)
    return torch.randn(number, *shape, generator=generator)


@cache
def trained(name):
    """A network whose batch norm has seen data, in evaluation mode; shared, so tests leave it as it is."""
    torch.manual_seed(0)
    model = FAMILIES[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # cumulative average: one batch is enough
    with torch.no_grad():
        model(images(name, 8))
    return model.eval()


@pytest.mark.parametrize("name", [*MODELS, "wrn-40-4"])
def test_every_registered_model_maps_images_to_logits_and_back(name):
    with torch.device("meta"):
        model = build_model(name, {"num_classes": 7})
    logits = model(images(name).to("meta"))
    assert logits.shape == (4, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@families
def test_the_gradient_reaches_every_parameter(name):
    torch.manual_seed(0)
    model = FAMILIES[name]()
    nn.functional.cross_entropy(model(images(name)), torch.arange(4)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@families
@torch.no_grad()
def test_channels_last_changes_the_memory_only(name):
    expected = trained(name)(images(name))
    model = FAMILIES[name]().eval()
    model.load_state_dict(trained(name).state_dict())
    model = model.to(memory_format=torch.channels_last)
    actual = model(images(name).to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@families
@torch.no_grad()
@pytest.mark.slow
def test_bf16_autocast_is_near_float32(name):
    expected = trained(name)(images(name))
    with torch.autocast("cpu", torch.bfloat16):
        actual = trained(name)(images(name))
    assert actual.dtype == torch.bfloat16
    # Deep random networks amplify rounding, VGG to 5%; a layer that goes wrong would leave no likeness at all.
    assert nn.functional.cosine_similarity(actual.float(), expected).min() > 0.98


@families
@torch.no_grad()
def test_in_evaluation_an_image_does_not_see_the_others(name):
    together = trained(name)(images(name))
    alone = torch.cat([trained(name)(x[None]) for x in images(name)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * alone.abs().max().item())


@families
@torch.no_grad()
def test_a_state_dict_carries_everything(name):
    other = FAMILIES[name]().eval()
    assert not torch.equal(other(images(name)), trained(name)(images(name)))
    other.load_state_dict(trained(name).state_dict())
    assert torch.equal(other(images(name)), trained(name)(images(name)))


@families
def test_noise_falls_on_every_convolution_and_linear_layer_and_nothing_else(name):
    model = trained(name)
    layers = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    # pytest makes a warning of find_sites about weights left out an error.
    assert {site.name for site in find_sites(model)} == layers


@families
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_noise_in_place_changes_what_the_evaluated_network_says(name, context):
    model = trained(name)
    with context():
        clean = model(images(name))
        with perturbed(model, GaussianNoise(0.1)):
            noisy = model(images(name))
        assert not torch.allclose(noisy, clean, rtol=1e-3)
        assert torch.equal(model(images(name)), clean)


@torch.inference_mode()
def test_every_single_weight_of_the_vision_transformer_counts_in_evaluation():
    model = trained("vit")
    clean = model(images("vit"))
    for site in find_sites(model):
        with displaced([(site, 2 * site.weight())]):
            assert not torch.allclose(model(images("vit")), clean, atol=1e-6), site.name
