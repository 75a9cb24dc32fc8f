"""Noise on the weights of a model, in place and taken back bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from noiserobust.noise.base import Noise, chip_stream
from noiserobust.noise.sites import Select, Site, find_sites, parametrisation_of
from noiserobust.rng import Stream

Change = Callable[..., object]
"""Changes a weight, its first argument, in place."""

SavedWeights = dict[nn.Parameter, Tensor]
"""Memory in which weights are saved while they are changed."""

_AT_ONCE = 1 << 21  # random numbers


@contextmanager
def perturbed(
    model: nn.Module,
    noise: Noise,
    seed: int = 0,
    draw: int = 0,
    *,
    train_seed: int = 0,
    select: Select | None = None,
) -> Iterator[nn.Module]:
    """Put a model on a noisy chip inside the block; afterwards its weights are what they were, bit for bit.

    This is the very chip that :func:`noiserobust.evaluate` uses for the same ``seed``, ``train_seed`` and ``draw``.

    Args:
        model: changed in place inside the block.
        noise: what happens to the weights.
        seed: root seed of the chips.
        draw: number of the chip.
        train_seed: which of several trainings of one method this is; their chips are independent.
        select: which weights are noisy, as in :func:`find_sites`.

    Raises:
        InvalidValueError: if no weight can be perturbed.

    >>> from noiserobust.noise.scaled import GaussianNoise
    >>> layer = nn.Linear(3, 2)
    >>> before = layer.weight.detach().clone()
    >>> with perturbed(layer, GaussianNoise(0.1), seed=0, draw=3):
    ...     bool((layer.weight != before).all())
    True
    >>> bool((layer.weight == before).all())
    True
    """
    stream = chip_stream(seed, train_seed, draw)
    with displaced(noisy_weights(find_sites(model, select), noise, stream)):
        yield model


def noisy_weights(sites: Iterable[Site], noise: Noise, stream: Stream) -> Iterator[tuple[Site, Change]]:
    """Yield each site with what noise does to its weight, drawn from the child of ``stream`` of the site's name."""
    for group in _groups(sites):
        drawn = noise.draw([(stream.child(site.name), tuple(site.shape())) for site in group])
        for site, numbers in zip(group, drawn, strict=True):
            yield site, partial(noise.perturb_, stream=stream.child(site.name), view=site.view, drawn=numbers)
        del drawn, numbers  # before the next ones are drawn


def _groups(sites: Iterable[Site]) -> Iterator[list[Site]]:
    """Yield sites in groups for which noise is drawn at once: several threads are busy, and memory stays small."""
    group: list[Site] = []
    size = 0
    for site in sites:
        if group and size + site.shape().numel() > _AT_ONCE:
            yield group
            group, size = [], 0
        group.append(site)
        size += site.shape().numel()
    if group:
        yield group


@contextmanager
def displaced(
    changes: Iterable[tuple[Site | nn.Parameter, Change | Tensor]], saved: SavedWeights | None = None
) -> Iterator[None]:
    """Change weights inside the block and then restore them bit for bit, whatever happens.

    Args:
        changes: sites or parameters with their changes or new values, taken one at a time; each is made before the
            next is asked for.
        saved: memory for the saved weights that is used again each time it is handed in; by default it is given back
            after the block.
    """
    undo: list[Callable[[], None]] = []
    saved = {} if saved is None else saved
    try:
        for place, change in changes:
            if isinstance(place, nn.Parameter):
                _write(place, change, saved, undo)
            elif place.parametrised:
                _append_offset(place, change, undo)
            else:
                _write(place.parameter(), change, saved, undo)
            del place, change  # with the random numbers of the change, before the next are drawn
        _forget_copies()
        yield
    finally:
        try:
            _undo_all(undo)
        finally:
            _forget_copies()


def _forget_copies() -> None:
    # An enclosing autocast keeps low-precision copies of weights, an enclosing `parametrize.cached` effective ones.
    torch.clear_autocast_cache()
    parametrize._cache.clear()


def _write(
    parameter: nn.Parameter, change: Change | Tensor, saved: SavedWeights, undo: list[Callable[[], None]]
) -> None:
    weight = parameter.detach()
    copy = saved.pop(parameter, None)  # taken out: a parameter may be changed twice in one block
    if copy is None or (copy.dtype, copy.device, copy.shape) != (weight.dtype, weight.device, weight.shape):
        copy = torch.empty_like(weight)
    copy.copy_(weight)

    def restore() -> None:
        with torch.no_grad():
            parameter.copy_(copy)
        saved[parameter] = copy

    undo.append(restore)
    with torch.no_grad():
        # In place: a swap of tensors would change addresses that compiled graphs and optimisers hold.
        _make(change, parameter)


def _make(change: Change | Tensor, weight: Tensor) -> None:
    if isinstance(change, Tensor):
        weight.copy_(change)
    else:
        change(weight)


class _Offset(nn.Module):
    """The last step of a parametrisation: a constant is added, gradients pass to what is parametrised.

    In float64, where ``old + (new - old)`` is ``new`` to the last bit of any narrower type.
    """

    def __init__(self, old: Tensor, new: Tensor) -> None:
        super().__init__()
        self._offset = (new.double() - old.double(),)  # a tuple, so that it is neither parameter nor buffer

    def forward(self, weight: Tensor) -> Tensor:
        return (weight.double() + self._offset[0]).to(weight.dtype)


def _append_offset(site: Site, change: Change | Tensor, undo: list[Callable[[], None]]) -> None:
    chain = parametrisation_of(site.module, site.attribute)
    clean = site.weight()
    changed = clean.clone()
    _make(change, changed)
    offset = _Offset(clean, changed)
    position = len(chain)
    undo.append(lambda: chain.__delitem__(slice(position, None)))
    chain.append(offset)


def _undo_all(undo: list[Callable[[], None]]) -> None:
    # A second Ctrl-C, or the end asked for by a signal, may strike while weights are put back: finish first. Each is
    # undone before it is taken off the list: undoing twice does no harm, not undoing does.
    stop: BaseException | None = None
    while undo:
        try:
            undo[-1]()
            undo.pop()
        except (KeyboardInterrupt, SystemExit) as error:
            stop = error
    if stop is not None:
        raise stop
