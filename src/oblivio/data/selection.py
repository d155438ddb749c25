"""What goes: rows named by class, id, condition, random share or group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Source
from oblivio.data.columns import Fields, Values, column, named
from oblivio.data.expression import parse
from oblivio.data.identity import places_of, read_ids
from oblivio.data.splitting import Places

Request: TypeAlias = str | Mapping[str, Any]

SHOWN = 12  # values that a message lists


@dataclass(frozen=True)
class Spec:
    """One way of naming rows: a kind (class, ids, where, random, group) and its value."""

    kind: str
    value: Any

    def __str__(self) -> str:
        return f"{self.kind}={self.value}"


def spec(request: Request) -> Spec:
    """Read a request: ``"class=3"`` from a command line, ``{"class": 3}`` from a job file.

    Kinds: ``class`` (number, name or a list of them), ``ids`` (a list, or a file: see ``read_ids``), ``where`` (a
    condition: see ``oblivio.data.expression``), ``random`` (a share of the rows) and ``group`` (a value of the column
    with that role, or a list).

    Raises:
        BadInput: another form, no kind or more than one, or an unknown kind (with the nearest).
    """
    if isinstance(request, str):
        kind, equals, value = request.partition("=")
        if not equals:
            raise BadInput(f"{request!r} names no rows; write KIND=VALUE with KIND one of {', '.join(SELECT)}")
        found = Spec(kind.strip(), value.strip())
    elif isinstance(request, Mapping) and len(request) == 1:
        found = Spec(*next(iter(request.items())))
    else:
        raise BadInput(f"{request!r} names no rows; give one of {', '.join(SELECT)} with its value")
    if found.kind not in SELECT:
        raise BadInput(f"rows cannot be named by {found.kind!r}{nearest(str(found.kind), SELECT)}")
    return found


def select(source: Source, request: Request, seed: int = 0, fields: Fields | None = None) -> Places:
    """Places of the rows that a request names, in order.

    Args:
        source: the rows to choose from. A column of a source that makes its items when they are read is read once,
            and only that column is held.
        request: see ``spec``.
        seed: of a random share.
        fields: the user's names for columns and classes, of the ``Dataset``.

    Returns:
        int64, at least one.

    Raises:
        BadInput: no row is named (the message has what there is), or a request that cannot be read.
    """
    asked = spec(request)
    rows = _Rows(source, fields or {}, seed)
    found = SELECT[asked.kind](rows, asked)
    places = np.flatnonzero(found) if found.dtype == bool else np.sort(found)
    if not len(places):
        raise BadInput(f"{asked} names none of {len(source)} rows{rows.shown}")
    return places


def split(source: Source, request: Request, seed: int = 0, fields: Fields | None = None) -> tuple[Source, Source]:
    """The rows that a request names and all others, as views without copies; see ``select``."""
    goes = np.zeros(len(source), dtype=bool)
    goes[select(source, request, seed, fields)] = True
    return source.take(np.flatnonzero(goes)), source.take(np.flatnonzero(~goes))


class _Rows:
    """Columns by name, remembering what was looked at, for the message when nothing is found."""

    def __init__(self, source: Source, fields: Fields, seed: int) -> None:
        self.source, self.fields, self.seed = source, fields, seed
        self.read: dict[str, Values] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, name: str) -> Values:
        if name not in self.read:
            self.read[name] = named(self.source, name, self.fields)
        return self.read[name]

    @property
    def shown(self) -> str:
        """The values of the columns that were looked at."""
        return "".join(f"; {name} {_range(values)}" for name, values in self.read.items())


def _range(values: Values) -> str:
    known = np.unique(values)
    if len(known) > SHOWN and values.dtype.kind in "iuf":
        return f"runs from {known[0]} to {known[-1]}"
    more = ", ..." if len(known) > SHOWN else ""
    return f"is one of {', '.join(map(str, known[:SHOWN].tolist()))}{more}"


# --- kinds


def _by_class(rows: _Rows, asked: Spec) -> Values:
    field = rows.fields.get("y")
    words = () if field is None or field.words is None else tuple(map(str, field.words))
    ...
