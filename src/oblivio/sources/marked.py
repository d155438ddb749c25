"""Rows of a source that know their task: labels are numbered anew and inputs changed when a batch is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids, Source
from oblivio.sources.rows import identities, places

Change: TypeAlias = Callable[[Tensor], Tensor]  # inputs of a batch to inputs of the same number of rows


_MOVED: WeakKeyDictionary[Source, dict[torch.device, Source]] = WeakKeyDictionary()


class Marked(Source):
    """An index view of ``base`` with the column ``task``; nothing of ``base`` is copied.

    Args:
        base: the rows of a data set, shared by all views of it.
        index: the rows of it in view; None: all.
        task: of all rows, or of each, shape (rows,).
        table: ``y`` is ``table[task, y]``, int64 (tasks, labels of ``base``); None leaves ``y`` alone.
        changes: of ``x``, one of which ``which`` chooses; none leave ``x`` alone.
        which: the change of all rows, or of each, shape (rows,).
        ids: of every row of ``base``, worked out once for all views; None asks ``base`` for them.
        naming: by what ``ids`` were made, where they are others than those of ``base``: equal ids mean the same record
            in all views with the same naming.
    """

    def __init__(
        self,
        base: Source,
        index: Any = None,
        *,
        task: int | Tensor = 0,
        table: Tensor | None = None,
        changes: Sequence[Change] = (),
        which: int | Tensor = 0,
        ids: Ids | None = None,
        naming: object = None,
    ) -> None:
        self.base, self.task, self.table = base, task, table
        self.changes, self.which = tuple(changes), which
        self.index = torch.arange(len(base)) if index is None else places(index, len(base))
        self._ids_of_all, self._naming = base.ids if ids is None else ids, naming
        self._device = torch.device("cpu")
        self.columns = tuple(dict.fromkeys((*base.columns, "task")))

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        task = self.task if isinstance(self.task, int) else "of each row"
        return f"Marked({self.name!r}, {len(self)} rows, task {task})"

    @property
    def ids(self) -> Ids:
        ids: Ids = self._ids_of_all[self.index.numpy()]
        return ids

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether reading a row of ``base`` twice may differ."""
        return self.base.random

    @property
    def root(self) -> Any:
        return self.base.root

    def comparable(self, other: Source) -> bool:
        naming = other._naming if isinstance(other, Marked) else None
        if self._naming is not None or naming is not None:
            return self._naming is naming
        return self.base.comparable(other.base if isinstance(other, Marked) else other)

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name == "task":
            into["task"] = self._tasks(rows)
        elif name == "id":
            into["id"] = identities(self._ids_of_all, self.index[rows])
        else:
            got: dict[str, Any] = {}
            self.base.read(name, self.index[rows], got)
            for key, value in got.items():  # a source of items makes all columns at once
                if key != "task":
                    into.setdefault(key, self._own(key, value, rows))

    def _own(self, name: str, value: Any, rows: Tensor) -> Any:
        """A column of ``base`` as it stands here."""
        if name == "y" and self.table is not None:
            return self.table[self._of(self.task, rows), value]
        if name == "x" and self.changes:
            return self._changed(value, self._of(self.which, rows))
        return value

    def _tasks(self, rows: Tensor) -> Tensor:
        task = self._of(self.task, rows)
        return task if isinstance(task, Tensor) else torch.full((len(rows),), task, device=self._device)

    def _of(self, given: int | Tensor, rows: Tensor) -> int | Tensor:
        return given[rows].to(self._device) if isinstance(given, Tensor) else given

    def _changed(self, x: Tensor, which: int | Tensor) -> Tensor:
        if not isinstance(which, Tensor):
            return self.changes[which](x)
        if not len(x):
            return x
        parts = [(which == i).nonzero().flatten() for i in which.unique().tolist()]
        changed = [self.changes[int(which[at[0]])](x[at]) for at in parts]
        return torch.cat(changed)[torch.cat(parts).argsort()] if len(parts) != 1 else changed[0]

    def take(self, index: Any) -> Marked:
        at = places(index, len(self))
        view = Marked.__new__(Marked)
        view.__dict__.update(self.__dict__, index=self.index[at])
        view.task, view.which = (v[at] if isinstance(v, Tensor) else v for v in (self.task, self.which))
        view.__dict__.pop("_epoch", None)
        return view

    def to(self, device: torch.device) -> Marked:
        if device.type == "cpu":
            return self
        moved = self.take(torch.arange(len(self)))
        moved.base, moved._device = _there(self.base, device), device
        moved.table = None if self.table is None else self.table.to(device)
        return moved

    def joins(self, other: Source) -> bool:
        """Whether the rows of both can be one view: the same rows below, labels and changes."""
        return isinstance(other, Marked) and all(
            getattr(self, name) is getattr(other, name) for name in ("base", "table", "_ids_of_all")
        ) and self.changes == other.changes  # fmt: skip


def _there(base: Source, device: torch.device) -> Source:
    """The rows below on a device: moved once for all views, of which a long stream has hundreds."""
    known = _MOVED.setdefault(base, {})
    if device not in known:
        known[device] = base.to(device)
    return known[device]


def joined(views: Sequence[Marked]) -> Marked:
    """The rows of several views of one source, one after another, as one view.

    Raises:
        BadInput: no views, or views that differ in more than rows, task and change.
    """
    if not views or not all(views[0].joins(view) for view in views):
        raise BadInput("only views of the same source with the same labels and changes are one view")
    whole = views[0].take(torch.arange(0))
    whole.index = torch.cat([view.index for view in views])
    whole.task = _each([view.task for view in views], views)
    whole.which = _each([view.which for view in views], views)
    return whole


def distinct(view: Marked) -> Marked:
    """The rows of a view without those that it holds again with the same change, in order."""
    which = view.which if isinstance(view.which, Tensor) else torch.full((len(view),), view.which)
    keys = view.index.numpy() * max(1, len(view.changes)) + which.numpy()
    first = np.sort(np.unique(keys, return_index=True)[1])
    return view if len(first) == len(view) else view.take(first)


def _each(given: Sequence[int | Tensor], views: Sequence[Marked]) -> int | Tensor:
    """One value where all views have the same, else one a row."""
    if all(isinstance(value, int) and value == given[0] for value in given):
        return given[0]
    rows = [
        value if isinstance(value, Tensor) else torch.full((len(v),), value)
        for value, v in zip(given, views, strict=True)
    ]
    return torch.cat(rows)


def named_ids(ids: Ids, name: str) -> Ids:
    """Ids as text behind a name: ``"mnist:17"``, for sets whose own ids would mean two records."""
    return np.char.add(f"{name}:", ids.astype(str))
