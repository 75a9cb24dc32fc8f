"""Where noise falls: the weights of a model that live in a crossbar."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from noiserobust.errors import InvalidValueError, did_you_mean
from noiserobust.noise.layout import FilterView

Select = str | Sequence[str] | Callable[[str, nn.Module, Tensor], bool]
"""Which weights are noisy.

Patterns of names such as ``"layer1.*"`` choose among the weights that live in a crossbar; a function of name, module
and weight chooses among all parameters, biases and normalisation included.
"""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CROSSBAR = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag)
# Several weights under names of their own.
_CROSSBAR_MANY = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


@dataclass(frozen=True)
class Site:
    """A weight that noise can fall on.

    Args:
        name: its name in the model; of a parametrised weight, the name of the effective weight.
        module: the module that holds it.
        attribute: under which attribute.
        view: how it is laid out in filters.
    """

    name: str
    module: nn.Module
    attribute: str
    view: FilterView

    @property
    def parametrised(self) -> bool:
        """Whether the weight is computed by ``torch.nn.utils.parametrize``."""
        return parametrize.is_parametrized(self.module, self.attribute)

    def parameter(self) -> nn.Parameter:
        """Return the parameter itself; only of a site that is not parametrised."""
        parameter: nn.Parameter = getattr(self.module, self.attribute)
        return parameter

    def shape(self) -> torch.Size:
        """Return the shape of the weight."""
        return self.weight().shape if self.parametrised else self.parameter().shape

    def weight(self) -> Tensor:
        """Return the effective weight, detached: a parameter's own memory, or the result of its parametrisation."""
        if not self.parametrised:
            return self.parameter().detach()
        # Spectral normalisation advances its power iteration whenever it is computed in training mode.
        chain = parametrisation_of(self.module, self.attribute)
        buffers = [(b, b.clone()) for b in chain.buffers()]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            value: Tensor = chain()
            for buffer, saved in buffers:
                buffer.copy_(saved)
        return value.detach()


def find_sites(model: nn.Module, select: Select | None = None) -> list[Site]:
    """Return the weights of a model that noise falls on; tied weights once.

    Args:
        model: any module; wrappers (DataParallel, DDP, torch.compile) do not change the names.
        select: which ones; by default those that live in a crossbar: weights with at least two dimensions of Conv,
            Linear, Bilinear, Embedding, recurrent and MultiheadAttention modules, and the ``Conv1D`` of transformers.
            Biases and normalisation parameters are digital.

    Warns:
        UserWarning: if, by default, weights of other modules with at least two dimensions stay without noise.

    Raises:
        InvalidValueError: if nothing is selected, a pattern matches nothing, or a weight cannot be changed in place
            (sharded, meta or lazy tensors, weights computed by the old hook-based ``weight_norm`` and ``prune``).

    >>> [site.name for site in find_sites(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)))]
    ['0.weight', '2.weight']
    """
    if not isinstance(model, nn.Module):
        raise InvalidValueError(f"Expected `model` to be a module, but got {type(model).__name__}")
    sites: dict[tuple[int, int | str], Site] = {}
    names = []
    crossbar = []
    left_out = []
    for name, module, attribute in _candidates(_unwrap(model)):
        site = Site(name, module, attribute, _view(module))
        names.append(name)
        if not callable(select) and not _in_crossbar(site):
            left_out += [name] if _looks_like_crossbar(site) else []
            continue
        crossbar.append(name)
        if select is not None and not callable(select) and not _matches(name, select):
            continue
        _check_plain(site)
        weight = site.weight()
        _check_whole(name, weight)
        if not weight.is_floating_point() or weight.numel() == 0:
            continue
        if not select(name, module, weight) if callable(select) else weight.ndim < 2:
            continue
        _check_not_hooked(site)
        # Tied weights share memory, whether as one parameter or as views of one storage.
        key = (id(module), attribute) if site.parametrised else (weight.data_ptr(), weight.numel())
        sites.setdefault(key, site)
    if select is not None and not callable(select):
        _check_all_match(select, crossbar)
    if not sites:
        wanted = "a Conv, Linear or Embedding weight" if select is None else f"a weight that {select!r} selects"
        raise InvalidValueError(f"Expected `model` to have {wanted}, but got parameters {', '.join(names) or 'none'}")
    if select is None and left_out:
        warnings.warn(
            f"No noise falls on {', '.join(left_out)}, as their modules are not known to live in a crossbar; "
            "`select` takes a function that chooses among all parameters",
            stacklevel=1,  # once, wherever it is asked from
        )
    return list(sites.values())


