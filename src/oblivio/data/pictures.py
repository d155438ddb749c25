"""Image files, opened and resized when they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from oblivio.core.errors import BadInput
from oblivio.data.extras import need
from oblivio.sources import Items

Size: TypeAlias = int | tuple[int, int]

CHANNELS = {1: "L", 3: "RGB"}


def shape(size: Size) -> tuple[int, int]:
    """Height and width in pixels, from both or from one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise BadInput(f"images cannot be resized to {height} x {width} pixels; give at least 1")
    return height, width


class Pictures(TorchDataset[dict[str, Tensor]]):
    """Images by place. ``opened(i)`` gives the PIL image; items are ``{"x": (channels, height, width) in [0, 1]}``."""

    def __init__(self, opened: Callable[[int], Any], length: int, size: tuple[int, int], channels: int = 3) -> None:
        if channels not in CHANNELS:
            raise BadInput(f"images have 1 channel or 3, not {channels}")
        self.opened, self.length, self.size, self.channels = opened, length, size, channels

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        bilinear = need("PIL.Image", "images").Resampling.BILINEAR
        image = self.opened(place).convert(CHANNELS[self.channels]).resize(self.size[::-1], bilinear)
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).view(*self.size, self.channels)
        return {"x": pixels.permute(2, 0, 1).float() / 255}


class Files:
    """Opens the image files ``root / name``."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, list(names)

    def __call__(self, place: int) -> Any:
        """The image at ``place``; a file that is missing or no image is a BadInput."""
        images = need("PIL.Image", "images")
        path = self.root / self.names[place]
        try:
            with images.open(path) as image:
                image.load()
                return image
        except OSError as error:
            raise BadInput(f"{path} cannot be read as an image: {error}") from None


class Labelled(Items):
    """Items whose other columns are known without making the items: reading a label opens no image.

    Args:
        dataset: map-style, its items are dicts.
        known: columns by name, first dimension ``len(dataset)``.
        ids: of every row (default: the position).
    """

    def __init__(self, dataset: TorchDataset[Any], known: Mapping[str, Tensor], ids: Any = None) -> None:
        super().__init__(dataset, ids=ids)
        self.known = dict(known)
        self.columns = (*self.columns, *self.known)

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name not in self.known:
            super().read(name, rows, into)
            return
        places = rows if self.index is None else self.index[rows]
        into[name] = self.known[name][places].to(self._device or "cpu")

    def take(self, index: Any) -> Labelled:
        view = Labelled.__new__(Labelled)
        view.__dict__.update(super().take(index).__dict__)
        return view
