"""A perturbative method around any optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError, StateError, check_integer, check_number
from noiserobust.rng import Stream
from noiserobust.train.clipping import WeightClip
from noiserobust.train.distributed import check_whole
from noiserobust.train.method import Memory, Method
from noiserobust.train.passes import Closure, Passes
from noiserobust.train.schedules import Constant, Schedule

_ENTRY = "noiserobust"  # of the state dict, beside those of the base optimizer


class PerturbedOptimizer(torch.optim.Optimizer):
    """An optimizer whose gradients are taken at perturbed weights.

    Parameter groups and state are those of the base optimizer, so learning rate schedulers work on either.

    Args:
        base: any optimizer of dense parameters.
        method: :class:`~noiserobust.train.sam.SAM`, :class:`~noiserobust.train.rwp.RWP` or another method.
        model: the module whose weights are perturbed, as it is called in the closure (DistributedDataParallel
            included), and whose normalisation statistics are protected: they see the clean pass, or the first pass of
            a method that has none.
        schedule: strength of the perturbation over the steps; constant by default.
        total_steps: of the whole training, >= 1; for schedules over a fraction of it.
        max_grad_norm: limit of the norm of the gradient that updates, > 0; that of a first pass is never clipped.
        weight_clip: limits the weights in the crossbar after each step.
        scaler: the ``torch.amp.GradScaler`` with which the closure scales its losses. ``step`` then unscales, skips
            updates that are not finite, and updates the scaler.
        same_dropout: whether all passes of a step see the same random numbers of torch's global generators, dropout
            masks among them. Only with closures.
        split_ranks: whether, of the ranks of a DistributedDataParallel, even ones compute the clean gradient and odd
            ones the perturbed gradient of a mixed method, each in one pass, at the same time. Only with closures.
        seed: root seed of the noise.
        train_seed: which of several trainings this is.

    Raises:
        InvalidValueError: if an argument is out of range, the base is no optimizer of the model's parameters or takes
            several gradients a step, the noise finds no weight in the model, or parameters are sharded.
        StateError: if ``split_ranks`` is asked for outside a process group.

    Two ways to use it::

        loss = opt.step(closure)        # the closure computes the loss, calls loss.backward() and returns the loss

        opt.zero_grad()                 # or by hand
        loss_function(model(x), y).backward()           # only for methods that need a clean gradient: SAM, mixed RWP
        with opt.perturbed():
            loss_function(model(x), y).backward()
        opt.step()
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        method: Method,
        model: nn.Module,
        *,
        schedule: Schedule | None = None,
        total_steps: int | None = None,
        max_grad_norm: float | None = None,
        weight_clip: WeightClip | None = None,
        scaler: torch.amp.GradScaler | None = None,
        same_dropout: bool = False,
        split_ranks: bool = False,
        seed: int = 0,
        train_seed: int = 0,
    ) -> None:
        if not isinstance(base, torch.optim.Optimizer):
            raise InvalidValueError(f"Expected `base` to be a torch optimizer, but got {base!r}")
        if isinstance(base, torch.optim.LBFGS):
            raise InvalidValueError("Expected `base` to take one gradient a step, but LBFGS asks for several")
        own = {id(p) for p in model.parameters() if p.requires_grad}
        if not any(id(p) in own for group in base.param_groups for p in group["params"]):
            raise InvalidValueError(
                "Expected `base` to optimise parameters of `model` that need gradients, but it has none of them"
            )
        if not isinstance(method, Method):
            raise InvalidValueError(f"Expected `method` to be a method such as SAM(0.05), but got {method!r}")
        self.schedule = Constant() if schedule is None else schedule
        if not isinstance(self.schedule, Schedule):
            raise InvalidValueError(f"Expected `schedule` to be one such as LinearRamp(1000), but got {schedule!r}")
        if total_steps is not None:
            check_integer("total_steps", total_steps, minimum=1)
        self.schedule.check(total_steps)
        if max_grad_norm is not None:
            check_number("max_grad_norm", max_grad_norm, above=0)
        check_whole(model, model.parameters())
        super().__init__(base.param_groups, base.defaults)
        self.base = base
        self.method = method
        self.model = model
        self.total_steps = total_steps
        self.max_grad_norm = max_grad_norm
        self.weight_clip = weight_clip
        self.scaler = scaler
        self.steps = 0
        self._seed_noise(seed, train_seed)
        self._clipped = weight_clip.sites(model) if weight_clip else []
        self._passes = Passes(model, method, self, scaler=scaler, same_dropout=same_dropout, split_ranks=split_ranks)

    # Optimizer.__init__ sets up groups and state of its own before there is a base; they are not wanted.

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the base optimizer."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        if self._has_base:
            self.base.param_groups = groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """The state of the base optimizer."""
        return self.base.state

    @state.setter
    def state(self, state: defaultdict[Tensor, Any]) -> None:
        if self._has_base:
            self.base.state = state

    @property
    def _has_base(self) -> bool:
        return "base" in vars(self)

    @property
    def strength(self) -> float:
        """Share of the method's full strength at the step to come."""
        return self.schedule(self.steps, self.total_steps)

    @property
    def passes(self) -> int | None:
        """How many forward-backward passes over a batch the steps so far took, micro-batches and ranks together.

        None after a state was loaded that does not say.
        """
        return self._passes.count

    @property
    def memory(self) -> Memory:
        """What the method remembers of past gradients, by the name of the weight."""
        return self._passes.memory

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Move the weights to where the next update's gradient is taken; afterwards put them back bit for bit.

        On entry the gradients present are the clean ones, if the method needs them; on exit the gradients are those
        of the update. A method with several draws a step has one block for each.

        Raises:
            StateError: if it is entered inside itself or more often than the method has draws, or the method needs a
                clean gradient and there is none, or the settings ask for closures.
        """
        with self._passes.by_hand(self._noise, self.strength):
            yield

    def backward(
        self,
        closure: Closure | Sequence[Closure],
        perturbed_closure: Closure | Sequence[Closure] | None = None,
    ) -> Tensor:
        """Run all passes of the method, until the gradients are those of the update; :meth:`step` then updates.

        For loops that look at the gradients or update in their own way; arguments and result are those of
        :meth:`step`.
        """
        clean = _closures(closure)
        noisy = clean if perturbed_closure is None else _closures(perturbed_closure)
        return self._passes.run(clean, noisy, self._noise, self.strength)

    def step(  # type: ignore[override]
        self,
        closure: Closure | Sequence[Closure] | None = None,
        perturbed_closure: Closure | Sequence[Closure] | None = None,
    ) -> Tensor | None:
        """Run all passes of the method and update.

        Args:
            closure: computes the loss of the batch, calls ``backward()`` on it and returns it; it is called once a
                pass, and gradients are zeroed before each pass. Several closures are micro-batches of one step: the
                gradient is the mean of theirs. None after :meth:`perturbed` or :meth:`backward`.
            perturbed_closure: the same of another batch, for the perturbed pass.

        Returns:
            The clean loss; the loss at the perturbed weights (the last draw's) for a method without a clean pass, and
            on the noisy ranks of ``split_ranks``; None without closure. Of several closures, the mean.

        Raises:
            StateError: without a closure and without :meth:`perturbed` or :meth:`backward` before.
        """
        loss = None
        if closure is None:
            self._passes.check_complete()
        else:
            loss = self.backward(closure, perturbed_closure)
        self._update()
        return loss

    def _update(self) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self.base)
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(list(self.parameters()), self.max_grad_norm)
        if self.scaler is None:
            self.base.step()
        else:
            self.scaler.step(self.base)
            self.scaler.update()
        if self.weight_clip is not None:
            self.weight_clip.apply(self._clipped)
        self.steps += 1
        self._passes.forget()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of the base optimizer's parameters; :meth:`perturbed` before no longer counts.

        In the closures of a step it does nothing, since gradients are zeroed already.
        """
        if not self._passes.running:
            self.base.zero_grad(set_to_none)
            self._passes.forget()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of all groups."""
        for group in self.param_groups:
            yield from group["params"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group to the base optimizer."""
        if self._has_base:
            self.base.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the base optimizer with one more entry, ``noiserobust``, from which the noise goes on.

        The entry holds the number of steps, by which the schedule goes on too, the seeds, what the method remembers of
        past gradients, and the number of passes.

        Raises:
            StateError: inside :meth:`perturbed`, where the weights beside it are not the model's own.
        """
        self._check_clean("state_dict")
        memory = {name: value.clone() for name, value in self._passes.memory.items()}
        own = {"steps": self.steps, "seed": self._stream.seed, "train_seed": self._stream.path[-1]}
        return {**self.base.state_dict(), _ENTRY: {**own, "memory": memory, "passes": self.passes}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned: the base optimizer, the number of steps and the seeds.

        Raises:
            InvalidValueError: if it is something else.
        """
        _check_keys("state_dict", state_dict, ("state", "param_groups", _ENTRY))
        own = state_dict[_ENTRY]
        # Only what is needed: later versions may keep more.
        names = ("steps", "seed", "train_seed")
        _check_keys(f"state_dict[{_ENTRY!r}]", own, names)
        steps, seed, train_seed = (check_integer(name, own[name], minimum=0) for name in names)
        memory = own.get("memory", {})
        self._passes.check_memory(memory)
        passes = own.get("passes")  # unknown in states of earlier versions
        if passes is not None:
            passes = check_integer("passes", passes, minimum=0)
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != _ENTRY})
        self._passes.load_memory(memory)
        self._passes.count = passes
        self.steps = steps
        self._seed_noise(seed, train_seed)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle is made of; it gets a base optimizer and a model of its own.

        Raises:
            StateError: inside :meth:`perturbed`.
        """
        self._check_clean("copy or pickle")
        # Not all attributes: a scheduler's patch of `step` would make the copy step this optimizer.
        own = ("steps", "schedule", "total_steps", "max_grad_norm", "weight_clip", "scaler")
        names = ("defaults", "base", "method", "model", *own, "_stream", "_clipped", "_passes")
        return {name: getattr(self, name) for name in names}

    def _check_clean(self, what: str) -> None:
        if self._passes.perturbed:
            raise StateError(f"Expected `{what}` to be called at the clean weights, but they are perturbed")

    def _seed_noise(self, seed: int, train_seed: int) -> None:
        self._stream = Stream(seed, "train", train_seed)

    @property
    def _noise(self) -> Stream:
        return self._stream.child(self.steps)


def _closures(given: Closure | Sequence[Closure]) -> Sequence[Closure]:
    closures = [given] if callable(given) else list(given) if isinstance(given, Sequence) else []
    if not closures or not all(callable(c) for c in closures):
        raise InvalidValueError(f"Expected `closure` to be a function or several, but got {given!r}")
    return closures


def _check_keys(name: str, mapping: object, keys: Sequence[str]) -> None:
    if not isinstance(mapping, Mapping) or not mapping.keys() >= set(keys):
        got = ", ".join(map(str, mapping)) if isinstance(mapping, Mapping) else repr(mapping)
        raise InvalidValueError(f"Expected `{name}` to have the keys {', '.join(keys)}, but got {got or 'none'}")
