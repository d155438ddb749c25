"""Rows by their ids, given as a list or in a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from oblivio.core.errors import BadInput
from oblivio.core.files import read_json

Values: TypeAlias = "np.ndarray[Any, Any]"

SHOWN = 5  # ids that a message names


def read_ids(path: str | Path) -> list[Any]:
    """Ids from a file.

    Args:
        path: ``.json`` (a list), ``.npy`` (one dimension), ``.csv`` (its column ``id``, its only column, or another
            as ``file.csv:column``), or any other text file with one id a line; empty lines are skipped.

    Returns:
        numbers or texts, in the file's order.

    Raises:
        BadInput: the file does not exist or does not hold ids.
    """
    name, _, column = str(path).rpartition(":")
    if not name.endswith(".csv"):
        name, column = str(path), ""
    file = Path(name)
    if not file.is_file():
        raise BadInput(f"no file {file} with ids; a list of ids can be given in a job file")
    try:
        match file.suffix:
            case ".json":
                return _from_json(file)
            case ".npy":
                return _from_array(file)
            case ".csv":
                return _from_csv(file, column)
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise BadInput(f"{file} is no text file") from None


def _from_json(file: Path) -> list[Any]:
    ids = read_json(file)
    if not isinstance(ids, list) or not all(isinstance(i, (int, str)) for i in ids):
        raise BadInput(f"{file} does not hold a list of ids (numbers or texts)")
    return ids


def _from_array(file: Path) -> list[Any]:
    try:
        ids = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} cannot be read as an array: {error}") from None
    if ids.ndim != 1:
        raise BadInput(f"{file} holds an array of shape {ids.shape}; ids have one dimension")
    return list(ids.tolist())


def _from_csv(file: Path, column: str) -> list[Any]:
    with open(file, newline="") as lines:
        table = csv.DictReader(lines)
        names = list(table.fieldnames or ())
        wanted = column or (names[0] if len(names) == 1 else "id")
        if wanted not in names:
            raise BadInput(f"{file} has no column {wanted!r}; it has {', '.join(names)}; write {file}:COLUMN")
        return [row[wanted] for row in table if row[wanted]]


def places_of(ids: Values, wanted: Sequence[Any]) -> Values:
    """Which rows have one of the ``wanted`` ids: bool, shape of ``ids``.

    Raises:
        BadInput: an id that no row has (the message names the first ones and counts them).
    """
    asked = _whole(wanted) if ids.dtype.kind in "iu" else np.array([str(i) for i in wanted], dtype=str)
    unknown = asked[~np.isin(asked, ids)]
    if len(unknown):
        raise BadInput(
            f"{len(unknown)} of {len(asked)} ids belong to no row: {shown(unknown)}; the rows' ids are {shown(ids)}"
        )
    return np.isin(ids, asked)


def _whole(wanted: Sequence[Any]) -> Values:
    try:
        return np.array([int(str(i)) for i in wanted], dtype=np.int64)
    except ValueError as error:
        raise BadInput(f"the rows' ids are whole numbers: {error}") from None


def shown(ids: Values) -> str:
    """The first few ids, for a message."""
    return json.dumps(ids[:SHOWN].tolist())[1:-1] + (", ..." if len(ids) > SHOWN else "")
