"""Augmentation of images while a model is trained: the draw is a function of the clock, so a resumed run repeats it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Batch, Ids, Source

if TYPE_CHECKING:
    from oblivio.core.step import Step


class CropFlip(Source):
    """The rows of a source; those drawn for a step are shifted by up to an eighth of a side, and half are mirrored.

    Rows read in order (for a table of figures, for fitting) are as they are.
    """

    random = True

    def __init__(self, rows: Source) -> None:
        if rows.batch(torch.arange(1))["x"].dim() != 4:
            raise BadInput("recipe.augmentation = crop_flip: the rows are no images")
        self.rows, self.columns, self.size = rows, rows.columns, rows.size

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> Ids:
        return self.rows.ids

    @property
    def root(self) -> Any:
        return self.rows.root

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        self.rows.read(name, rows, into)

    def take(self, index: Any) -> CropFlip:
        return CropFlip(self.rows.take(index))

    def to(self, device: torch.device) -> CropFlip:
        return CropFlip(self.rows.to(device))

    def draw(self, n: int, step: Step) -> Batch:
        batch = super().draw(n, step)
        return batch.but(x=crop_flip(batch["x"], step.rng(f"{self.name}/augment")))


def crop_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (n, C, H, W), each shifted with zeros coming in and mirrored with probability one half."""
    n, _, height, width = x.shape
    far = max(height, width) // 8

    def drawn(high: int) -> Tensor:
        return torch.randint(high, (n, 1), generator=generator, device=x.device)

    rows = drawn(2 * far + 1) + torch.arange(height, device=x.device)
    columns = drawn(2 * far + 1) + torch.arange(width, device=x.device)
    columns = torch.where(drawn(2).bool(), columns.flip(1), columns)
    each = torch.arange(n, device=x.device)[:, None, None]
    padded = F.pad(x, (far, far, far, far))
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
