"""Small models, data and a plain loop that the evaluation tests compare with."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn

import noiserobust as nr
from noiserobust.noise.base import Noise

NOISE = nr.GaussianNoise(0.3)


def network(seed: int = 0) -> nn.Sequential:
    """Return an untrained convolutional network for 2 x 4 x 4 images, with batch norm and dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(96, 4),
        )


def networks(count: int = 3) -> list[nn.Sequential]:
    """Return several of them."""
    return [network(seed) for seed in range(count)]


def data(n: int = 57, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return n images of 2 x 4 x 4 in 4 classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, 4, 4, generator=generator), torch.randint(0, 4, (n,), generator=generator)


def plain_accuracy(
    model: nn.Module, x: Tensor, y: Tensor, noise: Noise | None, *, seed: int, train_seed: int, draw: int
) -> float:
    """Return the accuracy with noise drawn by hand from the documented stream, on a copy with new weights."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if noise is not None:
        stream = nr.Stream(seed, "deploy", train_seed, draw)
        for name in ("0.weight", "5.weight"):
            state[name] = noise.perturb(state[name], stream.child(name))
    copy = network(99).eval()
    copy.load_state_dict(state)
    with torch.no_grad():
        return 100 * sum(int(copy(x[i : i + 1]).argmax()) == int(y[i]) for i in range(len(y))) / len(y)


def values(draws: pd.DataFrame) -> dict[tuple[int, float, int], float]:
    """Return (train seed, level, draw) -> value."""
    keys = zip(draws["train_seed"], draws["level"], draws["draw"], strict=True)
    return dict(zip(keys, draws["value"], strict=True))


class CountingLinear(nn.Linear):
    """A linear layer that counts its forward passes, also those of its copies, and can fail at one of them."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """Count and compute."""
        CountingLinear.passes += 1
        return super().forward(x)


def counting(seed: int = 0) -> CountingLinear:
    """Return a counting classifier of 6 features in 3 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CountingLinear(6, 3)


def features(n: int = 40) -> tuple[Tensor, Tensor]:
    """Return n examples of 6 features in 3 classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 6, generator=generator), torch.randint(0, 3, (n,), generator=generator)
