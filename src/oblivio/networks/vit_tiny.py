"""vit-tiny: a small vision transformer; with width 192, depth 12 and heads 3 it is ViT-Ti.

An Image is Worth 16x16 Words (Dosovitskiy et al., 2020), with the mean over patches in place of a class token
(Better plain ViT baselines for ImageNet-1k, Beyer et al., 2022): one weight fewer to explain, at no loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.networks._image import image


class Attention(nn.Module):
    """Self-attention over ``(n, tokens, width)``. The kernel is torch's choice, or ``torch.nn.attention``'s."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape in is shape out."""
        split = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # n, tokens, 3, heads, width / heads
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two linear layers on each token; each normalises its input and adds to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Shape in is shape out."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Images cut into patches, a linear map of each, learned positions, blocks, the mean over patches, the head."""

    def __init__(
        self, channels: int, tokens: int, outputs: int, width: int, depth: int, heads: int, patch: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, height, width)`` to ``(n, outputs)``."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def build(
    inputs: tuple[PositiveInt, ...],
    outputs: PositiveInt,
    *,
    width: PositiveInt = 64,
    depth: PositiveInt = 4,
    heads: PositiveInt = 4,
    patch: PositiveInt = 7,
) -> nn.Module:
    """``(n, channels, height, width)`` to ``(n, outputs)``.

    ``patch``, the side of the square that makes one token, must divide both sides of the image, and ``heads`` the
    ``width``.
    """
    channels, height, across = image(inputs, "vit-tiny")
    if height % patch or across % patch:
        fits = [str(i) for i in range(1, min(height, across) + 1) if height % i == 0 == across % i]
        raise BadInput(f"vit-tiny: patch {patch} does not divide images of {height}x{across}; {', '.join(fits)} do")
    if width % heads:
        raise BadInput(f"vit-tiny: heads {heads} does not divide width {width}")
    tokens = (height // patch) * (across // patch)
    net = VisionTransformer(channels, tokens, outputs, width, depth, heads, patch)
    # patches then come out of the convolution as tokens, without a copy
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
