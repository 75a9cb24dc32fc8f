"""Networks whose loss is a function of their weights that is known in closed form, and what else these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ROWS, COLUMNS = 6, 10
SIZE = ROWS * COLUMNS


def matrix(seed: int = 0, size: int = SIZE) -> Tensor:
    """Return a symmetric matrix with eigenvalues of both signs, float64."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return (h + h.T) / 2 + 5 * torch.eye(size, dtype=torch.float64)


class Quadratic(nn.Module):
    """The output for an example x is ``x w^T H w / 2``; w are the weights of a linear layer, ROWS filters."""

    def __init__(self, h: Tensor, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layer = nn.Linear(COLUMNS, ROWS, bias=False).double()
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(ROWS, COLUMNS, generator=generator))
        self.register_buffer("h", h)

    @property
    def w(self) -> Tensor:
        return self.layer.weight.detach().flatten().clone()

    def forward(self, x: Tensor) -> Tensor:
        w = self.layer.weight.flatten()
        return x[:, 0] * (w @ self.h @ w) / 2


class Plateau(nn.Module):
    """The output is ``1 - exp(-|w|^2 / 2)``: its gradient at the distance r from the origin is r exp(-r^2 / 2)."""

    def __init__(self, w: list[float]) -> None:
        super().__init__()
        self.layer = nn.Linear(len(w), 1, bias=False).double()
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([w], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (1 - torch.exp(-self.layer.weight.square().sum() / 2)).expand(len(x))


def mean_output(output: Tensor, target: Tensor) -> Tensor:
    """Return the outputs' mean as the loss."""
    return output.mean()


def scales(n: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return n examples x of one feature, positive, and targets that do not matter."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, generator=generator, dtype=torch.float64) + 0.5, torch.zeros(n, dtype=torch.float64)


def smooth(seed: int = 0) -> nn.Sequential:
    """Return a smooth perceptron 6 - 4 - 3, float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def features(n: int = 13, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return n examples of 6 features in 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def normalised(seed: int = 0) -> nn.Sequential:
    """Return a network for 2 x 4 x 4 images with batch norm and dropout, in training mode but for one layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(64, 3),
        )
        model(torch.randn(8, 2, 4, 4))
    model[2].eval()
    return model


def images(n: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return n images of 2 x 4 x 4 in 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, 4, 4, generator=generator), torch.randint(0, 3, (n,), generator=generator)


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Check that weights, buffers, modes, gradients and torch's global generator are what they were, bit for bit."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    gradients = [p.grad for p in model.parameters()]
    needs = [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()
    yield
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert all(p.grad is g and bool((g == 1).all()) for p, g in zip(model.parameters(), gradients, strict=True))
    assert needs == [p.requires_grad for p in model.parameters()]
    assert torch.equal(random, torch.get_rng_state())
