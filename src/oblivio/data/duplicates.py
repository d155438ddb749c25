"""Rows that stand on both sides of a request under different ids: the same content twice."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from oblivio.core.source import Source
from oblivio.data.columns import AT_ONCE
from oblivio.data.splitting import Places


def copies(forget: Source, retain: Source) -> Places:
    """Places in ``retain`` of rows whose input ``x`` equals, byte for byte, that of a row to forget.

    Rows are read in passing: only a hash of each row to forget is held, and a row with the same hash is read again and
    compared. Sources without ``x``, or whose transform draws anew at each reading, are not searched: a warning says so.

    Returns:
        int64, in order; empty where there are none.
    """
    if reason := _unsearchable(forget) or _unsearchable(retain):
        warnings.warn(f"copies of forgotten rows were not looked for: {reason}", stacklevel=2)
        return np.empty(0, dtype=np.int64)
    if not len(forget) or not len(retain) or _form(forget) != _form(retain):
        return np.empty(0, dtype=np.int64)
    places: dict[int, list[int]] = defaultdict(list)
    for place, content in enumerate(_contents(forget)):
        places[hash(content)].append(place)
    same = (any(_content(forget, p) == content for p in places.get(hash(content), ())) for content in _contents(retain))
    return np.flatnonzero(np.fromiter(same, dtype=bool, count=len(retain)))


def _unsearchable(source: Source) -> str:
    if "x" not in source.columns:
        return f"source {source.name!r} has no column 'x'"
    return f"the transform of source {source.name!r} draws anew at each reading" if source.random else ""


def _form(source: Source) -> tuple[Any, ...]:
    first = np.asarray(source.batch(torch.arange(1))["x"])
    return first.dtype, first.shape


def _contents(source: Source) -> Iterator[bytes]:
    for batch in source.batches(AT_ONCE):
        for row in np.asarray(batch["x"]):
            yield row.tobytes()


def _content(source: Source, place: int) -> bytes:
    return np.asarray(source.batch(torch.tensor([place]))["x"]).tobytes()
