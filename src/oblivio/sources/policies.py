"""Storage policies: which of the rows that pass a memory keeps, and in which place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Batch

Kept: TypeAlias = dict[str, Any]  # the state of a memory: ``filled``, ``seen``, ``rows`` (columns)
Places: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
Policy: TypeAlias = "Callable[[Kept, int, Batch, np.random.Generator], Places]"
OUT = -1  # the place of a row that is not kept


def reservoir(kept: Kept, size: int, batch: Batch, draw: np.random.Generator) -> Places:
    """A uniform sample of all rows that passed (Vitter, 1985): row n, from 0, goes to place j of {0..n} if j < size."""
    free = min(len(batch), size - kept["filled"])
    seen = kept["seen"] + np.arange(free, len(batch))
    drawn = (draw.random(len(seen)) * (seen + 1)).astype(np.int64)
    return np.concatenate([kept["filled"] + np.arange(free), np.where(drawn < size, drawn, OUT)])


def balanced(kept: Kept, size: int, batch: Batch, draw: np.random.Generator) -> Places:
    """Greedily as many rows of every class (GDumb): when full, a new row replaces one of the largest class."""
    labels = _labels(kept)
    count, places = Counter(labels), []
    for label in batch["y"].tolist():
        if label not in count and len(count) >= size:
            raise BadInput(f"a memory of {size} rows cannot hold every class: here is one more; give a greater size")
        if count[label] >= size / len({*count, label}):
            places.append(OUT)
            continue
        if len(labels) < size:
            places.append(len(labels))
            labels.append(label)
        else:
            largest = max(count, key=lambda c: (count[c], -c))
            place = int(draw.choice([i for i, c in enumerate(labels) if c == largest]))
            places.append(place)
            count[largest] -= 1
            labels[place] = label
        count[label] += 1
    return np.array(places, dtype=np.int64)


def _labels(kept: Kept) -> list[int]:
    labels: list[int] = kept["rows"]["y"][: kept["filled"]].tolist() if kept["filled"] else []
    return labels


def recent(kept: Kept, size: int, batch: Batch, draw: np.random.Generator) -> Places:
    """The rows that passed last: a ring."""
    places: Places = (kept["seen"] + np.arange(len(batch))) % size
    return places


POLICIES: dict[str, Policy] = {"reservoir": reservoir, "balanced": balanced, "recent": recent}


def policy_of(name: str) -> Policy:
    """The policy of this name. Raises BadInput with the nearest one."""
    if name not in POLICIES:
        raise BadInput(f"a memory has no policy {name!r}{nearest(name, POLICIES)}")
    return POLICIES[name]


def last_of_each(places: Places) -> Tensor:
    """Of rows in order, those that end up in a place: the last that goes there."""
    _, back = np.unique(places[::-1], return_index=True)
    rows = len(places) - 1 - back
    return torch.from_numpy(np.sort(rows[places[rows] != OUT]))
