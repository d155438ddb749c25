"""Known: what passes over whole sources found, kept for all copies of a problem, so that each is made once."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from oblivio.core.source import Source


class Known:
    """Values by what they are, the source they are of, and the weights they were made at.

    ``made`` counts how often each was worked out, by (what, source, weights); once is what is wanted.
    """

    def __init__(self) -> None:
        self.made: Counter[tuple[str, str, int]] = Counter()
        self._values: dict[tuple[str, int, int], tuple[Source, Any]] = {}

    def get(self, what: str, source: Source, weights: Iterable[Tensor], make: Callable[[], Any]) -> tuple[Any, bool]:
        """The value, and whether it was known before."""
        state = digest(weights)
        key = (what, id(source), state)
        known = key in self._values
        if not known:
            self.made[what, source.name, state] += 1
            self._values[key] = source, make()  # the source is held, so that no other one gets its id
        return self._values[key][1], known


def digest(tensors: Iterable[Tensor]) -> int:
    """A checksum of all bits."""
    found = 0
    for tensor in tensors:
        found = zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), found)
    return found
