"""Columns of a source as arrays, by the names that the user knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Source, Tensors

Values: TypeAlias = "np.ndarray[Any, Any]"

AT_ONCE = 256  # rows of a source that makes its items when they are read


@dataclass(frozen=True)
class Field:
    """Where a named column lies in a source.

    Attributes:
        column: the source's column.
        place: which entry of a row of it, where a row has several.
        words: what codes 0, 1, ... stand for; None where the values are what they say.
    """

    column: str
    place: int | None = None
    words: tuple[str, ...] | tuple[int, ...] | None = None


Fields: TypeAlias = Mapping[str, Field]


def column(source: Source, name: str, place: int | None = None) -> Values:
    """One column of all rows, shape (rows, ...), exact (no rounding to float32); ``"id"`` gives the ids.

    A source that makes its items when they are read is read once, in order, and only this column is held.
    """
    if name == "id":
        return source.ids
    if isinstance(source, Tensors) and name in source.data:
        values = source.data[name] if place is None else source.data[name][:, place]
        return (values if source.index is None else values[source.index]).cpu().numpy()
    whole = np.concatenate([np.asarray(batch[name]) for batch in source.batches(AT_ONCE)])
    return whole if place is None else whole[:, place]


def named(source: Source, name: str, fields: Fields | None = None) -> Values:
    """One value a row under a user's name for it: a field, a column of the source, or ``"id"``.

    Returns:
        numbers or text, shape (rows,).

    Raises:
        BadInput: an unknown name, or a column that holds more than one value a row.
    """
    fields = fields or {}
    if name not in fields and name != "id" and name not in source.columns:
        raise BadInput(f"no column {name!r}{nearest(name, {*fields, *source.columns, 'id'})}")
    field = fields.get(name, Field(name))
    values = column(source, field.column, field.place)
    if values.ndim != 1:
        raise BadInput(f"column {name!r} holds {values.shape[1:]} values a row; one is needed")
    return values if field.words is None else _worded(values, field.words)


def _worded(codes: Values, words: tuple[str, ...] | tuple[int, ...]) -> Values:
    known = (codes >= 0) & (codes < len(words))
    if known.all():
        return np.asarray(words)[codes.astype(np.int64)]
    table = np.asarray([*map(str, words), ""])  # a missing or unknown category is the empty text
    return table[np.where(known, codes, len(words)).astype(np.int64)]
