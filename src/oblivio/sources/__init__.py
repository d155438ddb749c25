"""Sources: named supplies of rows, and how what a user has becomes one."""

from oblivio.sources.convert import as_source
from oblivio.sources.items import Items
from oblivio.sources.tensors import Tensors

__all__ = ["Items", "Tensors", "as_source"]
