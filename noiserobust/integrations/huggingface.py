"""Training for a noise with the Trainer of Hugging Face transformers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError, MissingDependencyError, check_integer
from noiserobust.train.gradients import multiplied
from noiserobust.train.method import Method
from noiserobust.train.optimizer import PerturbedOptimizer
from noiserobust.train.schedules import Schedule

for _package in ("transformers", "accelerate"):
    if find_spec(_package) is None:
        raise MissingDependencyError(
            f"Expected {_package} to be installed for NoiseTrainerMixin, but it is not; "
            "try: pip install 'noiserobust[huggingface]'"
        )

_ENTRY = "noiserobust"  # of PerturbedOptimizer's state dict
_FILE = "noise.pt"  # beside the optimizer.pt of a checkpoint


class NoiseTrainerMixin:
    """Makes a ``transformers.Trainer`` take its gradients at perturbed weights, by any method.

        class NoisyTrainer(NoiseTrainerMixin, transformers.Trainer):
            pass

        method = nr.RWP(nr.GaussianNoise(0.05), perturbed_weight=0.5)
        NoisyTrainer(model, args, train_dataset=data, method=method, schedule=nr.LinearRamp(fraction=0.5)).train()

    All passes of an optimizer step are run inside ``training_step`` of its last micro-batch, as
    :class:`~noiserobust.train.optimizer.PerturbedOptimizer` does with several closures: one noise draw a step, or with
    ``chips`` up to one a micro-batch, SAM along the gradient of the whole batch. Everything else (clipping, callbacks,
    evaluation, checkpoints) sees clean weights and the gradient that updates. A resumed training goes on as if it had
    not stopped; what ARWP remembers is kept in the ``noise.pt`` of each checkpoint. The loss that is logged is the
    clean one, if the method has a clean pass.

    Noise falls on Linear, Embedding and Conv weights, GPT-2's ``Conv1D`` among them, tied ones once; frozen weights
    feel it too.

    Args:
        *args: of the Trainer.
        method: any, such as ``nr.RWP(noise)``, ``nr.ARWP(noise)``, ``nr.SAM(0.05)``.
        schedule: strength over the optimizer steps; constant by default. A fraction is one of all steps.
        same_dropout: whether all passes of a step see the same dropout masks.
        seed: root seed of the noise, >= 0, apart from the one in the Trainer's arguments.
        train_seed: which of several trainings this is, >= 0.
        **kwargs: of the Trainer.

    Raises:
        InvalidValueError: if an argument is out of range; when training starts, if DeepSpeed or FSDP shards the
            weights, or the noise finds none.
        MissingDependencyError: at import of this module, without transformers or accelerate.
    """

    # Of the Trainer.
    accelerator: Any
    args: Any
    is_deepspeed_enabled: bool
    optimizer: Any
    state: Any

    _noise: PerturbedOptimizer | None  # knows the noise of each step; never steps itself
    _restored: dict[str, Any] | None
    _micro_batches: list[Callable[[], Tensor]]

    def __init__(
        self,
        *args: Any,
        method: Method,
        schedule: Schedule | None = None,
        same_dropout: bool = False,
        seed: int = 0,
        train_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if not isinstance(method, Method):
            raise InvalidValueError(f"Expected `method` to be a method such as SAM(0.05), but got {method!r}")
        if schedule is not None and not isinstance(schedule, Schedule):
            raise InvalidValueError(f"Expected `schedule` to be one such as LinearRamp(1000), but got {schedule!r}")
        self.method = method
        self.schedule = schedule
        self.same_dropout = same_dropout
        self.noise_seed = check_integer("seed", seed, minimum=0)
        self.train_seed = check_integer("train_seed", train_seed, minimum=0)
        self._forget_noise()
        super().__init__(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, from the start or a checkpoint."""
        self._forget_noise()
        return super().train(*args, **kwargs)  # type: ignore[misc]

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Put off all micro-batches until the last; then run all passes of the method. Return the loss of all."""
        self._micro_batches.append(partial(super().training_step, model, inputs, num_items_in_batch))  # type: ignore[misc]
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        closures, self._micro_batches = self._micro_batches, []
        optimizer = self._perturbed_optimizer(model)
        optimizer.steps = self.state.global_step
        # The Trainer's losses are shares of a sum, the passes take the mean.
        with multiplied(optimizer.parameters(), len(closures)):
            loss = optimizer.backward(closures)
        return loss * len(closures)

    def _perturbed_optimizer(self, model: nn.Module) -> PerturbedOptimizer:
        if self._noise is None or self._noise.model is not model:
            if self.is_deepspeed_enabled:
                raise InvalidValueError("Expected weights to be whole on each rank, but DeepSpeed shards them")
            own = self._restored if self._noise is None else self._noise.state_dict()[_ENTRY]
            self._noise = PerturbedOptimizer(
                self.optimizer,
                self.method,
                model,
                schedule=self.schedule,
                total_steps=self.state.max_steps,
                scaler=self.accelerator.scaler,
                same_dropout=self.same_dropout,
                seed=self.noise_seed,
                train_seed=self.train_seed,
            )
            if own is not None:
                self._noise.load_state_dict({**self._noise.base.state_dict(), _ENTRY: own})
        return self._noise

    def _forget_noise(self) -> None:
        self._noise = None
        self._restored = None
        self._micro_batches = []

    # The Trainer's own places for what a training goes on from: called for each checkpoint that can be resumed from.

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
        if self._noise is not None and self.args.should_save:
            self._noise.steps = self.state.global_step
            torch.save(self._noise.state_dict()[_ENTRY], os.path.join(output_dir, _FILE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        path = os.path.join(checkpoint or "", _FILE)
        if checkpoint is not None and os.path.isfile(path):
            self._restored = torch.load(path, map_location="cpu", weights_only=True)
