"""Libraries that only some data need."""

from __future__ import annotations

import importlib
from types import ModuleType

from oblivio.core.errors import BadInput


def need(module: str, extra: str) -> ModuleType:
    """Import ``module``; where it is absent, a BadInput names the extra of this package that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        library = module.partition(".")[0]
        raise BadInput(f"{library} is not installed; run: pip install 'oblivio[{extra}]'") from None
