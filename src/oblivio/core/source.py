"""Source: a named supply of batches. Rows have a place in the source (``row``) and an identity (``id``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from oblivio.core.part import Part
from oblivio.core.seeds import generator

if TYPE_CHECKING:
    from oblivio.core.problem import Problem
    from oblivio.core.step import Step

Ids: TypeAlias = "np.ndarray[Any, Any]"


class Batch(Mapping[str, Any]):
    """Rows of one source; a column is read when it is first asked for.

    ``batch["row"]`` is the place in the source, ``batch["id"]`` the record; the other names are the source's columns.
    """

    __slots__ = ("_columns", "rows", "source")

    def __init__(self, source: Source, rows: Tensor, columns: dict[str, Any] | None = None) -> None:
        self.source, self.rows = source, rows
        self._columns = {"row": rows} if columns is None else columns

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.source.columns, "row", "id", *self._columns)))

    def __getitem__(self, name: str) -> Any:
        if name not in self._columns:
            self.source.read(name, self.rows, self._columns)
        return self._columns[name]

    def but(self, **columns: Any) -> Batch:
        """The same rows with some columns replaced."""
        return Batch(self.source, self.rows, {**self._columns, **columns})

    def piece(self, i: int, of: int) -> Batch:
        """The ``i``-th of ``of`` nearly equal contiguous pieces; columns not read yet stay unread."""
        a, b = len(self) * i // of, len(self) * (i + 1) // of
        return Batch(self.source, self.rows[a:b], {k: v[a:b] for k, v in self._columns.items()})


class Source(Part):
    """Base of all sources. Finite ones read any rows by place; their order is computed from the clock, never stored.

    Attributes: ``columns`` names what a row holds; ``random`` says that reading the same row twice may differ (a
    transform), so its outputs are never cached; ``views`` that a drawn batch may show rows otherwise than they are
    read; ``size`` overrides the stage's batch size.
    """

    name: str = ""
    columns: tuple[str, ...] = ("x", "y")
    random: bool = False
    views: bool = False
    size: int | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def ids(self) -> Ids:
        """The identity of every row, shape (len,)."""
        return np.arange(len(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def comparable(self, other: Source) -> bool:
        """Whether equal ids in the two mean the same record: ids were given, or both are views of the same data."""
        given = all(getattr(s, "_ids", None) is not None for s in (self, other))
        return given or (self.root is not None and self.root is other.root)

    @property
    def root(self) -> Any:
        """The data that index views share."""
        return None

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        """Put column ``name`` of ``rows`` into ``into`` (and any other that came along)."""
        raise NotImplementedError

    def take(self, index: Any) -> Source:
        """A view of some rows, without a copy. ``index``: places or a boolean mask."""
        raise NotImplementedError

    def within(self, problem: Problem) -> Source:
        """Itself; one that is made of other sources finds them in ``problem`` first."""
        return self

    def to(self, device: torch.device) -> Source:
        """The same rows with what can lie on ``device`` there."""
        return self

    def batch(self, rows: Tensor) -> Batch:
        """The rows at these places."""
        return Batch(self, rows)

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows in order."""
        for start in range(0, len(self), size):
            yield self.batch(torch.arange(start, min(start + size, len(self))))

    def draw(self, n: int, step: Step) -> Batch:
        """Batch ``step.t`` of shuffled epochs; the last of an epoch is short, no row is lost or doubled."""
        per_epoch = -(-len(self) // n)
        epoch, i = divmod(step.t, per_epoch)
        return self.batch(self._order(step, epoch)[i * n : (i + 1) * n])

    def _order(self, step: Step, epoch: int) -> Tensor:
        key = (step.problem.seed, step.problem.turn, step.place, self.name, epoch)
        if self.__dict__.get("_epoch", (None,))[0] != key:  # a cache, not a state: the key determines it
            self.__dict__["_epoch"] = (key, torch.randperm(len(self), generator=generator("order", *key)))
        return self.__dict__["_epoch"][1]  # type: ignore[no-any-return]
