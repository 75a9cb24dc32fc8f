"""Random crops, flips and holes of a whole batch, the same on every device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.rng import Stream


@dataclass(frozen=True)
class Augment:
    """Each image is padded with zeros, cropped back to its size at a random place, and mirrored with probability 1/2.

    Apply it to stored pixels, before they are normalised: the padding is black, as with torchvision's ``RandomCrop``.

    Args:
        crop: pixels of padding on each side, >= 0; shifts are uniform in -crop..crop, down and across.
        flip: mirror left and right.

    Raises:
        InvalidValueError: if ``crop`` is no integer >= 0.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2 (crop 4 and flip).

    >>> Augment(crop=4, flip=True)
    Augment(crop=4, flip=True)
    """

    crop: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        check_integer("crop", self.crop, minimum=0)

    def __call__(self, x: Tensor, stream: Stream) -> Tensor:
        """Return an augmented batch.

        Args:
            x: N x C x H x W of any dtype, on any device; untouched.
            stream: where the randomness comes from; a stream of its own for every batch.

        Returns:
            The same shape, dtype, device and memory format.

        Raises:
            InvalidValueError: if ``x`` is no batch of images.
        """
        count, _, height, width = _image_shape(x)
        layout = _layout(x)
        if self.crop:
            offsets = stream.child("crop").generator().integers(0, 2 * self.crop + 1, size=(2, count))
            down, across = torch.from_numpy(offsets).to(x.device)
            padded = F.pad(x, (self.crop,) * 4)
            # A view of every crop there is: N x C x down x across x H x W.
            crops = padded.unfold(2, height, 1).unfold(3, width, 1)
            x = crops[torch.arange(count, device=x.device), :, down, across]
        if self.flip:
            coins = stream.child("flip").generator().integers(0, 2, size=count).astype(bool)
            mirrored = torch.from_numpy(coins).to(x.device)
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        return x.contiguous(memory_format=layout)


@dataclass(frozen=True)
class Cutout:
    """In each image a square is set to zero.

    Its centre is uniform over the image; what lies beyond the border is cut off. Apply it to normalised images, as the
    paper does: zero is then the mean of the data, which is what the network sees where it sees nothing.

    Args:
        side: of the square in pixels, >= 0; 0 for none. It covers ``centre - side // 2`` and the ``side - 1`` pixels
            that follow.

    Raises:
        InvalidValueError: if ``side`` is no integer >= 0.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with Cutout",
    arXiv:1708.04552, section 3 (side 16 for CIFAR-10, 8 for CIFAR-100).
    """

    side: int = 0

    def __post_init__(self) -> None:
        check_integer("cutout", self.side, minimum=0)

    def __call__(self, x: Tensor, stream: Stream) -> Tensor:
        """Return a batch with holes.

        Args:
            x: N x C x H x W of any dtype, on any device, normalised; untouched.
            stream: where the randomness comes from; a stream of its own for every batch.

        Returns:
            The same shape, dtype, device and memory format.

        Raises:
            InvalidValueError: if there is something to cut out and ``x`` is no batch of images.
        """
        if not self.side:
            return x
        count, _, height, width = _image_shape(x)
        generator = stream.child("cutout").generator()
        down, across = (
            self._covered(torch.from_numpy(generator.integers(0, length, size=count)).to(x.device), length)
            for length in (height, width)
        )
        hole = (down[:, :, None] & across[:, None, :])[:, None]
        return x.masked_fill(hole, 0).contiguous(memory_format=_layout(x))

    def _covered(self, centres: Tensor, length: int) -> Tensor:
        """Return which of ``length`` rows or columns are covered, N x length."""
        distance = torch.arange(length, device=centres.device) - (centres[:, None] - self.side // 2)
        return (distance >= 0) & (distance < self.side)


def _image_shape(x: Tensor) -> torch.Size:
    if x.ndim != 4:
        raise InvalidValueError(
            f"Expected inputs to augment to be N x C x H x W images, but got shape {tuple(x.shape)}"
        )
    return x.shape


def _layout(x: Tensor) -> torch.memory_format:
    # With one channel, or one pixel, a tensor is both.
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
