"""Data: loading sets by name, from tables, folders and the hub; naming the rows that go; checking them; streams; texts.

>>> from oblivio import data
>>> digits = data.load("digits")
>>> forget, retain = data.split(digits.train, "class=3", fields=digits.fields)
>>> len(forget) + len(retain) == len(digits.train)
True
>>> [experience.classes for experience in data.split(digits, tasks=3).train]
[(0, 1, 2, 3), (4, 5, 6), (7, 8, 9)]
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
    from oblivio.data.history import History as History
    from oblivio.data.hubs import hub as hub
    from oblivio.data.language.encoding import encode as encode
    from oblivio.data.language.loading import texts as texts
    from oblivio.data.language.people import people as people
    from oblivio.data.language.pieces import pieces as pieces
    from oblivio.data.language.texts import Text as Text
    from oblivio.data.language.texts import Texts as Texts
    from oblivio.data.loading import load as load
    from oblivio.data.loading import names as names
    from oblivio.data.selection import select as select
    from oblivio.data.streams.benchmarks import from_benchmark as from_benchmark
    from oblivio.data.streams.by_column import experiences as experiences
    from oblivio.data.streams.classes import split as split
    from oblivio.data.streams.domains import domains as domains
    from oblivio.data.streams.domains import permuted as permuted
    from oblivio.data.streams.domains import rotated as rotated
    from oblivio.data.streams.experience import Experience as Experience
    from oblivio.data.streams.experience import Stream as Stream
    from oblivio.data.streams.imbalance import imbalanced as imbalanced
    from oblivio.data.streams.mixed import blurry as blurry
    from oblivio.data.streams.mixed import online as online
    from oblivio.data.streams.mixed import si_blurry as si_blurry
    from oblivio.data.streams.mixed import sliding as sliding
    from oblivio.data.streams.named import stream as stream
    from oblivio.data.streams.named import stream_kinds as stream_kinds
    from oblivio.data.streams.recurring import recurring as recurring
    from oblivio.data.streams.several import in_turn as in_turn
    from oblivio.data.tables import table as table

PUBLIC = {
    "check": "checks", "Field": "columns", "Dataset": "dataset", "Layout": "dataset", "copies": "duplicates",
    "fit_preprocess": "fitting", "folder": "folders", "History": "history", "hub": "hubs", "load": "loading",
    "names": "loading", "select": "selection", "table": "tables",
    "encode": "language.encoding", "people": "language.people", "Text": "language.texts", "Texts": "language.texts",
    "texts": "language.loading", "pieces": "language.pieces",
    "from_benchmark": "streams.benchmarks", "experiences": "streams.by_column", "split": "streams.classes",
    "domains": "streams.domains", "permuted": "streams.domains", "rotated": "streams.domains",
    "Experience": "streams.experience", "Stream": "streams.experience", "imbalanced": "streams.imbalance",
    "blurry": "streams.mixed", "online": "streams.mixed", "si_blurry": "streams.mixed", "sliding": "streams.mixed",
    "stream": "streams.named", "stream_kinds": "streams.named", "recurring": "streams.recurring",
    "in_turn": "streams.several",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
