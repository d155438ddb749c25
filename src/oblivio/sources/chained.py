"""Rows of several sources one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids, Source
from oblivio.sources.rows import places


class Chained(Source):
    """The rows of ``parts`` in order, with the columns that all of them have; a batch may hold rows of several parts.

    Raises:
        BadInput: no part.
    """

    def __init__(self, parts: Sequence[Source]) -> None:
        if not parts:
            raise BadInput("a chain of sources needs at least one")
        self.parts = tuple(parts)
        self.columns = tuple(c for c in parts[0].columns if all(c in part.columns for part in parts))
        self._starts = torch.tensor([0, *map(len, parts)]).cumsum(0)
        self.index = torch.arange(int(self._starts[-1]))

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"Chained({self.name!r}, {len(self)} rows of {len(self.parts)} sources)"

    @property
    def ids(self) -> Ids:
        ids: Ids = np.concatenate([part.ids for part in self.parts])[self.index.numpy()]
        return ids

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether reading a row twice may differ in one of the parts."""
        return any(part.random for part in self.parts)

    @property
    def root(self) -> Any:
        """What its views share."""
        return self.parts

    def comparable(self, other: Source) -> bool:
        return self.root is other.root or all(part.comparable(other) for part in self.parts)

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name not in (*self.columns, "id"):
            raise BadInput(f"source {self.name!r} has no column {name!r}; it has {', '.join(self.columns)}")
        at = self.index[rows]
        part = torch.searchsorted(self._starts, at, right=True) - 1
        places = [(part == i).nonzero().flatten() for i in part.unique().tolist()]
        values = [self._part(int(part[p[0]]), at[p])[name] for p in places]
        if not values:
            values, places = [self.parts[0].batch(at)[name]], [at]
        into[name] = values[0] if len(values) == 1 else _in_order(values, torch.cat(places).argsort())

    def _part(self, i: int, at: Tensor) -> Any:
        return self.parts[i].batch(at - self._starts[i])

    def take(self, index: Any) -> Chained:
        view = Chained.__new__(Chained)
        view.__dict__.update(self.__dict__, index=self.index[places(index, len(self))])
        view.__dict__.pop("_epoch", None)
        return view

    def to(self, device: torch.device) -> Chained:
        if device.type == "cpu":
            return self
        moved = self.take(torch.arange(len(self)))
        moved.parts = tuple(part.to(device) for part in self.parts)
        return moved


def _in_order(values: list[Any], order: Tensor) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(values)[order.to(values[0].device)]
    return np.concatenate(values)[order.numpy()]
