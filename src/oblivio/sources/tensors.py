"""Rows of tensors or memory-mapped arrays."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids, Source
from oblivio.sources.rows import checked, identities, places


class Tensors(Source):
    """Rows of tensors or memory-mapped arrays, all with the same first dimension; index views share the data.

    ``columns``: name to tensor. ``ids``: of every row of the columns (default: the position). ``index``: the rows in
    view (default: all).
    """

    def __init__(self, columns: Mapping[str, Any], ids: Any = None, index: Any = None) -> None:
        self.data = {name: _tensor(name, value) for name, value in columns.items()}
        lengths = {name: len(value) for name, value in self.data.items()}
        if len(set(lengths.values())) > 1:
            raise BadInput(f"columns differ in length: {lengths}")
        self.columns = tuple(self.data)
        self._root: Any = self.data
        self._length = next(iter(lengths.values()), 0)
        self._ids = checked(ids, self._length)
        self.index = None if index is None else places(index, self._length)

    def __len__(self) -> int:
        return self._length if self.index is None else len(self.index)

    @property
    def ids(self) -> Ids:
        ids = np.arange(self._length) if self._ids is None else self._ids
        return ids if self.index is None else ids[self.index.cpu().numpy()]

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name == "id":
            into["id"] = identities(self.ids, rows)
            return
        try:
            column = self.data[name]
        except KeyError:
            raise BadInput(f"source {self.name!r} has no column {name!r}; it has {', '.join(self.columns)}") from None
        at = rows if self.index is None else self.index[rows]
        value = column.index_select(0, at.to(column.device))  # several times faster than column[at]
        into[name] = value.float() if value.dtype is torch.float64 else value

    @property
    def root(self) -> Any:
        return self._root

    def take(self, index: Any) -> Tensors:
        at = places(index, len(self))
        view = Tensors({}, None, None)
        view.__dict__.update(self.__dict__, index=at if self.index is None else self.index[at])
        view.__dict__.pop("_epoch", None)
        return view

    def to(self, device: torch.device) -> Tensors:
        if device.type == "cpu":
            return self
        moved = self.take(torch.arange(len(self)))
        moved.data = {name: value.to(device) for name, value in self.data.items()}
        return moved


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value) if not isinstance(value, np.memmap) else value
    if array.dtype.kind not in "biuf":
        raise BadInput(f"column {name!r} holds {array.dtype}; numbers are needed")
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        array = array.astype(np.int64)
    with warnings.catch_warnings():  # a read-only map is only ever read
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)
