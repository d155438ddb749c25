"""What goes: rows named by class, id, condition, random share or group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Source
from oblivio.data.columns import Fields, Values, column, named
from oblivio.data.expression import parse
from oblivio.data.identity import places_of, read_ids
from oblivio.data.splitting import Places, drawing

Request: TypeAlias = str | Mapping[str, Any]

SHOWN = 12  # values that a message lists
LONGEST = 100  # characters of a request that a message repeats


@dataclass(frozen=True)
class Spec:
    """One way of naming rows: a kind (class, ids, where, random, group) and its value."""

    kind: str
    value: Any

    def __str__(self) -> str:
        text = f"{self.kind}={self.value}"
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


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
    rows = Named(source, fields or {})
    found = _by_chance(len(source), asked, seed) if asked.kind == "random" else SELECT[asked.kind](rows, asked)
    places = np.flatnonzero(found) if found.dtype == bool else np.sort(found)
    if not len(places):
        raise BadInput(f"{asked} names none of {len(source)} rows{rows.shown}")
    return places


def split(source: Source, request: Request, seed: int = 0, fields: Fields | None = None) -> tuple[Source, Source]:
    """The rows that a request names and all others, as views without copies; see ``select``."""
    goes = np.zeros(len(source), dtype=bool)
    goes[select(source, request, seed, fields)] = True
    return source.take(np.flatnonzero(goes)), source.take(np.flatnonzero(~goes))


def _shown(rows: Named) -> str:
    """The values of the columns that were looked at."""
    return "".join(f"; {name} {_range(values)}" for name, values in rows.known.items())


def _range(values: Values) -> str:
    known = np.unique(values)
    if len(known) > SHOWN and values.dtype.kind in "iuf":
        return f"runs from {known[0]} to {known[-1]}"
    more = ", ..." if len(known) > SHOWN else ""
    return f"is one of {', '.join(map(str, known[:SHOWN].tolist()))}{more}"


# --- kinds


def _by_class(rows: _Rows, asked: Spec) -> Values:
    """Rows of these classes; of a row with several labels, one is enough."""
    if "y" not in rows.source.columns:
        raise BadInput(f"{asked}: the rows have no labels (no column 'y')")
    field = rows.fields.get(rows.known_as("y"))
    words = () if field is None or field.words is None else tuple(map(str, field.words))
    numbers = [_class_number(value, words) for value in _listed(asked.value)]
    labels = rows.read["y"] = column(rows.source, "y")
    if labels.ndim == 1:
        return np.isin(labels, numbers)
    _check_label(asked, numbers, labels.shape[1])
    return np.asarray(labels[:, numbers].any(axis=1))


def _class_number(value: Any, words: tuple[str, ...]) -> int:
    """A class by its name, else by its number; a name that is a number comes first."""
    text = str(value)
    if text in words:
        return words.index(text)
    if not text.isdecimal() or (words and int(text) >= len(words)):
        raise BadInput(f"there is no class {text!r}{nearest(text, words)}")
    return int(text)


def _check_label(asked: Spec, numbers: list[int], labels: int) -> None:
    if max(numbers) >= labels:
        raise BadInput(f"{asked}: the rows have labels 0 to {labels - 1}")


def _by_group(rows: _Rows, asked: Spec) -> Values:
    if "group" not in rows.source.columns:
        raise BadInput(f"{asked}: the rows have no groups; give a column the role group, or the name 'group'")
    groups = rows[rows.known_as("group")]
    return np.isin(groups, [_like(value, groups, asked) for value in _listed(asked.value)])


def _like(value: Any, values: Values, asked: Spec) -> str | float:
    """``value`` as text where ``values`` are text, else as a number."""
    if values.dtype.kind not in "iufb":
        return str(value)
    try:
        return int(value) if values.dtype.kind == "i" else float(value)
    except ValueError:
        raise BadInput(f"{asked}: the groups are numbers; {value!r} is none") from None


def _by_id(rows: _Rows, asked: Spec) -> Values:
    wanted = read_ids(asked.value) if isinstance(asked.value, (str, Path)) else _listed(asked.value)
    return places_of(rows.source.ids, wanted)


def _by_condition(rows: _Rows, asked: Spec) -> Values:
    return parse(str(asked.value)).rows(rows.__getitem__, len(rows))


def _by_chance(rows: _Rows, asked: Spec) -> Values:
    """So many rows as the share comes to, rounded, drawn without repetition."""
    try:
        share = float(asked.value)
    except (TypeError, ValueError):
        share = 0.0
    if not 0 < share <= 1:
        raise BadInput(f"{asked}: a random share is a number above 0 and at most 1, such as 0.05")
    order: Values = drawing("random rows", rows.seed).permutation(len(rows))
    return order[: round(share * len(rows))]


def _listed(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return list(value.tolist())
    return list(value) if isinstance(value, (list, tuple, set)) else [value]


SELECT: dict[str, Callable[[_Rows, Spec], Values]] = {
    "class": _by_class, "ids": _by_id, "where": _by_condition, "random": _by_chance, "group": _by_group,
}  # fmt: skip
