"""Records: what training leaves behind for methods that need it, one file a record with the function that makes it.

A file ``<name>.py`` holds ``<name>(problem, **settings)``. The problem has the trained model and its training rows as
source ``train``; the function returns tensors, numbers and strings in nested dicts, which can be saved with the model,
so that the rows themselves may then go. A method reads it as ``problem.records["<name>"]`` and names it in its needs.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from oblivio.core.errors import BadInput, nearest
from oblivio.core.problem import Problem


def names() -> list[str]:
    """All records that can be made, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def make(name: str, problem: Problem, **settings: Any) -> Any:
    """Make a record from a trained model and its training rows, the problem's source ``train``.

    Raises BadInput for an unknown record or setting, or a problem without ``train``.
    """
    if name not in names():
        raise BadInput(f"there is no record {name!r}{nearest(name, names())}")
    problem.source("train")
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)(problem, **settings)
