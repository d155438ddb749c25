"""Edits that several methods share: direct changes of the weights."""

from oblivio.edits.dampen import dampen
from oblivio.edits.fresh import drop, fresh
from oblivio.edits.prune import prune
from oblivio.edits.reset import reset

__all__ = ["dampen", "drop", "fresh", "prune", "reset"]
