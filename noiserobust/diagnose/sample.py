"""One look at the loss around the weights of a training, on fixed batches and fixed noise draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from noiserobust.diagnose.examples import standard_error
from noiserobust.diagnose.probe import (
    Batch,
    Gradient,
    Loss,
    batch_statistics,
    class_loss,
    cosine,
    displaced_by,
    looked_at,
    loss_and_gradient,
    loss_of,
    mixed,
    norm,
    normalising,
)
from noiserobust.models.scores import class_scores
from noiserobust.noise.scaled import GaussianNoise
from noiserobust.noise.sites import Site, find_sites
from noiserobust.perturb import Change, displaced
from noiserobust.results.diagnostics import HELD_OUT, TRAIN
from noiserobust.rng import Stream
from noiserobust.train.method import Memory, Method, Unperturbed
from noiserobust.train.sam import SAM

Row = dict[str, Any]
"""Some of the columns of ``diagnostics.csv``: split, quantity, level, value, standard_error, n_examples."""

FORWARD_BACKWARD = 3
"""Forward passes that a pass with its gradient takes as long as, about."""


@dataclass(frozen=True)
class Looks:
    """What is measured, and on what.

    Args:
        train: batches of the training data, inputs as the network takes them, all of one size.
        held_out: the same of data that are not trained on; may be empty.
        method: of the training.
        sites: of the method.
        levels: sigmas of max-scaled Gaussian noise for the average-direction sharpness.
        rhos: radii for the ascent-direction sharpness.
        draws: of the noise, >= 2; the same for all samples.
        stream: random numbers of the draws.
        batch_statistics: whether gradients and the losses where the method takes them are those of a training pass, in
            which batch norm uses the statistics of the batch; all else is of the network as it is deployed.
        loss: mean loss of a batch; with another than that of classes there is no accuracy.
    """

    train: Sequence[Batch]
    held_out: Sequence[Batch]
    method: Method
    sites: Sequence[Site]
    levels: Sequence[float]
    rhos: Sequence[float]
    draws: int
    stream: Stream
    batch_statistics: bool = True
    loss: Loss = class_loss
    _drawn: dict[tuple[int, str], Tensor | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def passes(self) -> int:
        """How many forward passes over a batch a sample takes as long as, about."""
        forward = (len(self.train) + len(self.held_out)) * (1 + len(self.levels) * self.draws)
        ascents = FORWARD_BACKWARD + len(self.rhos) if self.rhos else 0
        perturbed = 0 if isinstance(self.method, Unperturbed) else self.method.draws * (FORWARD_BACKWARD + 1)
        return forward + len(self.train) * (ascents + FORWARD_BACKWARD + perturbed)

    def sample(self, model: nn.Module, strength: float, memory: Memory) -> list[Row]:
        """Return the rows of a sample; the model is left as it was.

        Args:
            model: with plain weights.
            strength: share of its full strength that the method's perturbation has now.
            memory: what the method remembers.
        """
        training = [layer for layer in normalising(model) if layer.training]  # not those that are frozen
        with self.stream.child("torch").as_torch_default(), looked_at(model):
            rows, clean = [], {}
            for split, batches in ((TRAIN, self.train), (HELD_OUT, self.held_out)):
                if batches:
                    own, clean[split] = self._clean(model, split, batches)
                    rows += own
            rows += self._average(model, clean)
            as_trained = self.batch_statistics and bool(training)
            found = self._gradients(model) if self.rhos or not as_trained else None
            if self.rhos and found:
                rows += self._ascent(model, *found)
            with batch_statistics(model, training) if as_trained else nullcontext():
                losses, gradients = found if found and not as_trained else self._gradients(model)
                rows += self._perturbed(model, losses, gradients, strength, memory)
        return rows

    def _gradients(self, model: nn.Module) -> tuple[Tensor, list[Gradient]]:
        """Return loss and gradient of each batch of the training data."""
        found = [loss_and_gradient(model, batch, self.loss) for batch in self.train]
        return torch.stack([loss for loss, _ in found]), [gradient for _, gradient in found]

    def _clean(self, model: nn.Module, split: str, batches: Sequence[Batch]) -> tuple[list[Row], Tensor]:
        """Return the rows of the network as it is, and the losses of the batches."""
        n = _examples(batches)
        outs: list[Any] = []

        def kept(output: Any, target: Any) -> Tensor:
            outs.append(output)
            return self.loss(output, target)

        with torch.no_grad():
            losses = torch.stack([loss_of(model, batch, kept) for batch in batches])
        rows = [_row(split, "loss", _mean(losses), n=n)]
        if self.loss is class_loss:
            right = [(class_scores(o, y).argmax(1) == y).sum() for o, (_, y) in zip(outs, batches, strict=True)]
            rows.append(_row(split, "accuracy", 100 * float(torch.stack(right).sum()) / n, n=n))
        return rows, losses

    def _average(self, model: nn.Module, clean: Mapping[str, Tensor]) -> list[Row]:
        """Return the average-direction sharpness; a draw is made once for all levels and all data."""
        if not self.levels:
            return []
        batches_of = {TRAIN: self.train, HELD_OUT: self.held_out}
        found: dict[tuple[str, float], list[Tensor]] = {}
        sites = find_sites(model)
        for draw in range(self.draws):
            own = [self.stream.child("draw", draw, site.name) for site in sites]
            drawn = self._numbers(draw, sites, own)
            for level in self.levels:
                noise = GaussianNoise(level)
                changes: list[tuple[Site, Change]] = [
                    (site, partial(noise.perturb_, stream=s, view=site.view, drawn=numbers))
                    for site, s, numbers in zip(sites, own, drawn, strict=True)
                ]
                with displaced(changes), torch.no_grad():
                    for split, losses in clean.items():
                        noisy = torch.stack([loss_of(model, batch, self.loss) for batch in batches_of[split]])
                        found.setdefault((split, level), []).append((noisy.double() - losses.double()).mean())
        return [
            _row(
                split,
                "average_sharpness",
                *_mean_and_error(torch.stack(v)),
                level=level,
                n=_examples(batches_of[split]),
            )
            for (split, level), v in found.items()
        ]

    def _numbers(self, draw: int, sites: Sequence[Site], streams: Sequence[Stream]) -> list[Tensor | None]:
        """Return the random numbers of a draw, on the device; they are made once, for all samples."""
        if (draw, sites[0].name) not in self._drawn:
            requests = [(s, tuple(site.shape())) for s, site in zip(streams, sites, strict=True)]
            for site, numbers in zip(sites, GaussianNoise(1.0).draw(requests), strict=True):
                self._drawn[draw, site.name] = None if numbers is None else numbers.to(site.weight().device)
        return [self._drawn[draw, site.name] for site in sites]

    def _ascent(self, model: nn.Module, losses: Tensor, gradients: Sequence[Gradient]) -> list[Row]:
        rows = []
        for rho in self.rhos:
            higher = self._displaced(model, SAM(rho), gradients, 1.0, {}, gradient=False)
            change = torch.stack([h.loss for h in higher]) - losses.double()
            rows.append(_row(TRAIN, "ascent_sharpness", *_mean_and_error(change), level=rho, n=_examples(self.train)))
        return rows

    def _perturbed(
        self, model: nn.Module, losses: Tensor, gradients: Sequence[Gradient], strength: float, memory: Memory
    ) -> list[Row]:
        """Return what the method's own perturbation does, at its present and at its full strength."""
        n = _examples(self.train)
        clean = torch.stack([norm(g) for g in gradients])
        rows = [_row(TRAIN, "training_loss", *_mean_and_error(losses), n=n)]
        rows.append(_row(TRAIN, "gradient_norm", *_mean_and_error(clean), n=n))
        if isinstance(self.method, Unperturbed):
            return [*rows, _row(TRAIN, "update_gradient_norm", *_mean_and_error(clean), n=n)]
        values: dict[str, Tensor] = {
            "update_gradient_norm": clean,
            "cosine": torch.ones_like(clean),
            "perturbed_loss": losses.double(),
            "gradient_sharpness": torch.zeros_like(clean),
            "perturbation_norm": torch.zeros_like(clean),
        }
        if strength > 0:
            there = self._displaced(model, self.method, gradients, strength, memory)
            pairs = list(zip(gradients, there, strict=True))
            values["update_gradient_norm"] = torch.stack([norm(mixed(self.method, g, p.gradient)) for g, p in pairs])
            values["cosine"] = torch.stack([cosine(g, p.gradient) for g, p in pairs])
            values["perturbed_loss"] = torch.stack([p.loss for p in there])
            values["gradient_sharpness"] = values["perturbed_loss"] - losses.double()
            values["perturbation_norm"] = torch.stack([p.length for p in there])
        full = values["perturbed_loss"]
        if strength != 1:
            there = self._displaced(model, self.method, gradients, 1.0, memory, gradient=False)
            full = torch.stack([p.loss for p in there])
        values["full_strength_loss"] = full
        return rows + [_row(TRAIN, name, *_mean_and_error(v), n=n) for name, v in values.items()]

    def _displaced(
        self,
        model: nn.Module,
        method: Method,
        gradients: Sequence[Gradient],
        strength: float,
        memory: Memory,
        *,
        gradient: bool = True,
    ) -> list[Any]:
        more: dict[str, Any] = {"strength": strength, "memory": memory, "loss": self.loss, "gradient": gradient}
        sites = self.sites if method is self.method else None
        return [
            displaced_by(method, model, batch, g, stream=self.stream.child("batch", i), sites=sites, **more)
            for i, (batch, g) in enumerate(zip(self.train, gradients, strict=True))
        ]


def _row(split: str, quantity: str, value: float, error: float = math.nan, *, level: float = math.nan, n: int) -> Row:
    numbers = {"level": level, "value": value, "standard_error": error, "n_examples": n}
    return {"split": split, "quantity": quantity, **numbers}


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    return _mean(values), standard_error(values)


def _examples(batches: Sequence[Batch]) -> int:
    return sum(len(y) for _, y in batches)
