"""oblivio: decide what a model learns, keeps and forgets, and show it.

>>> import oblivio as ob
>>> digits = ob.data.load("digits")
>>> gone, rest = ob.data.split(digits.train, "class=3", fields=digits.fields)
>>> ob.methods.salun(keep=0.5)                                                    # doctest: +ELLIPSIS
Cycle(...)

Names are imported when they are first touched, so that ``import oblivio`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oblivio import data as data
    from oblivio import how as how
    from oblivio import methods as methods
    from oblivio import terms as terms
    from oblivio import where as where
    from oblivio.core.problem import Problem as Problem
    from oblivio.verbs import audit as audit
    from oblivio.verbs import forget as forget
    from oblivio.verbs import learn as learn
    from oblivio.verbs import learner as learner
    from oblivio.verbs import load as load
    from oblivio.verbs import protect as protect
    from oblivio.verbs import save as save

__version__ = "0.1.0"

PACKAGES = ("data", "how", "methods", "terms", "where")
VERBS = ("audit", "forget", "learn", "learner", "load", "protect", "save")
__all__ = ["Problem", "__version__", *PACKAGES, *VERBS]


def __getattr__(name: str) -> Any:
    if name in PACKAGES:
        return importlib.import_module(f"oblivio.{name}")
    if name in VERBS:
        return getattr(importlib.import_module("oblivio.verbs"), name)
    if name == "Problem":
        return importlib.import_module("oblivio.core.problem").Problem
    raise AttributeError(f"module 'oblivio' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
