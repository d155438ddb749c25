"""Columns of a source as arrays, by the names that the user knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Source
from oblivio.sources.tensors import Tensors

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


def column(source: Source, name: str) -> Values:
    """One column of all rows, shape (rows, ...), exact (no rounding to float32)."""
    return columns(source, [Field(name)])[0]


def columns(source: Source, fields: Sequence[Field]) -> list[Values]:
    """Columns of all rows, or single places of them, as they are stored: exact, codes not put in words.

    A source that makes its items when they are read is read once, in order, and only these columns are held.
    """
    if isinstance(source, Tensors):
        return [_stored(source, field) for field in fields]
    passing = [field for field in fields if field.column != "id"]
    parts: list[list[Values]] = [[] for _ in passing]
    for batch in source.batches(AT_ONCE) if passing else ():
        for part, field in zip(parts, passing, strict=True):
            part.append(_placed(np.asarray(batch[field.column]), field.place))
    whole = {field: np.concatenate(part) for field, part in zip(passing, parts, strict=True)}
    return [source.ids if field.column == "id" else whole[field] for field in fields]


def _stored(source: Tensors, field: Field) -> Values:
    if field.column == "id":
        return source.ids
    values = source.data[field.column].cpu().numpy()
    return (
        _placed(values, field.place)
        if source.index is None
        else _placed(values, field.place)[source.index.cpu().numpy()]
    )


def _placed(values: Values, place: int | None) -> Values:
    return values if place is None else values[:, place]


class Named:
    """The columns of a source under the user's names: fields, columns of the source, ``"id"``. Each is read once."""

    def __init__(self, source: Source, fields: Fields) -> None:
        self.source, self.fields = source, fields
        self.known: dict[str, Values] = {}

    def __getitem__(self, name: str) -> Values:
        """One value a row, numbers or text, shape (rows,); see ``read``."""
        self.read([name])
        return self.known[name]

    def read(self, names: Iterable[str]) -> None:
        """Read several columns in one pass.

        Raises:
            BadInput: an unknown name (with the nearest), or a column that holds more than one value a row.
        """
        new = {name: self.field(name) for name in dict.fromkeys(names) if name not in self.known}
        for (name, field), values in zip(new.items(), columns(self.source, list(new.values())), strict=True):
            if values.ndim != 1:
                raise BadInput(f"column {name!r} holds {values.shape[1:]} values a row; one is needed")
            self.known[name] = values if field.words is None else _worded(values, field.words)

    def field(self, name: str) -> Field:
        """Where a name is found."""
        if name not in self and name != "id":
            raise BadInput(f"no column {name!r}{nearest(name, {*self.fields, *self.source.columns, 'id'})}")
        return self.fields.get(name, Field(name))

    def __contains__(self, name: str) -> bool:
        return name in self.fields or name in self.source.columns

    def name_of(self, column: str) -> str:
        """The user's name for a column of the source."""
        return next((name for name, field in self.fields.items() if field.column == column), column)


def _worded(codes: Values, words: tuple[str, ...] | tuple[int, ...]) -> Values:
    known = (codes >= 0) & (codes < len(words))
    if known.all():
        return np.asarray(words)[codes.astype(np.int64)]
    table = np.asarray([*map(str, words), ""])  # a missing or unknown category is the empty text
    return table[np.where(known, codes, len(words)).astype(np.int64)]
