"""The passes of one optimizer step: at the clean and at the perturbed weights, until ``.grad`` holds the update's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError, StateError
from noiserobust.models.batchnorm import kept_statistics
from noiserobust.perturb import SavedWeights
from noiserobust.rng import Stream
from noiserobust.train.distributed import (
    average_,
    data_parallel,
    local_gradients,
    noisy_rank,
    place,
    share_statistics,
    shares_memory,
)
from noiserobust.train.gradients import Gradients, add_, mix, multiplied, put, scale_, take
from noiserobust.train.method import Memory, Method, Moment
from noiserobust.train.replay import Replay

Closure = Callable[[], Tensor]


class HasParameters(Protocol):
    """What is optimised; parameters may be added while it is in use."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield them."""
        ...


class Passes:
    """Computes the gradient of a perturbative method, from closures or around backward passes of somebody else.

    Args:
        model: as it is called in the closures.
        method: says where the perturbed gradient is taken.
        optimised: whose parameters' gradients are meant.
        scaler: with which losses are scaled, or None.
        same_dropout: whether all passes of a step see the same random numbers of torch's global generators.
        split_ranks: whether this rank computes only the clean or only the perturbed gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        optimised: HasParameters,
        *,
        scaler: torch.amp.GradScaler | None = None,
        same_dropout: bool = False,
        split_ranks: bool = False,
    ) -> None:
        self.model = model
        self.method = method
        self.optimised = optimised
        self.scaler = scaler
        self.same_dropout = same_dropout
        self.split_ranks = split_ranks
        self.sites = method.sites(model)
        self.memory: Memory = {}
        self.count: int | None = 0  # of passes over a batch so far; None if nobody knows any more
        self._made = 0  # calls of `_backward` in this step
        self._saved: SavedWeights = {}
        self.running = False  # whether closures are being called
        self.perturbed = False  # whether the weights are displaced now
        if split_ranks:
            _check_split(method, same_dropout)
        self._noisy_rank = noisy_rank(model) if split_ranks else None
        self._copies = shares_memory(model)
        self._replay: Replay | None = None
        self.forget()

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy or a pickle is made of; not the memory in which weights are saved."""
        return {**vars(self), "_saved": {}}

    def forget(self) -> None:
        """Forget the draws made: the next block is the first of a step."""
        self._drawn = 0
        self._clean: Gradients = {}
        self._sum: Gradients = {}

    def run(self, clean: Sequence[Closure], noisy: Sequence[Closure], stream: Stream, strength: float) -> Tensor:
        """Call closures until ``.grad`` holds the gradient of the update; return the loss, clean if there is one.

        Args:
            clean: micro-batches of the clean pass, or of the only one.
            noisy: those of the perturbed pass; the same object if the batch is the same.
            stream: random numbers of the step.
            strength: share of the method's full strength.
        """
        if self.running or self.perturbed:
            raise StateError("Expected `step` to be called at the clean weights, but a pass is under way")
        self.forget()
        groups = [(clean, noisy)]
        if self.method.per_micro_batch and len(clean) > 1:
            if len(clean) != len(noisy):
                raise InvalidValueError(
                    f"Expected as many perturbed closures as clean ones with `per_micro_batch`, but got {len(noisy)} "
                    f"and {len(clean)}"
                )
            groups = [([c], [n]) for c, n in zip(clean, noisy, strict=True)]
        total: Gradients = {}
        losses = []
        self._made = 0
        try:
            self.running = True
            for number, (one, other) in enumerate(groups):
                own = stream.child("micro-batch", number) if number else stream
                losses.append(self._gradient(one, one if clean is noisy else other, own, strength))
                if len(groups) > 1:
                    total = add_(total, self._take(), 1 / len(groups))
        finally:
            self.running = False
            self._replay = None
        put(total)
        self._drawn = self.method.draws
        self._add(math.ceil(self._made / len(groups)))  # each group is a part of the batch
        return _mean(losses)

    @contextmanager
    def by_hand(self, stream: Stream, strength: float) -> Iterator[None]:
        """Displace the weights in a block in which somebody else runs backward; the next draw of the step."""
        method = self.method
        if self.perturbed:
            raise StateError("Expected `perturbed` to be entered once a step, but it was entered inside itself")
        used = {"same_dropout": self.same_dropout, "split_ranks": self.split_ranks, "chips": method.chips > 1}
        for setting in (setting for setting, given in used.items() if given):
            raise StateError(f"Expected `step` to get a closure with `{setting}`, but `perturbed` was entered")
        if self._drawn >= method.draws:
            self.forget()
        first = self._drawn == 0
        if first and method.needs_clean_gradient and not any(p.grad is not None for p in self._parameters()):
            raise StateError(
                f"Expected a clean gradient before `perturbed` of {type(method).__name__}, but there is none; "
                "call `loss.backward()` first"
            )
        draw, self._drawn = self._drawn, 0
        finite = not method.follows_gradient or self._finite()
        with self._displaced(stream, strength if finite else 0.0, draw) as moment:
            held = self._take()
            if first:
                self._clean = held if method.perturbed_weight < 1 else {}
            del held
            yield
        self._drawn = draw + 1
        self._add(2 if first and method.needs_clean_gradient else 1)
        if self._collect(draw):
            self._remember(moment)
            if method.perturbed_weight < 1:
                put(mix(self._clean, self._take(), method.perturbed_weight))
                self._clean = {}

    def check_complete(self) -> None:
        """Raise StateError unless all draws of the step were made."""
        if self._drawn != self.method.draws:
            made = f"{self._drawn} of {self.method.draws} blocks" if self._drawn else "neither"
            raise StateError(f"Expected `step` to get a closure or to follow `with opt.perturbed()`, but got {made}")

    def check_memory(self, memory: object) -> None:
        """Raise InvalidValueError unless this can be the memory of the method on this model."""
        shapes = {site.name: self.method.memory_shape(site) for site in self.sites}
        tensors = isinstance(memory, Mapping) and all(isinstance(v, Tensor) for v in memory.values())
        if not isinstance(memory, Mapping) or not tensors:
            raise InvalidValueError(f"Expected the memory of the state to be tensors by name, but got {memory!r}")
        for name, value in memory.items():
            if shapes.get(name) != tuple(value.shape):
                raise InvalidValueError(
                    f"Expected the memory of {self.method.name} for {name} to be of shape {shapes.get(name)}, but got "
                    f"{tuple(value.shape)}"
                )

    def load_memory(self, memory: Mapping[str, Tensor]) -> None:
        """Replace what the method remembers."""
        device = {site.name: site.weight().device for site in self.sites}
        self.memory = {name: value.detach().clone().to(device[name]) for name, value in memory.items()}

    def _gradient(self, clean: Sequence[Closure], noisy: Sequence[Closure], stream: Stream, strength: float) -> Tensor:
        method = self.method
        self._replay = Replay(self._parameters()) if self.same_dropout else None
        if self.split_ranks:
            return self._gradient_of_rank(clean, noisy, stream, strength)
        if strength == 0 and clean is noisy:
            loss = self._backward(clean)  # the perturbed gradient is the clean one
            self._remember(self._moment(stream, strength))
            return loss
        if method.follows_gradient:
            local = method.per_micro_batch and data_parallel(self.model) is not None
            with local_gradients(self.model) if local else nullcontext():
                loss = self._backward(clean)
            finite = self._finite()
            if not finite and not local:
                return loss  # the scaler will skip this step; on all ranks, as all have this gradient
            with self._displaced(stream, strength if finite else 0.0):
                held = self._take() if method.perturbed_weight < 1 else {}
                self._backward(noisy)
            if method.perturbed_weight < 1:
                if local:
                    average_(held.values(), self.model)
                put(mix(held, self._take(), method.perturbed_weight))
            return loss
        # Noise asks for no gradient: the clean pass comes last, so that its activations and the saved weights are
        # never in memory together.
        for draw in range(method.draws):
            chips = self._chips(noisy)
            with self._pass(len(noisy)) as losses:
                for number, chip in chips.items():
                    own = stream.child("micro-batch", number) if number else stream
                    with self._displaced(own, strength, draw) as moment:
                        losses += self._call(chip, last=number == max(chips))
            loss = _mean(losses)
            self._collect(draw)
        self._remember(moment)
        if method.perturbed_weight < 1:
            held = self._take()
            loss = self._backward(clean)
            put(mix(self._take(), held, method.perturbed_weight))
        return loss

    def _gradient_of_rank(
        self, clean: Sequence[Closure], noisy: Sequence[Closure], stream: Stream, strength: float
    ) -> Tensor:
        """Compute one of the two gradients, weighted so that the mean over ranks is their mixture."""
        share = self.method.perturbed_weight
        if self._noisy_rank is None:
            with multiplied(self._parameters(), 2 * (1 - share)):
                loss = self._backward(clean)
        else:
            if self._noisy_rank:  # the first noisy rank has the noise that a single process has
                stream = stream.child("rank", self._noisy_rank)
            with multiplied(self._parameters(), 2 * share), self._displaced(stream, strength):
                loss = self._backward(noisy)
        share_statistics(self.model)
        self._made += 1  # that of the rank which has the same examples
        return loss

    @contextmanager
    def _displaced(self, stream: Stream, strength: float, draw: int = 0) -> Iterator[Moment]:
        """Displace the weights for one perturbed pass; gradients that the method follows are present on entry."""
        method = self.method
        moment = self._moment(stream.child("draw", draw) if draw else stream, strength)
        # Running statistics see the clean pass, or the first one: a batch once, at the weights that matter most.
        keep = method.needs_clean_gradient or draw > 0
        try:
            self.perturbed = True
            with (
                kept_statistics(self.model) if keep else nullcontext(),
                method.displace(moment) if strength else nullcontext(),
            ):
                yield moment
        finally:
            self.perturbed = False
            if moment.saved is not self._saved:
                moment.saved.clear()

    def _moment(self, stream: Stream, strength: float) -> Moment:
        followed = self._parameters() if self.method.follows_gradient else ()
        parameters = [p for p in followed if p.grad is not None]
        # A mixed method has the clean pass after the perturbed one, with the perturbed gradient in memory instead.
        saved = self._saved if self.method.perturbed_weight == 1 else {}
        return Moment(self.sites, parameters, stream, strength, self.memory, saved)

    def _chips(self, closures: Sequence[Closure]) -> dict[int, Sequence[Closure]]:
        """Return which closures are under which noise, by its number among those of all ranks."""
        rank, world = place(self.model) if self.method.chips > 1 else (0, 1)
        chips: dict[int, list[Closure]] = {}
        for number, closure in enumerate(closures, start=rank * len(closures)):
            chips.setdefault(number * self.method.chips // (world * len(closures)), []).append(closure)
        return dict(chips)

    def _backward(self, closures: Sequence[Closure]) -> Tensor:
        """Run one pass over all micro-batches from empty gradients; return the mean loss."""
        with self._pass(len(closures)) as losses:
            losses += self._call(closures)
        return _mean(losses)

    @contextmanager
    def _pass(self, closures: int) -> Iterator[list[Any]]:
        """Begin with empty gradients and end with the mean over closures; yield a list for their losses."""
        for parameter in self._parameters():
            parameter.grad = None
        if self._replay is not None:
            self._replay.rewind()
        yield []
        gradients = {p: p.grad for p in self._parameters() if p.grad is not None}
        if not gradients:
            raise StateError("Expected the closure to call `backward()` on its loss, but there is no gradient")
        scale_(gradients, 1 / closures)
        self._made += 1

    def _call(self, closures: Sequence[Closure], *, last: bool = True) -> list[Any]:
        """Add the gradients of closures to those that are there, over ranks with the last of a pass; return losses."""
        losses: list[Any] = []  # of one closure, whatever it returns
        for number, closure in enumerate(closures, start=1):
            averaged = nullcontext() if last and number == len(closures) else local_gradients(self.model)
            with averaged, torch.enable_grad():
                losses.append(closure())
        return losses

    def _add(self, passes: int) -> None:
        if self.count is not None:
            self.count += passes

    def _collect(self, draw: int) -> bool:
        """Add up the gradients of the draws; put their mean in place and return True after the last."""
        if self.method.draws == 1:
            return True
        self._sum = add_(self._sum, self._take())
        if draw < self.method.draws - 1:
            return False
        put(scale_(self._sum, 1 / self.method.draws))
        self._sum = {}
        return True

    def _remember(self, moment: Moment) -> None:
        if self._finite():
            self.method.remember(moment, self.scaler.get_scale() if self.scaler is not None else 1.0)

    def _finite(self) -> bool:
        """Return whether the gradients are finite; scaled ones may overflow, others are taken as they are."""
        if self.scaler is None or not self.scaler.is_enabled():
            return True
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        return bool(torch.isfinite(nn.utils.get_total_norm(gradients)))

    def _take(self) -> Gradients:
        return take(self._parameters(), copy=self._copies)

    def _parameters(self) -> Iterator[nn.Parameter]:
        return self.optimised.parameters()


def _check_split(method: Method, same_dropout: bool) -> None:
    if not method.can_split or method.perturbed_weight == 1 or method.draws > 1 or method.chips > 1:
        raise InvalidValueError(
            "Expected RWP(noise, perturbed_weight=0.5) or another share below 1, with one draw a step and one chip, "
            f"for `split_ranks`, but got {method!r}"
        )
    if same_dropout:
        raise InvalidValueError(
            "Expected `split_ranks` without `same_dropout`, since each process has random numbers of its own, but got "
            "both"
        )


def _mean(losses: Sequence[Tensor]) -> Tensor:
    if len(losses) == 1:
        return losses[0]
    if any(loss is None for loss in losses):
        raise StateError("Expected each closure to return its loss, but got None")
    return torch.stack([torch.as_tensor(loss).detach() for loss in losses]).mean()
