"""surgery: the only way structure changes. Registered functions with JSON arguments, journaled and replayed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from oblivio.core.errors import BadInput

Networks: TypeAlias = "Mapping[str, nn.Module] | nn.ModuleDict"  # by name
Journal = list[dict[str, Any]]
_operations: dict[str, Callable[..., None]] = {}
_appending: set[str] = set()


def surgery(fn: Callable[..., None] | None = None, *, appends: bool = False) -> Any:
    """Register ``fn(nets, *, <JSON arguments>)``.

    It appends and never reshapes, and leaves the function computed as it was unless its docstring says otherwise. With
    ``appends`` it changes no weight that is there, and those that come do nothing at first.
    """
    if fn is None:
        return lambda f: surgery(f, appends=appends)
    _operations[_name(fn)] = fn
    if appends:
        _appending.add(_name(fn))
    return fn


def appends(fn: Callable[..., None]) -> bool:
    """Whether a surgery leaves all weights that are there as they are."""
    return _name(fn) in _appending


def _name(fn: Callable[..., None]) -> str:
    return f"{fn.__module__}:{fn.__qualname__}"


def operate(nets: Networks, journal: Journal, fn: Callable[..., None], **arguments: Any) -> None:
    """Apply a registered surgery and write it down."""
    name = _name(fn)
    if name not in _operations:
        raise BadInput(f"{name} is no registered surgery; decorate it with @surgery")
    fn(nets, **json.loads(json.dumps(arguments)))
    journal.append({"op": name, "args": arguments})


def replay(nets: Networks, journal: Journal) -> None:
    """Rebuild the structure that ``journal`` describes. Only registered surgeries are run."""
    for entry in journal:
        module = entry["op"].partition(":")[0]
        try:
            importlib.import_module(module)
            fn = _operations[entry["op"]]
        except (ImportError, KeyError):
            raise BadInput(f"the journal names the surgery {entry['op']!r}, which is not registered here") from None
        fn(nets, **entry["args"])


class Wrap(nn.Module):
    """A module around modules: ``forward`` is what is trained, ``predict`` what is served and audited."""

    deletes: bool = False  # whether the weights themselves changed

    def predict(self, x: Tensor) -> Tensor:
        """The served outputs; by default those of ``forward``."""
        out: Tensor = self(x)
        return out
