"""What can go wrong, by whose hand: the caller's input, or a guard that stopped a run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """The request cannot be served as given. The message says what, where and what to do; nothing was written."""


class Stopped(RuntimeError):
    """A guard ended a run (NaN, a floor, a budget). The original model is untouched."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'salun'?"``, or the known names where none is near."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known) or 'none'}"
