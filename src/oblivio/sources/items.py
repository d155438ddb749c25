"""Rows of a map-style Dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids, Source
from oblivio.sources.rows import checked, identities, places


class Items(Source):
    """Rows of a map-style Dataset, collated when a batch is read.

    ``random``: the dataset's transform draws anew; also when the first rows differ on a second reading.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], Any] | None = None,
        ids: Any = None,
        index: Any = None,
        random: bool = False,
    ) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise BadInput("an iterable dataset has no rows that can be named; give a map-style Dataset")
        self.dataset, self.collate = dataset, collate or default_collate
        self._ids = checked(ids, len(dataset))
        self.index = None if index is None else places(index, len(dataset))
        self._device: torch.device | None = None
        rows = torch.arange(min(len(self), 16))
        once, again = (self._collated(rows) if len(rows) else {} for _ in range(2))
        self.columns = tuple(once)
        self.random = random or any(isinstance(v, Tensor) and not torch.equal(v, again[k]) for k, v in once.items())

    def __len__(self) -> int:
        return len(self.dataset) if self.index is None else len(self.index)

    @property
    def ids(self) -> Ids:
        ids = np.arange(len(self.dataset)) if self._ids is None else self._ids
        return ids if self.index is None else ids[self.index.numpy()]

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name == "id":
            into["id"] = identities(self.ids, rows)
            return
        if name not in self.columns:
            raise BadInput(f"source {self.name!r} has no column {name!r}; it has {', '.join(self.columns)}")
        for key, value in self._collated(rows).items():
            into.setdefault(key, value if self._device is None else value.to(self._device))

    def _collated(self, rows: Tensor) -> dict[str, Any]:
        at = rows if self.index is None else self.index[rows]
        items = self.collate([self.dataset[i] for i in at.tolist()])
        if isinstance(items, Mapping):
            return {name: value for name, value in items.items() if name != "id"}  # ids are known without reading
        return {"x": items} if isinstance(items, Tensor) else dict(zip(("x", "y"), items, strict=False))

    @property
    def root(self) -> Any:
        return self.dataset

    def take(self, index: Any) -> Items:
        at = places(index, len(self))
        view = Items.__new__(Items)
        view.__dict__.update(self.__dict__, index=at if self.index is None else self.index[at])
        view.__dict__.pop("_epoch", None)
        return view

    def to(self, device: torch.device) -> Items:
        moved = self.take(torch.arange(len(self)))
        moved._device = None if device.type == "cpu" else device
        return moved
