"""A table's fitted part: imputing, standardising and one-hot coding, inside the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oblivio.core.source import Source
from oblivio.modules.fitted import AT_ONCE, moments


class TablePreprocess(nn.Module):
    """From raw columns ``(n, len(sizes))`` to numbers ``(n, outputs)``: standardised, one-hot, indicators.

    A column of numbers becomes one output: NaN replaced by the median, then ``(x - mean) / std``. A column of category
    codes becomes one output a category. Every column in ``gaps`` adds an indicator of missing values. What the fit did
    not see (a category, an unknown code, a gap) is all zeros: no weight was trained for it. The statistics are buffers:
    data, not weights. The columns of numbers come first in the output, then the categories, then the indicators.

    Args:
        sizes: for each column the number of its categories, coded 0, 1, ...; 0 for a column of numbers.
        gaps: places of the columns that get an indicator.
    """

    numbers: Tensor
    slot_places: Tensor
    slot_codes: Tensor
    gaps: Tensor
    median: Tensor
    mean: Tensor
    std: Tensor
    seen: Tensor
    seen_gap: Tensor

    def __init__(self, sizes: Sequence[int], gaps: Sequence[int] = ()) -> None:
        super().__init__()
        numbers = [place for place, size in enumerate(sizes) if size == 0]
        slots = [(place, code) for place, size in enumerate(sizes) for code in range(size)]
        settings = {
            "numbers": torch.tensor(numbers, dtype=torch.long),
            "slot_places": torch.tensor([place for place, _ in slots], dtype=torch.long),
            "slot_codes": torch.tensor([code for _, code in slots], dtype=torch.float),
            "gaps": torch.tensor(list(gaps), dtype=torch.long),
        }
        for name, value in settings.items():
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("median", torch.zeros(len(numbers)))
        self.register_buffer("mean", torch.zeros(len(numbers)))
        self.register_buffer("std", torch.ones(len(numbers)))
        self.register_buffer("seen", torch.ones(len(slots)))
        self.register_buffer("seen_gap", torch.ones(len(gaps)))

    @property
    def outputs(self) -> int:
        """Width of what ``forward`` returns."""
        return len(self.numbers) + len(self.slot_places) + len(self.gaps)

    def forward(self, x: Tensor) -> Tensor:
        """Raw columns ``(n, columns)`` to ``(n, outputs)``."""
        numbers = (self._filled(x) - self.mean) / self.std
        return torch.cat([numbers, self._one_hot(x) * self.seen, self._missing(x) * self.seen_gap], dim=1)

    def refit(self, source: Source) -> None:
        """Take all statistics from the ``x`` of these rows, which are held at once: medians need them all.

        A column of numbers without any gets the median 0; of a constant one only the mean is removed. The median of an
        even count is the lower of the two in the middle.
        """
        x = torch.cat([batch["x"] for batch in source.batches(AT_ONCE)])
        self.median.copy_(x[:, self.numbers].nanmedian(dim=0).values.nan_to_num(0.0))
        mean, std = moments([self._filled(x).T])
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.seen.copy_(self._one_hot(x).amax(dim=0))
        self.seen_gap.copy_(self._missing(x).amax(dim=0))

    def _filled(self, x: Tensor) -> Tensor:
        numbers = x[:, self.numbers]
        return torch.where(numbers.isnan(), self.median, numbers)

    def _one_hot(self, x: Tensor) -> Tensor:
        return (x[:, self.slot_places] == self.slot_codes).to(self.seen.dtype)

    def _missing(self, x: Tensor) -> Tensor:
        return x[:, self.gaps].isnan().to(self.seen_gap.dtype)
