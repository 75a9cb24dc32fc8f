"""Training for a noise with Lightning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from noiserobust.errors import InvalidValueError, MissingDependencyError, StateError, check_integer
from noiserobust.train.gradients import put, take
from noiserobust.train.method import Method
from noiserobust.train.optimizer import PerturbedOptimizer
from noiserobust.train.schedules import Schedule

try:
    import lightning.pytorch as pl
except (ImportError, OSError, RuntimeError) as error:  # a torchvision for another torch fails it in all these ways
    raise MissingDependencyError(
        f"Expected lightning to be installed for NoiseCallback, but got: {error}; "
        "try: pip install 'noiserobust[lightning]'"
    ) from error

_ENTRY = "noiserobust"  # of PerturbedOptimizer's state dict


class NoiseCallback(pl.Callback):  # type: ignore[misc]
    """Takes the gradients of any LightningModule at noisy weights; the module itself stays as it is.

    Weights are noisy from the call of ``training_step`` to the end of its backward pass. Before any other callback,
    validation or checkpoint looks at them, they are what they were, bit for bit, also after an exception. With
    ``accumulate_grad_batches`` the micro-batches of an optimizer step share one noise draw. A resumed
    ``trainer.fit(ckpt_path=...)`` goes on with the noise, and with what ARWP remembers, as if it had not stopped.

        callback = NoiseCallback(nr.RWP(nr.GaussianNoise(0.1)), schedule=nr.QuadraticRamp(fraction=0.5))
        pl.Trainer(max_epochs=30, callbacks=[callback]).fit(module, loader)

    For SAM, mixed methods and several draws a step, which take several passes, return a PerturbedOptimizer instead,
    without a callback, and leave clipping to its ``max_grad_norm`` and ``accumulate_grad_batches`` at 1::

        def configure_optimizers(self):
            return nr.PerturbedOptimizer(torch.optim.SGD(self.parameters(), lr=0.1), nr.SAM(0.05), self)

    Args:
        method: RWP or ARWP with ``perturbed_weight=1``, or weight augmentation. Its ``select`` goes by the names of the
            LightningModule's parameters, such as ``"net.*"``. So does the noise: a wrapped network has other draws
            than the bare one.
        schedule: strength over the optimizer steps; constant by default. A fraction is one of
            ``trainer.estimated_stepping_batches``.
        seed: root seed of the noise, >= 0.
        train_seed: which of several trainings this is, >= 0.

    Raises:
        InvalidValueError: if the method needs several passes a step or an argument is out of range; when training
            starts, if optimisation is manual, parameters are sharded, or the noise finds no weight.
        MissingDependencyError: at import of this module, without lightning.
    """

    def __init__(self, method: Method, *, schedule: Schedule | None = None, seed: int = 0, train_seed: int = 0) -> None:
        if not isinstance(method, Method):
            raise InvalidValueError(f"Expected `method` to be a method such as RWP(noise), but got {method!r}")
        if method.needs_clean_gradient or method.draws > 1:
            raise InvalidValueError(
                f"Expected `method` to take one pass a step, such as RWP(noise), but got {method!r}; return "
                "noiserobust.PerturbedOptimizer(optimizer, method, self) from `configure_optimizers` instead"
            )
        if method.chips > 1:
            raise InvalidValueError(
                f"Expected `method` to have one chip a step, as Lightning does not divide batches, but got {method!r}"
            )
        if schedule is not None and not isinstance(schedule, Schedule):
            raise InvalidValueError(f"Expected `schedule` to be one such as LinearRamp(1000), but got {schedule!r}")
        self.method = method
        self.schedule = schedule
        self.seed = check_integer("seed", seed, minimum=0)
        self.train_seed = check_integer("train_seed", train_seed, minimum=0)
        self._optimizer: PerturbedOptimizer | None = None  # never steps: it knows the noise of each step
        self._loaded: dict[str, Any] = {}
        self._noisy: AbstractContextManager[None] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Become the first callback, so that no other one sees noisy weights after a backward pass or an exception."""
        trainer.callbacks = [self, *(c for c in trainer.callbacks if c is not self)]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the noisy weights; from now on ``training_step`` is called at them."""
        # A trainer that trains on goes on; a new one begins anew, unless it resumes from a checkpoint.
        own = self._loaded or (self.state_dict() if trainer.global_step else {})
        self._loaded = {}
        self._optimizer = optimizer = self._perturbed_optimizer(trainer, pl_module)
        if own:
            optimizer.load_state_dict({**optimizer.base.state_dict(), _ENTRY: own})
        plain = trainer.strategy.training_step

        # No hook of a callback comes right before `training_step`. It is the strategy's that is replaced, since the
        # user's module may be compiled, copied or saved.
        @wraps(plain)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            self._enter(optimizer)
            return plain(*args, **kwargs)

        trainer.strategy.training_step = training_step

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the weights back."""
        self._leave(last=not trainer.fit_loop._should_accumulate())

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Count the step."""
        self._leave(last=True)  # `training_step` returned None: there was no backward pass
        if self._optimizer is not None:
            self._optimizer.steps += 1

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Put the weights back if there was no backward pass."""
        self._leave(last=False)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Put the weights back."""
        self._leave(last=False)
        vars(trainer.strategy).pop("training_step", None)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let ``training_step`` be called at clean weights again."""
        self._leave(last=False)
        vars(trainer.strategy).pop("training_step", None)

    def state_dict(self) -> dict[str, Any]:
        """Return numbers and tensors: steps, seeds and what the method remembers.

        Raises:
            StateError: while the weights are noisy.
        """
        if self._noisy is not None:
            raise StateError("Expected a checkpoint to be saved at the clean weights, but they are perturbed")
        if self._optimizer is None:
            return dict(self._loaded)
        own: dict[str, Any] = self._optimizer.state_dict()[_ENTRY]
        del own["passes"]  # each micro-batch has a block of its own here, and would count as one
        return own

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep what :meth:`state_dict` returned for the start of the training."""
        self._loaded = dict(state_dict)

    def _perturbed_optimizer(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> PerturbedOptimizer:
        if not pl_module.automatic_optimization:
            raise InvalidValueError(
                "Expected automatic optimisation with NoiseCallback, but it is manual; use "
                "noiserobust.PerturbedOptimizer in `training_step`"
            )
        if trainer.strategy.handles_gradient_accumulation:
            raise InvalidValueError(
                f"Expected a strategy that leaves weights whole, but got {type(trainer.strategy).__name__}"
            )
        base = trainer.optimizers[0]
        if isinstance(base, PerturbedOptimizer):
            raise InvalidValueError("Expected NoiseCallback or a PerturbedOptimizer, but got both")
        total = trainer.estimated_stepping_batches
        return PerturbedOptimizer(
            base,
            self.method,
            trainer.strategy.model,
            schedule=self.schedule,
            total_steps=None if math.isinf(total) else int(total),
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            seed=self.seed,
            train_seed=self.train_seed,
        )

    def _enter(self, optimizer: PerturbedOptimizer) -> None:
        self._leave(last=False)
        # The block starts from no gradients; those of earlier micro-batches stay in place, where
        # DistributedDataParallel expects what it will average.
        held = take(optimizer.parameters())
        self._noisy = optimizer.perturbed()
        try:
            self._noisy.__enter__()
        except BaseException:
            self._noisy = None
            raise
        put(held)

    def _leave(self, *, last: bool) -> None:
        """Put the weights back; the method sees the gradients only after the last micro-batch, and then all."""
        if self._noisy is None or self._optimizer is None:
            return
        held = {} if last else take(self._optimizer.parameters())
        self._noisy.__exit__(None, None, None)
        self._noisy = None  # not before: an interrupt may strike, and to leave twice does no harm
        put(held)
