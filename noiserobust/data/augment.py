"""Random crops and flips of a whole batch, the same on every device."""

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
        if x.ndim != 4:
            raise InvalidValueError(
                f"Expected inputs to augment to be N x C x H x W images, but got shape {tuple(x.shape)}"
            )
        count, _, height, width = x.shape
        layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
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


def _is_channels_last(x: Tensor) -> bool:
    # With one channel, or one pixel, a tensor is both.
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
