"""resnet18 for small images: a 3x3 stem of stride 1 and no pooling before the blocks.

Deep Residual Learning for Image Recognition (He et al., 2015); the stem is the one usual for 32x32 images.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from oblivio.networks._image import image


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input; a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, before, h, w)`` to ``(n, after, h / stride, w / stride)``."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def build(inputs: tuple[PositiveInt, ...], outputs: PositiveInt, *, width: PositiveInt = 64) -> nn.Module:
    """``(n, channels, height, width)`` to ``(n, outputs)``; ``width`` is the channels of the stem, doubled thrice."""
    channels, _, _ = image(inputs, "resnet18")
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    stages = [
        nn.Sequential(Block(before, after, stride), Block(after, after, 1))
        for (before, after), stride in zip(itertools.pairwise(widths), (1, 2, 2, 2), strict=True)
    ]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Conv2d(channels, width, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
        stages=nn.Sequential(*stages),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        head=nn.Linear(8 * width, outputs),
    )
    net = nn.Sequential(layers)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a fifth faster
