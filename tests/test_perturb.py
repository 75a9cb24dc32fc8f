"""A model on a noisy chip, and taken back bit for bit, whatever happens in between."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from noiserobust.errors import InvalidValueError
from noiserobust.noise.base import chip_stream
from noiserobust.noise.layout import FilterView
from noiserobust.noise.scaled import GaussianNoise, LaplaceNoise
from noiserobust.noise.sites import find_sites
from noiserobust.perturb import displaced, perturbed
from noiserobust.rng import Stream

NOISE = GaussianNoise(0.1)


class Everything(nn.Module):
    """One of each kind of layer, with weights that noise falls on and weights it does not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 6, 2, groups=2)
        self.linear = nn.Linear(6, 5)
        self.layer_norm = nn.LayerNorm([5, 5])
        self.embedding = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
        self.lstm = nn.LSTM(8, 4)
        self.prelu = nn.PReLU()
        self.scale = nn.Parameter(torch.ones(3, 3))


CROSSBAR = {
    "conv.weight",
    "up.weight",
    "linear.weight",
    "embedding.weight",
    "attention.in_proj_weight",
    "attention.out_proj.weight",
    "lstm.weight_ih_l0",
    "lstm.weight_hh_l0",
}


@pytest.fixture
def model():
    with Stream(0, "model").as_torch_default():
        return Everything().eval()


def small():
    with Stream(0, "small").as_torch_default():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


def bits(model):
    """Return every parameter and buffer as bytes, with its address and strides."""
    return {
        name: (
            tensor.data_ptr(),
            tensor.stride(),
            tensor.dtype,
            tensor.detach().contiguous().view(torch.uint8).tolist(),
        )
        for name, tensor in model.state_dict(keep_vars=True).items()
        if tensor.ndim
    }


def names(model, select=None):
    return [site.name for site in find_sites(model, select)]


def changed(model, before):
    return {name for name, (*_, content) in bits(model).items() if content != before[name][-1]}


# ------------------------------------------------------------------------------------------------------------ selection


def test_noise_falls_on_crossbar_weights_by_default(model):
    assert set(names(model)) == CROSSBAR
    before = bits(model)
    with perturbed(model, NOISE):
        assert changed(model, before) == CROSSBAR


def test_a_selection_is_a_pattern_patterns_or_a_function(model):
    assert names(model, "conv.*") == ["conv.weight"]  # patterns choose among the crossbar's weights: no biases
    assert names(model, ["linear.weight", "up*"]) == ["up.weight", "linear.weight"]
    assert names(model, lambda name, module, weight: name == "scale") == ["scale"]
    assert set(names(model, lambda name, module, weight: weight.ndim == 4)) == {"conv.weight", "up.weight"}
    assert names(model, lambda name, module, weight: isinstance(module, nn.Linear) and name == "linear.bias") == [
        "linear.bias"
    ]


@pytest.mark.parametrize("select", ["nothing.*", "Conv.weight", ["conv.*", "linaer.*"], [], "", 3, lambda *_: False])
def test_nothing_selected_is_an_error_that_lists_the_names(model, select):
    with pytest.raises(InvalidValueError, match=r"Expected (`model`|every pattern of `select`|`select`) to "):
        names(model, select)
    with pytest.raises(InvalidValueError), perturbed(model, NOISE, select=select):
        pass


def test_a_misspelt_pattern_is_named_with_the_nearest_weight(model):
    with pytest.raises(InvalidValueError, match=r"'linaer.weight' matches none; did you mean 'linear.weight'\?"):
        names(model, ["conv.*", "linaer.weight"])


def test_weights_of_unknown_layers_are_left_out_with_a_warning():
    class Conv1D(nn.Module):  # as in GPT-2: a matrix of shape (in, out), no Linear
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.zeros(4))

    model = nn.Sequential(Conv1D(), nn.Linear(4, 2), nn.LayerNorm((2, 2)))
    with pytest.warns(UserWarning, match=r"No noise falls on 0\.weight, as"):
        assert names(model) == ["1.weight"]
    assert names(model, "1.*") == ["1.weight"]


def test_a_model_without_crossbar_weights_is_an_error():
    with pytest.raises(
        InvalidValueError, match="to have a Conv, Linear or Embedding weight, but got parameters weight"
    ):
        names(nn.BatchNorm1d(3))
    with pytest.raises(InvalidValueError, match="but got parameters none"):
        names(nn.ReLU())


def test_a_lone_layer_has_plain_names():
    assert names(nn.Linear(2, 3)) == ["weight"]


# -------------------------------------------------------------------------------------------------- which noise it is


