"""Sources: named supplies of rows, and how what a user has becomes one."""

from oblivio.sources.convert import as_source
from oblivio.sources.exemplars import Exemplars
from oblivio.sources.items import Items
from oblivio.sources.joined import Joined
from oblivio.sources.memory import Buffer, Memory, Twin, outputs
from oblivio.sources.tensors import Tensors
from oblivio.sources.weighted import Weighted, group_ratio

__all__ = [
    "Buffer",
    "Exemplars",
    "Items",
    "Joined",
    "Memory",
    "Tensors",
    "Twin",
    "Weighted",
    "as_source",
    "group_ratio",
    "outputs",
]
