"""From what a user has to a Source."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from oblivio.core.errors import BadInput
from oblivio.core.source import Ids, Source
from oblivio.sources.items import Items
from oblivio.sources.tensors import Tensors


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
