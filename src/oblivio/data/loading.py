"""Data sets by name or by place."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from oblivio.core.errors import BadInput, nearest
from oblivio.data import embedded
from oblivio.data.dataset import Dataset
from oblivio.data.folders import folder
from oblivio.data.hubs import hub
from oblivio.data.own import own
from oblivio.data.published import SETS, published
from oblivio.data.tables import table

NAMED: dict[str, Callable[[], Dataset]] = {
    "breast_cancer": embedded.breast_cancer,
    "diabetes": embedded.diabetes,
    "digits": embedded.digits,
    **{name: partial(published, name) for name in SETS},
}
TABLES = (".csv", ".csv.gz", ".parquet")
HUB = "hub:"
OWN = re.compile(r"[\w.]+:\w+")


def names() -> list[str]:
    """The data sets that ``load`` knows by name, sorted."""
    return sorted(NAMED)


def load(name: str | Path, **options: Any) -> Dataset:
    """Load a data set.

    Args:
        name: one of ``names()``; a ``.csv`` or ``.parquet`` file; a folder of images with one subfolder a class;
            ``hub:<repository or folder>``; or ``package.module:function``, which returns a ``Dataset``, or training
            and test rows, each as anything that may be a source of a ``Problem``.
        options: of ``table``, ``folder`` or ``hub``; of your function, ``task`` aside, which says what the rows are for
            where their targets do not; a set known by name takes none.

    Example:
        >>> load("digits").inputs
        (1, 8, 8)

    Raises:
        BadInput: an unknown name (with the nearest), an option that is not taken or missing, or whatever the reader
            refuses.
    """
    if is_own(str(name)):
        return own(str(name), **options)
    reader = _reader(str(name))
    _check_options(str(name), reader, options)
    return reader(**options)


def is_own(name: str) -> bool:
    """Whether a data set's name means a function of the user's."""
    return OWN.fullmatch(name) is not None and not name.startswith(HUB)


def _reader(name: str) -> Callable[..., Dataset]:
    if name in NAMED:
        return NAMED[name]
    if name.startswith(HUB):
        return partial(hub, name.removeprefix(HUB))
    if name.endswith(TABLES):
        return partial(table, name)
    if Path(name).is_dir():
        return partial(folder, name)
    raise BadInput(
        f"no data set is called {name!r}{nearest(name, names())}; your own is a .csv or .parquet file, a "
        f"folder of images, {HUB}<repository>, or package.module:function"
    )


def _check_options(name: str, reader: Callable[..., Dataset], options: dict[str, Any]) -> None:
    taken = inspect.signature(reader).parameters
    for option in options:
        if option not in taken:
            raise BadInput(f"data set {name!r} takes no option {option!r}{nearest(option, taken)}")
    required = [p.name for p in taken.values() if p.default is p.empty and p.name not in options]
    if required:
        raise BadInput(f"data set {name!r} needs {' and '.join(required)}")
