"""What is done to inputs when they are read: permuted pixels, turned and otherwise altered images."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from oblivio.core.errors import BadInput, nearest
from oblivio.core.seeds import generator
from oblivio.sources.marked import Change


def identity(x: Tensor) -> Tensor:
    """Inputs as they are."""
    return x


class Everywhere:
    """A tensor on every device where it was needed: it is moved once a device, not once a batch."""

    def __init__(self, tensor: Tensor) -> None:
        self._on = {tensor.device: tensor}

    def on(self, device: torch.device) -> Tensor:
        """The tensor there."""
        if device not in self._on:
            self._on[device] = next(iter(self._on.values())).to(device)
        return self._on[device]


class Permute:
    """The values of a row in another order, the same for all rows. ``order``: int64, (values of a row,)."""

    def __init__(self, order: Tensor) -> None:
        self.order = Everywhere(order)

    def __call__(self, x: Tensor) -> Tensor:
        """Shape as before."""
        return x.flatten(1).index_select(1, self.order.on(x.device)).view(x.shape)


class Rotate:
    """Images turned anticlockwise by ``degrees``; multiples of 90 are exact, others bilinear with zeros around.

    Where each pixel comes from is worked out once a size, which is several times faster than sampling a grid.
    """

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees % 360
        self.quarters = round(self.degrees / 90) if self.degrees % 90 == 0 else None
        self._known: dict[tuple[int, int], tuple[Everywhere, Everywhere]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """(n, channels, height, width), the size as before."""
        if self.quarters is not None:
            return x.rot90(self.quarters, (-2, -1)) if self.quarters else x
        height, width = x.shape[-2:]
        if (height, width) not in self._known:
            places, weights = corners(self.degrees, height, width)
            self._known[height, width] = Everywhere(places), Everywhere(weights)
        places, weights = (table.on(x.device) for table in self._known[height, width])
        pixels = x.reshape(-1, height * width)  # columns of a matrix are selected several times faster than of more
        turned = torch.zeros_like(pixels)
        for place, weight in zip(places, weights, strict=True):
            turned.addcmul_(pixels.index_select(1, place), weight)
        return turned.view(x.shape)


def corners(degrees: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four pixels that each pixel of a turned image lies between, and their weights, both (4, height * width)."""
    angle = math.radians(degrees)
    down = torch.arange(height, dtype=torch.double)[:, None] - (height - 1) / 2
    right = torch.arange(width, dtype=torch.double)[None] - (width - 1) / 2
    row = math.sin(angle) * right + math.cos(angle) * down + (height - 1) / 2
    column = math.cos(angle) * right - math.sin(angle) * down + (width - 1) / 2
    places, weights = [], []
    for i in (row.floor(), row.floor() + 1):
        for j in (column.floor(), column.floor() + 1):
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            weights.append(inside * (1 - (row - i).abs()) * (1 - (column - j).abs()))
            places.append(i.clamp(0, height - 1) * width + j.clamp(0, width - 1))
    return torch.stack(places).long().flatten(1), torch.stack(weights).float().flatten(1)


def _blurred(x: Tensor) -> Tensor:
    """The mean of 3 x 3 pixels, of those there are at the edges."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class Noise:
    """One fixed pattern of Gaussian noise on all images, cut to [0, 1]."""

    def __init__(self, shape: tuple[int, ...], deviation: float = 0.3, seed: int = 0) -> None:
        self.pattern = Everywhere(deviation * torch.randn(shape, generator=generator("noise", seed)))

    def __call__(self, x: Tensor) -> Tensor:
        """Shape as before."""
        return (x + self.pattern.on(x.device)).clamp(0, 1)


CHANGES: dict[str, Callable[[tuple[int, ...]], Change]] = {
    "identity": lambda shape: identity,
    "mirrored": lambda shape: lambda x: x.flip(-1),
    "flipped": lambda shape: lambda x: x.flip(-2),
    "rotated": lambda shape: Rotate(90),
    "inverted": lambda shape: lambda x: 1 - x,
    "blurred": lambda shape: _blurred,
    "dimmed": lambda shape: lambda x: 0.5 * x,
    "noisy": Noise,
}


def change(name: str, shape: tuple[int, ...]) -> Change:
    """One of ``CHANGES`` for images of this shape. Raises BadInput for an unknown one, with the nearest."""
    if name not in CHANGES:
        raise BadInput(f"no domain is called {name!r}{nearest(name, CHANGES)}")
    return CHANGES[name](shape)
