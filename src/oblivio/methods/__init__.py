"""Methods: one short file each, found by the registry. ``methods.salun(keep=0.5)`` is a Plan, nothing is run yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from oblivio.registry import Registry

registry = Registry("oblivio.methods", Path(__file__).parent)
names = registry.names
spec = registry.spec
add = registry.add


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("_"):
        raise AttributeError(name)
    return registry.get(name)


def __dir__() -> list[str]:
    return [*registry.names, "add", "names", "spec"]