def test_each_weight_has_the_noise_of_its_name_on_the_chip_of_seed_train_seed_and_draw(model):
    clean = {name: p.detach().clone() for name, p in model.named_parameters()}
    noise = GaussianNoise(0.1, granularity="filter")
    with perturbed(model, noise, 5, 3, train_seed=2):
        for name in CROSSBAR:
            view = FilterView(transposed=True, groups=2) if name == "up.weight" else FilterView()
            wanted = noise.perturb(clean[name], Stream(5, "deploy", 2, 3, name), view)
            assert torch.equal(model.get_parameter(name), wanted), name


def test_another_seed_draw_or_train_seed_is_another_chip():
    model = small()

    def weight(**chip):
        with perturbed(model, NOISE, **chip):
            return model[3].weight.detach().clone()

    chips = [weight(), weight(seed=1), weight(draw=1), weight(train_seed=1), weight(seed=2**32), weight(draw=2**32)]
    assert all(torch.equal(a, b) == (i == j) for i, a in enumerate(chips) for j, b in enumerate(chips))
    assert torch.equal(weight(seed=0, draw=0, train_seed=0), chips[0])
    assert chip_stream(1, 2, 3) == Stream(1, "deploy", 2, 3)


def test_draws_do_not_depend_on_the_order_in_which_they_are_made():
    model = small()

    def weights(draws):
        found = {}
        for draw in draws:
            with perturbed(model, NOISE, draw=draw):
                found[draw] = [p.detach().clone() for p in model.parameters()]
        return found

    forward, backward = weights([0, 1, 2]), weights([2, 0, 1])
    assert all(torch.equal(a, b) for draw in forward for a, b in zip(forward[draw], backward[draw], strict=True))


@pytest.mark.parametrize("noise", [NOISE, LaplaceNoise(0.1, reference="l2", granularity="tile", tile=(3, 2))], ids=repr)
def test_noise_does_not_depend_on_threads_or_on_other_weights(noise):
    def weight(model, **options):
        with perturbed(model, noise, **options):
            return model.get_parameter("3.weight").detach().clone()

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        wanted = weight(small())
        torch.set_num_threads(2)
        assert torch.equal(weight(small()), wanted)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(weight(small(), select="3.weight"), wanted)
    larger = small()
    larger.insert(0, nn.Identity())
    larger.append(nn.Linear(3, 3))
    with perturbed(larger, noise, select="4.weight"):
        assert not torch.equal(larger[4].weight, wanted)  # its name is another
    wider = small()
    wider[0] = nn.Conv2d(9, 4, 5)
    assert torch.equal(weight(wider), wanted)


def test_global_generators_are_left_alone(model):
    def states():
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        return torch.get_rng_state().tolist(), (kind, keys.tolist(), *rest), random.getstate()

    parametrize.register_parametrization(model.linear, "weight", Shaky())
    before = states()
    with perturbed(model, NOISE):
        pass
    assert states() == before


# ------------------------------------------------------------------------------------------------------------- restore


@dataclass(frozen=True)
class Failing(GaussianNoise):
    """Raises when the third weight is asked for."""

    error: type[BaseException] = KeyboardInterrupt
    calls: list[int] = field(default_factory=list)

    def perturb(self, weight, stream, view=None):
        self.calls.append(0)
        if len(self.calls) == 3:
            raise self.error
        return super().perturb(weight, stream)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, GeneratorExit, SystemExit])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_are_restored_bit_for_bit_after_the_block(model, error, dtype):
    model = model.to(dtype)
    model.linear.weight.data[0, :3] = torch.tensor([-0.0, 1e-40, 1e-30])
    before = bits(model)

    def use():
        with perturbed(model, GaussianNoise(3.0)) as same:
            assert same is model
            assert changed(model, before) == CROSSBAR
            if error:
                raise error

    if error:
        with pytest.raises(error):
            use()
    else:
        use()
    assert bits(model) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_weights_are_restored_if_noise_fails_halfway(model, error):
    before = bits(model)
    noise = Failing(0.1, error)
    with pytest.raises(error), perturbed(model, noise):
        pytest.fail("the block must not run")
    assert len(noise.calls) == 3
    assert bits(model) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_weights_are_restored_if_a_second_interrupt_strikes_while_they_are(model, error, monkeypatch):
    before, copies = bits(model), []
    copy = torch.Tensor.copy_

    def interrupted(self, *arguments):
        copies.append(0)
        if len(copies) == len(CROSSBAR) + 3:
            raise error
        return copy(self, *arguments)

    monkeypatch.setattr(torch.Tensor, "copy_", interrupted)
    with pytest.raises(error), perturbed(model, NOISE):
        pass
    monkeypatch.undo()
    assert bits(model) == before


