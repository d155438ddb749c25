"""Rows as the items of somebody's dataset: kept as tensors, and given back as items for its collator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from oblivio.core.errors import BadInput
from oblivio.core.source import Batch, Ids, Source
from oblivio.sources.memory import Buffer, Columns
from oblivio.sources.rows import identities

Item: TypeAlias = "Mapping[str, Any]"
LENGTH = "#length"  # ends the name of the column with the lengths of sequences


class Raw(Source):
    """Items of a map-style dataset, not collated: sequences are padded with zeros, their lengths a column of their own.

    Raises BadInput for items that are no mappings, or hold something other than numbers.
    """

    def __init__(self, dataset: Any, ids: Ids) -> None:
        self.dataset, self._ids = dataset, ids
        self.columns = tuple(columns_of([dataset[0]])) if len(dataset) else ()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Ids:
        return self._ids

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name == "id":
            into["id"] = identities(self.ids, rows)
            return
        for key, value in columns_of([self.dataset[i] for i in rows.tolist()]).items():
            into.setdefault(key, value)


def columns_of(items: Sequence[Item]) -> Columns:
    """Items as columns with one entry a row."""
    if not isinstance(items[0], Mapping):
        raise BadInput(f"the items of the dataset are {type(items[0]).__name__}; replay needs dicts, as a Trainer does")
    found: Columns = {}
    for name in items[0]:
        values = [_tensor(name, item[name]) for item in items]
        if values[0].dim() == 1:
            found[name] = pad_sequence(values, batch_first=True)
            found[name + LENGTH] = torch.tensor([len(value) for value in values])
        else:
            found[name] = torch.stack(values)
    return found


def _tensor(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise BadInput(
            f"column {name!r} holds {type(value).__name__}, which is no number or list of numbers; leave it out of the "
            "dataset"
        ) from None


def items_of(batch: Batch, like: Item) -> list[dict[str, Any]]:
    """The rows of a batch as items again: tensors where those of ``like`` are, else lists and numbers."""
    names = [name for name in batch.source.columns if not name.endswith(LENGTH)]
    return [{name: _value(batch, name, i, like.get(name)) for name in names} for i in range(len(batch))]


def _value(batch: Batch, name: str, i: int, like: Any) -> Any:
    value: Tensor = batch[name][i]
    if name + LENGTH in batch.source.columns:
        value = value[: int(batch[name + LENGTH][i])]
    return value if isinstance(like, Tensor) or value.dim() > 1 else np.asarray(value).tolist()


class Kept(Buffer):
    """A reservoir of ``Raw`` rows: every row that came is held with the same chance. It widens for longer sequences."""

    def put(self, at: Tensor, ids: Any, columns: Columns) -> None:
        """Rows into these places, as wide as the longest. Raises BadInput for other columns than before."""
        held: Columns = self.state.get("rows", columns)
        if set(held) != set(columns):
            raise BadInput(
                f"the rows have {', '.join(sorted(columns))}, those kept before {', '.join(sorted(held))}; "
                "give every training the same columns"
            )
        fitting = dict(columns)
        for name in (n for n in columns if n + LENGTH in columns):
            width = max(held[name].shape[1], columns[name].shape[1])
            held[name], fitting[name] = (F.pad(v, (0, width - v.shape[1])) for v in (held[name], columns[name]))
        super().put(at, ids, fitting)
