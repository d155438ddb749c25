"""Standard problems: a trained model, rows that must go, and models that never saw them; the same for every method.

>>> from oblivio import problems
>>> "digits-class" in problems.names()
True
>>> problems.spec("digits-class").goal
'retrained'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oblivio.problems.case import Case as Case
    from oblivio.problems.loading import load as load
    from oblivio.problems.loading import outline as outline
    from oblivio.problems.table import Spec as Spec
    from oblivio.problems.table import names as names
    from oblivio.problems.table import spec as spec

PUBLIC = {"Case": "case", "load": "loading", "outline": "loading", "Spec": "table", "names": "table", "spec": "table"}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