def test_nan_weights_are_restored_too():
    model = small()
    model[3].weight.data[0, 0] = float("nan")
    before = bits(model)
    with perturbed(model, NOISE):
        assert not model[3].weight[0].isfinite().any()
    assert bits(model) == before


def test_chips_can_be_nested(model):
    before = bits(model)
    with perturbed(model, NOISE, draw=0):
        first = bits(model)
        with perturbed(model, NOISE, draw=1, select="conv.weight"):
            assert changed(model, first) == {"conv.weight"}
        assert bits(model) == first
        with pytest.raises(ValueError, match="inside"), perturbed(model, NOISE, draw=1):
            raise ValueError("inside")
        assert bits(model) == first
    assert bits(model) == before


def test_memory_stays_where_and_as_it_is(model):
    model = model.to(memory_format=torch.channels_last)
    assert not model.conv.weight.is_contiguous()
    before = bits(model)
    with perturbed(model, NOISE):
        assert {n: b[:3] for n, b in bits(model).items()} == {n: b[:3] for n, b in before.items()}
    assert bits(model) == before


def test_the_noise_does_not_depend_on_memory_layout():
    def weight(model):
        with perturbed(model, NOISE):
            return model[0].weight.detach().clone()

    assert torch.equal(weight(small().to(memory_format=torch.channels_last)), weight(small()))


def test_frozen_weights_are_noisy_and_stay_frozen():
    model = small().requires_grad_(False)
    before = bits(model)
    with perturbed(model, NOISE):
        assert changed(model, before) == {"0.weight", "3.weight"}
        assert not any(p.requires_grad for p in model.parameters())
    assert bits(model) == before


def test_gradients_of_the_noisy_model_reach_the_weights():
    model, x = nn.Linear(3, 1), torch.rand(4, 3)
    with perturbed(model, NOISE):
        model(x).square().sum().backward()
        wanted = 2 * (x * (F.linear(x, model.weight, model.bias)).detach()).sum(0)
    torch.testing.assert_close(model.weight.grad[0], wanted)


def test_parameters_can_be_displaced_as_such():
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    with displaced([(parameter, torch.tensor([3.0, 4.0])), (parameter, torch.tensor([5.0, 6.0]))]):
        assert parameter.tolist() == [5.0, 6.0]
    assert parameter.tolist() == [1.0, 2.0]


# --------------------------------------------------------------------------------------------------------- tied weights


def tied(kind):
    model = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4, bias=False))
    weight = model[0].weight
    model[1].weight = {
        "one parameter": lambda: weight,
        "one storage": lambda: nn.Parameter(weight.data),
        "transposed": lambda: nn.Parameter(weight.data.t()),
    }[kind]()
    return model


@pytest.mark.parametrize("kind", ["one parameter", "one storage", "transposed"])
def test_tied_weights_are_noisy_once(kind):
    model = tied(kind)
    clean, before = model[0].weight.detach().clone(), bits(model)
    assert names(model) == ["0.weight"]
    with perturbed(model, NOISE):
        wanted = NOISE.perturb(clean, chip_stream(0, 0, 0).child("0.weight"))
        assert torch.equal(model[0].weight, wanted)
        assert torch.equal(model[1].weight, wanted.t() if kind == "transposed" else wanted)
    assert bits(model) == before


def test_a_module_used_twice_is_noisy_once():
    layer = nn.Linear(3, 3)
    assert names(nn.Sequential(layer, nn.ReLU(), layer)) == ["0.weight"]


# ------------------------------------------------------------------------------------------------- parametrised weights


