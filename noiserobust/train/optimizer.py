"""A perturbative method around any optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError, StateError, check_integer
from noiserobust.rng import Stream
from noiserobust.train.batchnorm import kept_statistics
from noiserobust.train.method import Method

Closure = Callable[[], Tensor]

_ENTRY = "noiserobust"  # of the state dict, beside those of the base optimizer


class PerturbedOptimizer(torch.optim.Optimizer):
    """An optimizer whose gradients are taken at perturbed weights.

    Parameter groups and state are those of the base optimizer, so learning rate schedulers work on either.

    Args:
        base: any optimizer of dense parameters.
        method: :class:`~noiserobust.train.sam.SAM`, :class:`~noiserobust.train.rwp.RWP` or another method.
        model: the module whose weights are perturbed, and whose normalisation statistics are protected: they see the
            clean pass, or the only pass of a method that has none.
        seed: root seed of the noise.
        train_seed: which of several trainings this is.

    Raises:
        InvalidValueError: if the base is no optimizer of the model's parameters or takes several gradients a step, the
            method is none, or its noise finds no weight in the model.

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
        super().__init__(base.param_groups, base.defaults)
        self.base = base
        self.method = method
        self.model = model
        self.steps = 0
        self._seed_noise(seed, train_seed)
        self._sites = method.sites(model)
        self._is_perturbed = False
        self._has_gradient = False

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

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Move the weights to where the next update's gradient is taken; afterwards put them back bit for bit.

        On entry the gradients present are the clean ones, if the method needs them; on exit the gradients are those
        of the update.

        Raises:
            StateError: if it is entered twice, or the method needs a clean gradient and there is none.
        """
        if self._is_perturbed:
            raise StateError("Expected `perturbed` to be entered once a step, but it was entered inside itself")
        clean = self._take_clean_gradients()
        # With a clean pass the running statistics have seen this batch already, at the weights that matter.
        statistics = kept_statistics(self.model) if self.method.needs_clean_gradient else nullcontext()
        self._is_perturbed, self._has_gradient = True, False
        try:
            with statistics, self.method.displace(self._sites, list(clean), self._stream.child(self.steps)):
                self.zero_grad()
                yield
        finally:
            self._is_perturbed = False
        self._mix(clean)
        self._has_gradient = True

    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        """Run all passes of the method and update.

        Args:
            closure: computes the loss of the batch, calls ``backward()`` on it and returns it; it is called once, or
                twice by methods that need a clean gradient. Gradients are zeroed before each call. None after a
                :meth:`perturbed` block.

        Returns:
            The clean loss; the loss at the perturbed weights for a method without a clean pass; None without closure.

        Raises:
            StateError: without a closure and without a :meth:`perturbed` block before.
        """
        loss = None
        if closure is None:
            if not self._has_gradient:
                raise StateError(
                    "Expected `step` to get a closure or to follow `with opt.perturbed()`, but got neither"
                )
        else:
            loss = self._run(closure)
        self.base.step()
        self.steps += 1
        self._has_gradient = False
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of the base optimizer's parameters; a :meth:`perturbed` block before no longer counts."""
        self.base.zero_grad(set_to_none)
        self._has_gradient = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group to the base optimizer."""
        if self._has_base:
            self.base.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the base optimizer with one more entry, ``noiserobust``, from which the noise goes on.

        Raises:
            StateError: inside :meth:`perturbed`, where the weights beside it are not the model's own.
        """
        self._check_clean("state_dict")
        own = {"steps": self.steps, "seed": self._stream.seed, "train_seed": self._stream.path[-1]}
        return {**self.base.state_dict(), _ENTRY: own}

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
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != _ENTRY})
        self.steps = steps
        self._seed_noise(seed, train_seed)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle is made of; it gets a base optimizer and a model of its own.

        Raises:
            StateError: inside :meth:`perturbed`.
        """
        self._check_clean("copy or pickle")
        # Not all attributes: a scheduler's patch of `step` would make the copy step this optimizer.
        names = ("defaults", "base", "method", "model", "steps", "_stream", "_sites", "_is_perturbed", "_has_gradient")
        return {name: getattr(self, name) for name in names}

    def _check_clean(self, what: str) -> None:
        if self._is_perturbed:
            raise StateError(f"Expected `{what}` to be called at the clean weights, but they are perturbed")

    def _seed_noise(self, seed: int, train_seed: int) -> None:
        self._stream = Stream(seed, "train", train_seed)

    def _run(self, closure: Closure) -> Tensor:
        clean_loss = None
        if self.method.needs_clean_gradient:
            self.zero_grad()
            with torch.enable_grad():
                clean_loss = closure()
        with self.perturbed(), torch.enable_grad():
            loss = closure()
            if all(p.grad is None for p in self._parameters()):
                raise StateError("Expected the closure to call `backward()` on its loss, but there is no gradient")
        return loss if clean_loss is None else clean_loss

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self.param_groups:
            yield from group["params"]

    def _take_clean_gradients(self) -> dict[nn.Parameter, Tensor]:
        if not self.method.needs_clean_gradient:
            return {}
        clean = {p: p.grad for p in self._parameters() if p.grad is not None}
        if not clean:
            raise StateError(
                f"Expected a clean gradient before `perturbed` of {type(self.method).__name__}, but there is none; "
                "call `loss.backward()` first"
            )
        return clean

    def _mix(self, clean: dict[nn.Parameter, Tensor]) -> None:
        share = self.method.perturbed_weight
        if share == 1:
            return
        for parameter in self._parameters():
            if parameter in clean:
                mixed = clean[parameter].mul_(1 - share)
                parameter.grad = mixed if parameter.grad is None else mixed.add_(parameter.grad, alpha=share)
            elif parameter.grad is not None:
                parameter.grad.mul_(share)


def _check_keys(name: str, mapping: object, keys: Sequence[str]) -> None:
    if not isinstance(mapping, Mapping) or not mapping.keys() >= set(keys):
        got = ", ".join(map(str, mapping)) if isinstance(mapping, Mapping) else repr(mapping)
        raise InvalidValueError(f"Expected `{name}` to have the keys {', '.join(keys)}, but got {got or 'none'}")