def parametrisation_of(module: nn.Module, attribute: str) -> parametrize.ParametrizationList:
    """Return the chain of modules that computes a parametrised weight."""
    chain: parametrize.ParametrizationList = module.parametrizations[attribute]  # type: ignore[index, assignment]
    return chain


def _unwrap(model: nn.Module) -> nn.Module:
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def _candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield (name, module, attribute) of all parameters, parametrised weights under their effective name."""
    inside = {id(m) for p in model.modules() if isinstance(p, parametrize.ParametrizationList) for m in p.modules()}
    for prefix, module in model.named_modules():
        if id(module) in inside:
            continue
        attributes = [name for name, p in module._parameters.items() if p is not None]
        if parametrize.is_parametrized(module):
            attributes += list(module.parametrizations)
        if isinstance(module, _CROSSBAR) and "weight" not in attributes:
            attributes.append("weight")
        path = prefix.replace("_orig_mod.", "").removesuffix("_orig_mod").removesuffix(".")
        for attribute in attributes:
            yield (f"{path}.{attribute}" if path else attribute), module, attribute


def _in_crossbar(site: Site) -> bool:
    if isinstance(site.module, _CROSSBAR) or _is_huggingface_conv1d(site.module):
        return site.attribute == "weight"
    return isinstance(site.module, _CROSSBAR_MANY) and "weight" in site.attribute


def _looks_like_crossbar(site: Site) -> bool:
    known = (*_CROSSBAR, *_CROSSBAR_MANY, nn.LayerNorm, nn.RMSNorm)
    if isinstance(site.module, known) or "weight" not in site.attribute:
        return False
    weight = site.module._parameters.get(site.attribute)
    return weight is not None and not isinstance(weight, nn.parameter.UninitializedParameter) and weight.ndim >= 2


def _patterns(select: str | Sequence[str]) -> list[str]:
    patterns = [select] if isinstance(select, str) else list(select) if isinstance(select, Sequence) else []
    if not patterns or not all(isinstance(p, str) for p in patterns):
        raise InvalidValueError(f"Expected `select` to be patterns of names or a function, but got {select!r}")
    return patterns


def _matches(name: str, select: str | Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _patterns(select))


def _check_all_match(select: str | Sequence[str], names: Sequence[str]) -> None:
    for pattern in _patterns(select):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidValueError(
                f"Expected every pattern of `select` to match one of {', '.join(names) or 'no weights'}, but "
                f"{pattern!r} matches none{did_you_mean(pattern, names)}"
            )


def _view(module: nn.Module) -> FilterView:
    if _is_huggingface_conv1d(module):
        return FilterView(transposed=True)
    return FilterView(transposed=True, groups=module.groups) if isinstance(module, _TRANSPOSED) else FilterView()


def _is_huggingface_conv1d(module: nn.Module) -> bool:
    """Tell whether a module is the linear layer of GPT-2 and its kin, whose weight has shape (in, out)."""
    return any((c.__module__, c.__name__) == ("transformers.pytorch_utils", "Conv1D") for c in type(module).__mro__)


def _check_plain(site: Site) -> None:
    if site.parametrised:
        return
    parameter = site.module._parameters.get(site.attribute)
    if parameter is None:
        raise _hooked(site.name)
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise InvalidValueError(f"Expected {site.name} to be initialised, but it is lazy; run one batch first")


def _check_whole(name: str, weight: Tensor) -> None:
    if weight.is_meta:
        raise InvalidValueError(f"Expected {name} to hold numbers, but it is on the meta device")
    if hasattr(weight, "device_mesh"):
        raise InvalidValueError(f"Expected {name} to be whole on each device, but it is sharded")


def _check_not_hooked(site: Site) -> None:
    # The old hooks keep `weight_hh_l0_orig`, or `_g` and `_v`, and set `weight_hh_l0` as a plain tensor.
    computed = site.attribute.rpartition("_")[0]
    if isinstance(vars(site.module).get(computed), Tensor):
        raise _hooked(site.name.removesuffix(site.attribute) + computed)


def _hooked(name: str) -> InvalidValueError:
    return InvalidValueError(
        f"Expected {name} to be a parameter or parametrised by torch.nn.utils.parametrize, but a hook computes it "
        "(old-style weight_norm, spectral_norm or prune); use torch.nn.utils.parametrizations, or prune.remove"
    )