class Shaky(nn.Module):
    """A parametrisation that uses random numbers and state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, weight):
        self.calls += 1
        return weight * (1 + 0.0 * torch.rand(1)) + 0.1 * self.calls


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight.tanh()


PARAMETRISED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "custom": lambda module: parametrize.register_parametrization(module, "weight", Double()),
    "stateful": lambda module: parametrize.register_parametrization(module, "weight", Shaky()),
    "two": lambda module: parametrize.register_parametrization(
        parametrizations.spectral_norm(module), "weight", Double()
    ),
}


def parametrised(kind, module=None):
    with Stream(0, "p").as_torch_default():
        return PARAMETRISED[kind](module or nn.Linear(5, 4))


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, torch.float32) for kind in PARAMETRISED]
    # torch has no matrix exponential in bfloat16
    + [(kind, torch.bfloat16) for kind in PARAMETRISED if kind != "orthogonal"],
)
def test_noise_falls_on_the_effective_weight(kind, train, dtype):
    model = nn.Sequential(parametrised(kind)).train(train).to(dtype)
    chain, before = model[0].parametrizations.weight, bits(model)
    steps, keys = list(chain), list(model.state_dict())
    assert names(model) == ["0.weight"]
    assert bits(model) == before
    # What the weight would be if it were computed now; it is computed on a copy, as this may advance buffers.
    copy = nn.Sequential(parametrised(kind)).train(train).to(dtype)
    copy.load_state_dict(model.state_dict())
    clean = copy[0].weight.detach()
    with perturbed(model, NOISE, draw=4):
        assert bits(model) == before
        assert list(model.state_dict()) == keys
        assert torch.equal(model[0].weight, NOISE.perturb(clean, chip_stream(0, 0, 4).child("0.weight")))
    assert list(model[0].parametrizations.weight) == steps
    assert chain is model[0].parametrizations.weight
    model.load_state_dict(copy.state_dict())
    model.eval()
    copy.eval()
    assert torch.equal(model[0].weight, copy[0].weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_effective_weight_is_exact_where_adding_a_difference_would_round(dtype):
    module = parametrised("weight_norm", nn.Linear(64, 64)).to(dtype)
    clean = module.weight.detach().clone()
    value = 1e-2 * torch.from_numpy(Stream(0, "value").normal((64, 64))).to(dtype)
    assert not torch.equal(clean + (value - clean), value)
    with displaced([(site, value) for site in find_sites(module)]):
        assert torch.equal(module.weight, value)
    assert torch.equal(module.weight, clean)


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal", "custom"])
def test_gradients_of_the_effective_weight_reach_what_it_is_made_of(kind):
    module = parametrised(kind).eval()
    x, originals = torch.rand(3, 5), [p for n, p in module.named_parameters() if "original" in n]
    clean = module.weight
    noisy = NOISE.perturb(clean, chip_stream(0, 0, 0).child("weight"))
    loss = F.linear(x, clean + (noisy - clean).detach(), module.bias).square().sum()
    wanted = torch.autograd.grad(loss, originals)
    with perturbed(module, NOISE):
        found = torch.autograd.grad(module(x).square().sum(), originals)
    assert any(g.abs().max() > 0.01 for g in wanted)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_parametrised_weights_are_restored_after_an_error(error):
    model = nn.Sequential(*(parametrised(kind) for kind in PARAMETRISED)).eval()
    before = bits(model)
    lengths = [len(module.parametrizations.weight) for module in model]
    with pytest.raises(error), perturbed(model, NOISE):
        raise error
    with pytest.raises(error), perturbed(model, Failing(0.1, error)):
        pytest.fail("the block must not run")
    assert [len(module.parametrizations.weight) for module in model] == lengths
    assert bits(model) == before


def test_chips_can_be_nested_on_parametrised_weights():
    module = parametrised("weight_norm")
    clean = module.weight.detach().clone()
    with perturbed(module, NOISE, draw=0):
        first = module.weight.detach().clone()
        with perturbed(module, NOISE, draw=1):
            assert torch.equal(module.weight, NOISE.perturb(first, chip_stream(0, 0, 1).child("weight")))
        assert torch.equal(module.weight, first)
    assert torch.equal(module.weight, clean)


def test_a_parametrised_transposed_convolution_has_its_filters():
    module = parametrised("weight_norm", nn.ConvTranspose2d(4, 6, 2, groups=2))
    noise, clean = GaussianNoise(0.1, reference="l2"), module.weight.detach().clone()
    with perturbed(module, noise):
        wanted = noise.perturb(clean, chip_stream(0, 0, 0).child("weight"), FilterView(transposed=True, groups=2))
        assert torch.equal(module.weight, wanted)


def test_parametrised_recurrent_weights_are_noisy():
    module, x = nn.LSTM(3, 4), torch.rand(2, 1, 3)
    parametrizations.weight_norm(module, "weight_hh_l0")
    clean, before = module(x)[0].detach(), bits(module)
    assert set(names(module)) == {"weight_ih_l0", "weight_hh_l0"}
    with perturbed(module, NOISE, select="weight_hh_l0"):
        assert not torch.equal(module(x)[0], clean)
    assert bits(module) == before
    assert torch.equal(module(x)[0], clean)


def test_an_enclosing_cache_of_parametrisations_neither_hides_nor_keeps_the_noise():
    module = parametrised("weight_norm")
    clean = module.weight.detach().clone()
    with parametrize.cached():
        assert torch.equal(module.weight, clean)
        with perturbed(module, NOISE):
            noisy = NOISE.perturb(clean, chip_stream(0, 0, 0).child("weight"))
            assert torch.equal(module.weight, noisy)
        assert torch.equal(module.weight, clean)


# ------------------------------------------------------------------------------------------- weights that are refused


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.utils.weight_norm(nn.Linear(3, 3)),
        lambda: nn.utils.spectral_norm(nn.Linear(3, 3)),
        lambda: prune.l1_unstructured(nn.Linear(3, 3), "weight", 2),
        lambda: prune.l1_unstructured(nn.Conv2d(3, 3, 3), "weight", 2),
        lambda: prune.l1_unstructured(parametrize_bias(nn.Linear(3, 3)), "weight", 2),
        lambda: nn.utils.weight_norm(nn.LSTM(3, 3), "weight_hh_l0"),
        lambda: prune.l1_unstructured(nn.MultiheadAttention(4, 2), "in_proj_weight", 2),
    ],
)
def test_weights_that_old_hooks_compute_are_refused(make):
    model = nn.Sequential(nn.Linear(2, 2), make())
    before = bits(model)
    with (
        pytest.raises(InvalidValueError, match=r"Expected 1\.(weight|weight_hh_l0|in_proj_weight) to be .* a hook"),
        perturbed(model, NOISE),
    ):
        pytest.fail("the block must not run")
    assert bits(model) == before


def parametrize_bias(module):
    return parametrize.register_parametrization(module, "bias", Double())


def test_a_pruned_bias_does_not_matter():
    assert names(prune.l1_unstructured(nn.Linear(3, 3), "bias", 1)) == ["weight"]


def test_pruning_that_was_made_permanent_is_fine():
    assert names(prune.remove(prune.l1_unstructured(nn.Linear(3, 3), "weight", 2), "weight")) == ["weight"]


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_lazy_weights_are_refused():
    with pytest.raises(InvalidValueError, match=r"Expected 1\.weight to be initialised, but it is lazy"):
        names(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(2, 2, device="meta"),
        lambda: parametrizations.weight_norm(nn.Linear(2, 2, bias=False)).to("meta"),
    ],
)
def test_weights_without_numbers_are_refused(make):
    with pytest.raises(InvalidValueError, match=r"Expected 1\.weight to hold numbers, but it is on the meta device"):
        names(nn.Sequential(nn.Linear(2, 2), make()))


# ------------------------------------------------------------------------------------------- wrappers and autocast


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPERS = {
    "data parallel": nn.DataParallel,
    "compiled": compiled,
    "compiled data parallel": lambda model: compiled(nn.DataParallel(model)),
    "data parallel of compiled": lambda model: nn.DataParallel(compiled(model)),
}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrappers_change_neither_names_nor_noise(wrap):
    model, plain = small(), small()
    wrapped = WRAPPERS[wrap](model)
    assert names(wrapped) == names(plain)
    with perturbed(wrapped, NOISE) as same, perturbed(plain, NOISE):
        assert same is wrapped
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert names(wrapped, "3.*") == ["3.weight"]


def test_compiled_parts_change_no_names():
    model = small()
    model[0] = compiled(model[0])
    assert names(model) == ["0.weight", "3.weight"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
def test_a_compiled_model_that_has_run_clean_runs_noisy():
    plain, x = small().eval(), torch.rand(2, 3, 3, 3)
    model = compiled(plain)
    with torch.no_grad():
        clean = model(x)
        with perturbed(model, NOISE):
            noisy = model(x)
            torch.testing.assert_close(noisy, plain(x))
        assert not torch.allclose(noisy, clean)
        assert torch.equal(model(x), clean)


@pytest.mark.parametrize("make", [small, lambda: nn.Sequential(parametrised("weight_norm", nn.Conv2d(3, 4, 3)))])
def test_an_enclosing_autocast_sees_the_noisy_weights_and_then_the_clean_ones(make):
    # Autocast keeps bfloat16 copies of the weights for as long as it lasts.
    model, x = make().eval(), torch.rand(1, 3, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        clean = model(x)
    with perturbed(model, NOISE), torch.autocast("cpu", torch.bfloat16):
        noisy = model(x)
    assert not torch.equal(noisy, clean)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), clean)
        with perturbed(model, NOISE):
            assert torch.equal(model(x), noisy)
        assert torch.equal(model(x), clean)
        with pytest.raises(InvalidValueError), perturbed(model, NOISE):
            NOISE.at(model(x).mean().item() * float("nan"))
        assert torch.equal(model(x), clean)
