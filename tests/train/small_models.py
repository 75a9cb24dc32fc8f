"""Small networks and plain float64 arithmetic that the training tests share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Loss = Callable[[dict[str, Tensor]], Tensor]


def mlp(seed: int = 0, *, bias: bool = True) -> nn.Sequential:
    """Return a smooth perceptron 6 - 5 - 3."""
    return seeded(lambda: nn.Sequential(nn.Linear(6, 5, bias=bias), nn.Tanh(), nn.Linear(5, 3)), seed)


def cnn(seed: int = 0) -> nn.Sequential:
    """Return a convolution with batch norm and dropout for 2 x 4 x 4 images."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(64, 3),
        ),
        seed,
    )


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a module without touching torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def features(n: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return n examples of 6 features in 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def images(n: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return n images of 2 x 4 x 4 in 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, 4, 4, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def closure_of(
    opt: torch.optim.Optimizer, model: nn.Module, x: Tensor, y: Tensor, seen: list[Tensor] | None = None
) -> Callable[[], Tensor]:
    """Return the ordinary closure; the losses it computes are appended to ``seen``."""

    def closure() -> Tensor:
        opt.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        if seen is not None:
            seen.append(loss.detach())
        return loss

    return closure


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Return whether two states agree in every bit: NaN and the sign of zero count."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype
        and a[k].shape == b[k].shape
        and torch.equal(a[k].contiguous().flatten().view(torch.uint8), b[k].contiguous().flatten().view(torch.uint8))
        for k in a
    )


def exact(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters in float64."""
    return {name: p.detach().double() for name, p in model.named_parameters()}


def mlp_loss(x: Tensor, y: Tensor) -> Loss:
    """Return the mean cross-entropy of :func:`mlp`, written out, as a function of its parameters."""

    def loss(w: dict[str, Tensor]) -> Tensor:
        hidden = torch.tanh(x.double() @ w["0.weight"].T + w.get("0.bias", 0))
        scores = hidden @ w["2.weight"].T + w["2.bias"]
        return (scores.exp().sum(1).log() - scores[torch.arange(len(y)), y]).mean()

    return loss


def gradient(loss: Loss, w: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradient of a plain loss."""
    leaves = {name: value.clone().requires_grad_() for name, value in w.items()}
    return dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values())), strict=True))


def assert_close(model: nn.Module, expected: dict[str, Tensor], rtol: float = 2e-5, atol: float = 2e-7) -> None:
    """Assert that the parameters of a float32 model are those of the float64 reference."""
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.detach().double(), expected[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )
