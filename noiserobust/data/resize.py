"""Bringing photographs of different sizes to one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noiserobust.errors import InvalidValueError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

_OPTIONS = re.compile(r"(?P<path>.*)@(?P<options>\w+=[^/@]*)", re.DOTALL)


@dataclass(frozen=True)
class ResizeCrop:
    """An image is scaled until its shorter side is ``resize`` pixels, then the square in its middle is cut out.

    Scaling is bilinear with antialiasing, as in torchvision's ``Resize`` and ``CenterCrop`` of Pillow images, with
    which published ImageNet accuracies were measured, most of them with ``resize=256, size=224``.

    Args:
        size: side of the square, >= 1.
        resize: shorter side after scaling, >= ``size``.

    Raises:
        InvalidValueError: if they are not.
    """

    size: int
    resize: int

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            raise InvalidValueError(
                f"Expected `size` and `resize` of images to be 1 <= size <= resize, but got {self.size} and "
                f"{self.resize}"
            )

    def __call__(self, image: Image) -> Image:
        """Return the square, ``size`` x ``size``.

        Raises:
            PIL.Image.DecompressionBombError: if the image is so long that it would be scaled to more pixels than Pillow
                reads.
        """
        from PIL import Image as pillow

        shorter = min(image.size)
        width, height = (self.resize if side == shorter else self.resize * side // shorter for side in image.size)
        if pillow.MAX_IMAGE_PIXELS and width * height > pillow.MAX_IMAGE_PIXELS:
            raise pillow.DecompressionBombError(f"{image.width}x{image.height} would be scaled to {width}x{height}")
        image = image.resize((width, height), pillow.Resampling.BILINEAR)
        left, top = (round((side - self.size) / 2) for side in (width, height))
        return image.crop((left, top, left + self.size, top + self.size))


def split_options(text: str) -> tuple[str, ResizeCrop | None]:
    """Read ``PATH`` or ``PATH@size=S`` or ``PATH@size=S,resize=R``; R is S if it is not given.

    Raises:
        InvalidValueError: if there are other options, or their values are no sizes.

    >>> split_options("imagenet@size=224,resize=256")
    ('imagenet', ResizeCrop(size=224, resize=256))
    """
    match = _OPTIONS.fullmatch(text)
    if not match:
        return text, None
    pairs = [option.partition("=") for option in match["options"].split(",")]
    for key, _, value in pairs:
        if key not in ("size", "resize"):
            raise unknown_name("option of images", key, ("size", "resize"))
        if not (value.isascii() and value.isdecimal()):
            raise InvalidValueError(f"Expected `{key}` of images to be an integer >= 1, but got {value!r}")
    options = {key: int(value) for key, _, value in pairs}
    if "size" not in options:
        raise InvalidValueError(f"Expected the options of images to be like size=224,resize=256, but got {text!r}")
    return match["path"], ResizeCrop(options["size"], options.get("resize", options["size"]))
