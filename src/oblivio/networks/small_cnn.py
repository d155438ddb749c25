"""small-cnn: two 3x3 convolutions of stride 2 and a linear layer; about 0.2 M weights on 28x28 images."""

from __future__ import annotations

from collections import OrderedDict

from pydantic import PositiveInt
from torch import nn

from oblivio.networks._image import image


def build(inputs: tuple[PositiveInt, ...], outputs: PositiveInt) -> nn.Module:
    """``(n, channels, height, width)`` to ``(n, outputs)``, for images of any size."""
    channels, height, width = image(inputs, "small-cnn")
    pixels = -(-height // 4) * -(-width // 4)  # each convolution halves a side, rounding up
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 16, 3, stride=2, padding=1),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(16, 32, 3, stride=2, padding=1),
        relu2=nn.ReLU(),
        flatten=nn.Flatten(),
        hidden=nn.Linear(32 * pixels, 128),
        relu3=nn.ReLU(),
        head=nn.Linear(128, outputs),
    )
    return nn.Sequential(layers)
