"""What goes: rows named by class, id, condition, random share or group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput, nearest
from oblivio.core.source import Source
from oblivio.data.columns import Fields, Named, Values, column
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
    choice = Choice(Named(source, fields or {}), asked, seed)
    found = SELECT[asked.kind](choice)
    places = np.flatnonzero(found) if found.dtype == bool else np.sort(found)
    if not len(places):
        raise BadInput(f"{asked} names none of {len(source)} rows{_shown(choice.rows)}")
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


@dataclass(frozen=True)
class Choice:
    """The rows to choose from, what is asked, and the seed of a draw."""

    rows: Named
    asked: Spec
    seed: int

    @property
    def values(self) -> list[Any]:
        """What is asked for, one or several."""
        value = self.asked.value
        value = value.tolist() if isinstance(value, np.ndarray) else value
        return list(value) if isinstance(value, (list, tuple, set)) else [value]


def _by_class(choice: Choice) -> Values:
    """Rows of these classes; of a row with several labels, one is enough."""
    labels = _labels(choice)
    names = _class_names(choice.rows.fields)
    numbers = [_class_number(value, names) for value in choice.values]
    if labels.ndim == 1:
        return np.isin(labels, numbers)
    if max(numbers) >= labels.shape[1]:
        raise BadInput(f"{choice.asked}: the rows have labels 0 to {labels.shape[1] - 1}")
    return np.asarray(labels[:, numbers].any(axis=1))


def _labels(choice: Choice) -> Values:
    rows = choice.rows
    if "y" not in rows.source.columns:
        raise BadInput(f"{choice.asked}: the rows have no labels (no column 'y')")
    labels = column(rows.source, "y")
    if (labels % 1 != 0).any():
        raise BadInput(f"{choice.asked}: the rows have no classes, their targets are fractions; use where=")
    if labels.ndim == 1:
        rows.known["y"] = labels  # for the message, should none be found
    return labels


def _class_names(fields: Fields) -> tuple[str, ...]:
    """The names of classes 0, 1, ...: the words of the labels, or, of several labels a row, their columns."""
    own = {name: field for name, field in fields.items() if field.column == "y"}
    words = next((field.words for field in own.values() if field.words is not None), None)
    return tuple(map(str, words)) if words else tuple(name for name, field in own.items() if field.place is not None)


def _class_number(value: Any, names: tuple[str, ...]) -> int:
    """A class by its name, else by its number; a name that is a number comes first."""
    text = str(value)
    if text in names:
        return names.index(text)
    if not text.isdecimal() or (names and int(text) >= len(names)):
        raise BadInput(f"there is no class {text!r}{nearest(text, names)}")
    return int(text)


def _by_group(choice: Choice) -> Values:
    rows = choice.rows
    if "group" not in rows.source.columns:
        raise BadInput(f"{choice.asked}: the rows have no groups; give a column the role group, or call it 'group'")
    groups = rows[rows.name_of("group")]
    return np.isin(groups, [_like(groups, value, choice.asked) for value in choice.values])


def _like(values: Values, value: Any, asked: Spec) -> str | float:
    """``value`` as text where ``values`` are text, else as a number."""
    if values.dtype.kind not in "iufb":
        return str(value)
    try:
        return int(value) if values.dtype.kind == "i" else float(value)
    except ValueError:
        raise BadInput(f"{asked}: the groups are numbers, and {value!r} is none") from None


def _by_id(choice: Choice) -> Values:
    given = choice.asked.value
    wanted = read_ids(given) if isinstance(given, (str, Path)) else choice.values
    return places_of(choice.rows.source.ids, wanted)


def _by_condition(choice: Choice) -> Values:
    condition = parse(str(choice.asked.value))
    rows = choice.rows
    rows.read(name for name in condition.names if name in rows)  # one pass; the rest fails with its position
    return condition.rows(rows.__getitem__, len(rows.source))


def _by_chance(choice: Choice) -> Values:
    """So many rows as the share comes to, rounded, drawn without repetition."""
    try:
        share = float(choice.asked.value)
    except (TypeError, ValueError):
        share = 0.0
    if not 0 < share <= 1:
        raise BadInput(f"{choice.asked}: a random share is a number above 0 and at most 1, such as 0.05")
    length = len(choice.rows.source)
    return drawing("random rows", choice.seed).permutation(length)[: round(share * length)]


SELECT: dict[str, Callable[[Choice], Values]] = {
    "class": _by_class, "ids": _by_id, "where": _by_condition, "random": _by_chance, "group": _by_group,
}  # fmt: skip
