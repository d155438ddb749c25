"""What is the user's own: ``package.module:name``, imported and called."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from oblivio.core.errors import BadInput, nearest


def build_own(reference: str, options: Mapping[str, Any]) -> nn.Module:
    """The module that the factory makes of ``options``."""
    module = called(reference, options)
    if not isinstance(module, nn.Module):
        raise BadInput(f"{reference} made a {type(module).__name__}; a factory returns a torch.nn.Module")
    return module


def called(reference: str, options: Mapping[str, Any]) -> Any:
    """What ``package.module:name`` makes of ``options``. Importing it, and calling it, runs the user's code.

    Raises:
        BadInput: as ``imported`` does, or an option that is not taken (with the nearest), or one that is missing.
    """
    function = imported(reference)
    _check_options(reference, function, options)
    return function(**options)


def imported(reference: str) -> Callable[..., Any]:
    """The function or class that ``package.module:name`` means.

    Raises:
        BadInput: the module cannot be imported (the message says why) or has no such function or class.
    """
    path, _, name = reference.partition(":")
    try:
        module = importlib.import_module(path)
    except Exception as error:  # the module is the user's: importing it can raise anything
        raise BadInput(f"{reference}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise BadInput(f"{reference}: {path} has no function or class {name!r}{nearest(name, known)}")
    return found


def _check_options(reference: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    signature = inspect.signature(factory)
    parameters = signature.parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        for option in options:
            if option not in known:
                raise BadInput(f"{reference} has no option {option!r}{nearest(option, known)}")
    try:
        signature.bind(**options)
    except TypeError as error:
        raise BadInput(f"{reference} cannot be called with its options: {error}") from None
