"""A vision transformer for 32x32 images.

Written out in linear layers, because torch's own ``TransformerEncoderLayer`` goes a way of its own in evaluation mode,
past the modules whose weights, hooks and parametrisations carry the noise.

Source: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, equations 1 to 4 and appendix B.1 (dropout);
initialisation: Touvron et al., "Training data-efficient image transformers", ICML 2021, section 6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiserobust.errors import InvalidValueError, check_integer, check_number


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        width: size of a token.
        heads: number of heads, a divisor of ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x tokens x width to the same shape."""
        # N x tokens x width -> N x heads x tokens x width/heads, each of query, key and value
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each behind layer norm and with a shortcut around it (equations 2 and 3).

    Args:
        width: size of a token.
        heads: number of heads.
        hidden: hidden units of the perceptron.
        dropout: share of values set to zero behind each linear layer but the one that makes query, key and value.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x tokens x width to the same shape."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


class ViT(nn.Module):
    """Patches and a class token through encoder blocks; layer norm and a linear layer read the class token.

    Patch size, heads and dropout are by default those that "Efficient generalization improvement guided by random
    weight perturbation" (appendix D) gives for CIFAR; depth, width and hidden units, which it does not give, are those
    of the public code with the same settings (kentaroy47/vision-transformers-cifar10). That makes 9,532,938 parameters
    for 10 classes.

    Linear layers, class token and positions start from a normal distribution of standard deviation 0.02, truncated at
    two of them; biases from zero; the patch embedding from torch's default.

    Args:
        num_classes: number of outputs, >= 1.
        in_channels: channels of the images, >= 1.
        image_size: height and width of the images in pixels, a multiple of ``patch``.
        patch: height and width of a patch in pixels.
        width: size of a token, a multiple of ``heads``.
        depth: number of encoder blocks.
        heads: number of attention heads.
        hidden: hidden units of the perceptrons.
        dropout: share of values set to zero in training, 0 to 1.

    Raises:
        InvalidValueError: if an argument is out of range, or one that should be is no multiple of another.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        patch: int = 4,
        width: int = 512,
        depth: int = 6,
        heads: int = 8,
        hidden: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = {
            "num_classes": num_classes, "in_channels": in_channels, "image_size": image_size, "patch": patch,
            "width": width, "depth": depth, "heads": heads, "hidden": hidden,
        }  # fmt: skip
        for name, size in sizes.items():
            check_integer(name, size, minimum=1)
        check_number("dropout", dropout, minimum=0, maximum=1)
        _check_multiple("image_size", image_size, "patch", patch)
        _check_multiple("width", width, "heads", heads)
        self.image_size = image_size
        self.patches = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + (image_size // patch) ** 2, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, hidden, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        for weight in (self.class_token, self.positions, *(layer.weight for layer in linear)):
            nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
        for layer in linear:
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, N x in_channels x image_size x image_size, to logits, N x num_classes."""
        if x.shape[-2:] != (self.image_size, self.image_size):
            raise InvalidValueError(
                f"Expected images of {self.image_size}x{self.image_size} pixels, as the transformer has learnt "
                f"positions, but got {x.shape[-2]}x{x.shape[-1]}"
            )
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1) + self.positions
        tokens = self.blocks(self.dropout(tokens))
        logits: Tensor = self.linear(self.norm(tokens[:, 0]))
        return logits


def _check_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value % divisor:
        raise InvalidValueError(f"Expected `{name}` to be a multiple of `{divisor_name}` ({divisor}), but got {value}")
