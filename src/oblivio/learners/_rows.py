"""Rows that a learner owns, by id; and the checks of what it is asked."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.sources import as_source

Id: TypeAlias = "int | str"
SHOWN = 5  # ids in a message


@dataclass(frozen=True)
class Receipt:
    """What a request did.

    Attributes:
        learned, removed: the ids.
        retrained: what was trained again, such as ``shard 2, order 0, stages 3 to 5``; nothing for a closed form.
        dropped: what is served no longer and was not trained again, in the same words.
        rows: rows passed in training, each as often as it was passed.
        seconds: from the call to the answer.
        guarantee: ``exact`` or ``certified``.
    """

    learned: Sequence[Id] = ()
    removed: Sequence[Id] = ()
    retrained: Sequence[str] = ()
    dropped: Sequence[str] = ()
    rows: int = 0
    seconds: float = 0.0
    guarantee: str = "exact"


@dataclass(frozen=True)
class Rows:
    """Columns of rows as tensors with the same first dimension, and the rows' ids."""

    ids: list[Id]
    columns: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: Sequence[int]) -> Rows:
        """These rows, in this order, in memory of their own."""
        at = torch.as_tensor(places, dtype=torch.long)
        return Rows([self.ids[i] for i in places], {n: v.index_select(0, at) for n, v in self.columns.items()})

    def without(self, gone: set[Id]) -> Rows:
        """All rows but those with these ids."""
        return self.take([i for i, name in enumerate(self.ids) if name not in gone])

    def joined(self, other: Rows) -> Rows:
        """These and then those. Raises BadInput where columns or their shapes differ."""
        other.alike(self.kinds)
        columns = {n: torch.cat([v, other.columns[n]]) for n, v in self.columns.items()}
        return Rows([*self.ids, *other.ids], columns)

    @property
    def kinds(self) -> str:
        """Name, type and shape of each column, in words."""
        return ", ".join(f"{n} {str(v.dtype)[6:]} {tuple(v.shape[1:])}" for n, v in sorted(self.columns.items()))

    def alike(self, kinds: str) -> None:
        """Raises BadInput where the columns are others than those of ``kinds``."""
        if self.kinds != kinds:
            raise BadInput(f"rows: the columns are {self.kinds}; those learned before are {kinds}; give the same")

    def digest(self) -> str:
        """What tells these rows, in this order, from any others."""
        columns = [content(v) for _, v in sorted(self.columns.items())]
        return sha256(json.dumps(self.ids).encode(), self.kinds.encode(), *columns)

    def digests(self) -> dict[Id, str]:
        """What tells the content of each row from any other."""
        columns = [v for _, v in sorted(self.columns.items())]
        return {name: sha256(*(content(v[i]) for v in columns)) for i, name in enumerate(self.ids)}


def sha256(*parts: Any) -> str:
    """Of buffers of bytes, each with its length."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.hexdigest()


def content(value: Tensor) -> Any:
    """The bytes of a tensor, as a buffer."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def read(rows: Any) -> Rows:
    """All columns of what ``as_source`` takes.

    Raises:
        BadInput: no rows; rows that differ when they are read again; a column that is no tensor.
    """
    source = as_source(rows, "rows")
    if not len(source):
        raise BadInput("rows: there are none; give at least one")
    if source.random:
        raise BadInput(
            "rows: reading them twice gives different values, so what was learned could not be taken away again; "
            "leave the random transform out, or put it into the model"
        )
    batch = source.batch(torch.arange(len(source)))
    columns = {name: batch[name] for name in source.columns}
    for name, value in columns.items():
        if not isinstance(value, Tensor):
            raise BadInput(f"rows: column {name!r} holds {type(value).__name__}; give tensors")
    return Rows(source.ids.tolist(), columns)


def unknown(rows: Rows, known: Container[Id]) -> Rows:
    """The rows. Raises BadInput where ids of them are known already."""
    again = [name for name in rows.ids if name in known]
    if again:
        raise BadInput(
            f"rows: {len(again)} ids are learned already, first {again[:SHOWN]}; forget these first, or give each row "
            "an id of its own, as the third of (x, y, ids)"
        )
    return rows


def asked(ids: Any, known: Container[Id]) -> list[Id]:
    """The ids of a request to forget, as plain values.

    Raises:
        BadInput: none; one that comes twice; one that was never learned (the message says which).
    """
    if isinstance(ids, (str, bytes)) or not hasattr(ids, "__iter__"):
        raise BadInput(f"ids: {ids!r} is no list of ids; give a list, an array or a tensor")
    found: list[Id] = [i.item() if hasattr(i, "item") else i for i in ids]
    if not found:
        raise BadInput("ids: there are none; choose at least one row to forget")
    if len(set(found)) != len(found):
        twice = [i for i, count in Counter(found).items() if count > 1]
        raise BadInput(f"ids: {len(twice)} come more than once, first {twice[:SHOWN]}; name each row once")
    missing = [name for name in found if name not in known]
    if missing:
        raise BadInput(f"ids: {len(missing)} were never learned, first {missing[:SHOWN]}; nothing was changed")
    return found
