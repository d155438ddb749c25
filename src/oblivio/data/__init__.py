"""Data: loading sets by name, from tables, folders and the hub; naming the rows that go; checking them.

>>> from oblivio import data
>>> digits = data.load("digits")
>>> forget, retain = data.split(digits.train, "class=3", fields=digits.fields)
>>> len(forget) + len(retain) == len(digits.train)
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oblivio.data.checks import check as check
    from oblivio.data.columns import Field as Field
    from oblivio.data.dataset import Dataset as Dataset
    from oblivio.data.dataset import Layout as Layout
    from oblivio.data.duplicates import copies as copies
    from oblivio.data.fitting import fit_preprocess as fit_preprocess
    from oblivio.data.folders import folder as folder
    from oblivio.data.hubs import hub as hub
    from oblivio.data.loading import load as load
    from oblivio.data.loading import names as names
    from oblivio.data.selection import select as select
    from oblivio.data.selection import split as split
    from oblivio.data.tables import table as table

PUBLIC = {
    "check": "checks", "Field": "columns", "Dataset": "dataset", "Layout": "dataset", "copies": "duplicates",
    "fit_preprocess": "fitting", "folder": "folders", "hub": "hubs", "load": "loading",
    "names": "loading", "select": "selection", "split": "selection", "table": "tables",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
