"""The images that benches run on: real ones from OBLIVIO_DATA, or random ones of the same shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oblivio import data
from oblivio.core.errors import BadInput


@dataclass(frozen=True)
class Images:
    """``x``: float32 (n, 1, 28, 28) in [0, 1]; ``y``: labels 0 to 9; ``note`` says so where they are random."""

    x: Tensor
    y: Tensor
    note: str = ""

    def first(self, n: int) -> Images:
        """The first ``n`` rows."""
        return Images(self.x[:n], self.y[:n], self.note)


def images(name: str, rows: int = 60_000) -> Images:
    """The first training rows of ``mnist`` or ``fashion_mnist``; random ones where there is no such file."""
    try:
        train = data.load(name).train
        first = train.batch(torch.arange(min(rows, len(train))))
        return Images(first["x"], first["y"])
    except BadInput:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(rows, 1, 28, 28, generator=generator)
        return Images(x, torch.randint(10, (rows,), generator=generator), f"random data in place of {name}; ")
