"""Scaling of pixel values to what a network was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from noiserobust.errors import InvalidValueError, unknown_name


@dataclass(frozen=True)
class Normalize:
    """``(x - mean) / std`` for each channel, with uint8 pixels first divided by 255.

    Args:
        mean: one number a channel, in units of the [0, 1] range; empty for no shift and scale.
        std: one number > 0 a channel.

    Raises:
        InvalidValueError: if a number is not finite, a std not > 0, or there are not as many of both.

    >>> str(Normalize((0.5,), (0.25,)))
    '0.5/0.25'
    >>> Normalize((0.5,), (0.25,))(torch.tensor([[[[255]]]], dtype=torch.uint8))
    tensor([[[[2.]]]])
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        if len(self.mean) != len(self.std):
            raise InvalidValueError(
                f"Expected `normalize` to have as many stds as means, but got {len(self.mean)} means and "
                f"{len(self.std)} stds"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or any(s <= 0 for s in self.std):
            raise InvalidValueError(
                f"Expected `normalize` to have finite means and finite stds > 0, but got {self.mean} and {self.std}"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Return a normalised batch.

        Args:
            x: N x C x H x W or N x C, uint8 (0 to 255) or floating (taken as it is; for images in [0, 1]); untouched.

        Returns:
            The same shape and memory layout; float32 for uint8, the same dtype otherwise.

        Raises:
            InvalidValueError: if the number of channels is another one, or the dtype is none of these.
        """
        if x.dtype == torch.uint8:
            # Not in place for floats, which are the caller's.
            x = x.to(torch.float32).div_(255)
        elif not x.is_floating_point():
            raise InvalidValueError(f"Expected inputs to be uint8 or floating, but got {x.dtype}")
        if not self.mean:
            return x
        if x.ndim < 2 or x.shape[1] != len(self.mean):
            raise InvalidValueError(
                f"Expected inputs with {len(self.mean)} channels (dimension 1), for which there are means and stds, "
                f"but got shape {tuple(x.shape)}; pass another --normalize"
            )
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(shape) for v in (self.mean, self.std))
        return (x - mean) / std

    def __str__(self) -> str:
        return f"{_joined(self.mean)}/{_joined(self.std)}" if self.mean else "none"


#: What ``--normalize`` knows by name.
NORMALIZATIONS: Mapping[str, Normalize] = MappingProxyType(
    {
        # uint8 is still divided by 255.
        "none": Normalize(),
        # Over the 1.28 M training images of ILSVRC 2012, as fixed by torchvision's pretrained models
        # (https://docs.pytorch.org/vision/stable/models.html).
        "imagenet": Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        # Mean and std over all pixels of the 50,000 training images of CIFAR-10 and CIFAR-100 (Krizhevsky 2009). For
        # CIFAR-10 some code uses (0.2023, 0.1994, 0.2010) instead, the mean over images of the std within an image.
        "cifar10": Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "cifar100": Normalize((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        # Mean and std over all pixels of the 60,000 training images of each.
        "mnist": Normalize((0.1307,), (0.3081,)),
        "fashion-mnist": Normalize((0.2860,), (0.3530,)),
        # Over all pixels of the 1,000 training images of the built-in digits (tests recompute it).
        "digits": Normalize((0.3050,), (0.3757,)),
    }
)


def parse_normalize(text: str) -> Normalize:
    """Read ``--normalize``: a name in :data:`NORMALIZATIONS` or ``"m,m,m/s,s,s"``.

    Raises:
        InvalidValueError: if it is neither, naming the nearest name.

    >>> parse_normalize("0.5,0.5/0.2,0.2")
    Normalize(mean=(0.5, 0.5), std=(0.2, 0.2))
    """
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    if "/" not in text:
        raise unknown_name("normalize", text, [*NORMALIZATIONS, "m,m,m/s,s,s"])
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in text.split("/"))
    except ValueError:
        raise InvalidValueError(
            f"Expected `normalize` to be means and stds like 0.5,0.5,0.5/0.25,0.25,0.25, but got {text!r}"
        ) from None
    return Normalize(mean, std)


def _joined(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number!r}" for number in numbers)
