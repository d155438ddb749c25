"""Source: a named supply of batches. Rows have a place in the source (``row``) and an identity (``id``)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from oblivio.core.errors import BadInput
from oblivio.core.part import Part
from oblivio.core.seeds import generator

if TYPE_CHECKING:
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
    transform), so its outputs are never cached; ``size`` overrides the stage's batch size.
    """

    name: str = ""
    columns: tuple[str, ...] = ("x", "y")
    random: bool = False
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
        self._ids = _ids(ids, self._length)
        self.index = None if index is None else _index(index, self._length)

    def __len__(self) -> int:
        return self._length if self.index is None else len(self.index)

    @property
    def ids(self) -> Ids:
        ids = np.arange(self._length) if self._ids is None else self._ids
        return ids if self.index is None else ids[self.index.cpu().numpy()]

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        if name == "id":
            into["id"] = _identities(self.ids, rows)
            return
        try:
            column = self.data[name]
        except KeyError:
            raise BadInput(f"source {self.name!r} has no column {name!r}; it has {', '.join(self.columns)}") from None
        places = rows if self.index is None else self.index[rows]
        value = column.index_select(0, places.to(column.device))  # several times faster than column[places]
        into[name] = value.float() if value.dtype is torch.float64 else value

    @property
    def root(self) -> Any:
        return self._root

    def take(self, index: Any) -> Tensors:
        places = _index(index, len(self))
        view = Tensors({}, None, None)
        view.__dict__.update(self.__dict__, index=places if self.index is None else self.index[places])
        view.__dict__.pop("_epoch", None)
        return view

    def to(self, device: torch.device) -> Tensors:
        if device.type == "cpu":
            return self
        moved = self.take(torch.arange(len(self)))
        moved.data = {name: value.to(device) for name, value in self.data.items()}
        return moved


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
        self._ids = _ids(ids, len(dataset))
        self.index = None if index is None else _index(index, len(dataset))
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
            into["id"] = _identities(self.ids, rows)
            return
        if name not in self.columns:
            raise BadInput(f"source {self.name!r} has no column {name!r}; it has {', '.join(self.columns)}")
        for key, value in self._collated(rows).items():
            into.setdefault(key, value if self._device is None else value.to(self._device))

    def _collated(self, rows: Tensor) -> dict[str, Any]:
        places = rows if self.index is None else self.index[rows]
        items = self.collate([self.dataset[i] for i in places.tolist()])
        if isinstance(items, Mapping):
            return {name: value for name, value in items.items() if name != "id"}  # ids are known without reading
        return {"x": items} if isinstance(items, Tensor) else dict(zip(("x", "y"), items, strict=False))

    @property
    def root(self) -> Any:
        return self.dataset

    def take(self, index: Any) -> Items:
        places = _index(index, len(self))
        view = Items.__new__(Items)
        view.__dict__.update(self.__dict__, index=places if self.index is None else self.index[places])
        view.__dict__.pop("_epoch", None)
        return view

    def to(self, device: torch.device) -> Items:
        moved = self.take(torch.arange(len(self)))
        moved._device = None if device.type == "cpu" else device
        return moved


def as_source(value: Any, name: str = "") -> Source:
    """A Source from a Source, ``(x, y)`` or ``(x, y, ids)``, a dict of columns, a map-style Dataset or a DataLoader.

    Of a DataLoader its Dataset and collate function are used; its sampler, shuffling and drop_last are ignored, with a
    note, since the engine orders rows itself. A Subset, also of a Subset, is a view of the Dataset that it is taken
    from, so rows that two of them share are known for the same.

    The rows of a Dataset are named by its attribute ``ids``, where that is as long as the Dataset, else by position.
    An ``"id"`` in its items is not used, for all would have to be read first. Raises BadInput for anything else.
    """
    if isinstance(value, Source):
        source = value
    elif isinstance(value, DataLoader):
        warnings.warn(
            f"{name}: of the DataLoader only dataset and collate_fn are used; order and drop_last are not", stacklevel=2
        )
        source = _from_dataset(value.dataset, value.collate_fn)
    elif isinstance(value, Mapping):
        columns = dict(value)
        source = Tensors({k: v for k, v in columns.items() if k != "id"}, ids=columns.get("id"))
    elif isinstance(value, (tuple, list)) and 1 <= len(value) <= 3:
        source = Tensors(dict(zip(("x", "y"), value, strict=False)), ids=value[2] if len(value) == 3 else None)
    elif isinstance(value, (Tensor, np.ndarray)):
        source = Tensors({"x": value})
    elif isinstance(value, Dataset) or (hasattr(value, "__getitem__") and hasattr(value, "__len__")):
        source = _from_dataset(value, None)
    else:
        raise BadInput(
            f"{name or 'a source'} is a {type(value).__name__}; give (x, y), a dict of columns, a map-style "
            "Dataset or a DataLoader"
        )
    return source


def _from_dataset(dataset: Any, collate: Callable[[list[Any]], Any] | None) -> Source:
    dataset, index = _unwrapped(dataset)
    ids = _ids_of(dataset)
    if not isinstance(dataset, TensorDataset) or collate not in (None, default_collate) or len(dataset.tensors) > 2:
        return Items(dataset, collate, ids, index)
    tensors = Tensors(dict(zip(("x", "y"), dataset.tensors, strict=False)), ids, index)
    tensors._root = dataset
    return tensors


def _unwrapped(dataset: Any) -> tuple[Any, Ids | None]:
    """The Dataset under any Subsets, and the places in it; a class made from Subset may give items of its own."""
    index: Ids | None = None
    while type(dataset) is Subset:
        places = np.asarray(dataset.indices, dtype=np.int64)
        dataset, index = dataset.dataset, places if index is None else places[index]
    return dataset, index


def _ids_of(dataset: Any) -> Any:
    ids = getattr(dataset, "ids", None)
    return ids if isinstance(ids, (Sequence, np.ndarray, Tensor)) and len(ids) == len(dataset) else None


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


def _ids(ids: Any, length: int) -> Ids | None:
    if ids is None:
        return None
    array = np.asarray(ids)
    if len(array) != length:
        raise BadInput(f"{len(array)} ids for {length} rows")
    if len(np.unique(array)) != length:
        values, counts = np.unique(array, return_counts=True)
        raise BadInput(f"ids must differ; {values[counts > 1][:5].tolist()} occur more than once")
    return array


def _index(index: Any, length: int) -> Tensor:
    places = torch.as_tensor(np.asarray(index) if isinstance(index, Sequence) else index)
    if places.dtype is torch.bool:
        places = places.nonzero().flatten()
    if len(places) and not (0 <= int(places.min()) and int(places.max()) < length):
        raise BadInput(f"row {int(places.max())} asked of a source of {length} rows")
    return places.long()


def _identities(ids: Ids, rows: Tensor) -> Any:
    chosen = ids[rows.cpu().numpy()]
    return torch.from_numpy(chosen) if chosen.dtype.kind in "iu" else chosen
