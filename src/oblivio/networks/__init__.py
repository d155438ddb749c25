"""Networks by name: one file a built-in network, and the user's own as ``package.module:factory``.

A file of this package is a network: it holds ``build(inputs, outputs, *, options)``, and its name with ``-`` for
``_`` is the public one. Every network takes a float tensor of examples and ends in one ``nn.Linear`` called ``head``;
one whose file says ``TAKES = "graph"`` takes the features of all nodes and the edges between them, see ``tasks.graph``.
Weights are initialised as torch does by default, from the global generator: the caller seeds.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import ValidationError, validate_call
from torch import nn

from oblivio.core.errors import BadInput, nearest
from oblivio.modules.preprocess import Spec, assembled, unfitted
from oblivio.modules.targets import TargetUnits
from oblivio.networks._own import build_own

Factory: TypeAlias = Callable[..., nn.Module]


def names() -> list[str]:
    """The built-in networks, sorted."""
    stems = (file.name for file in pkgutil.iter_modules(__path__) if not file.ispkg)
    return sorted(stem.replace("_", "-") for stem in stems if not stem.startswith("_"))


def build(name: str, inputs: tuple[int, ...], outputs: int, /, **options: Any) -> nn.Module:
    """A new network, in training mode.

    Args:
        name: one of ``names()``, or ``package.module:factory``, which is imported and called with ``options`` alone.
        inputs: shape of one example: ``(channels, height, width)`` for images, ``(columns,)`` for tables.
        outputs: logits (classes) or targets (regression).
        options: the network's settings; each built-in's ``build`` documents them and their defaults.

    Raises:
        BadInput: an unknown name or option (with the nearest one), a value that does not suit, a factory that cannot
            be imported or does not make a module.
    """
    if ":" in name:
        return build_own(name, options)
    factory = _builtin(name)
    _check_names(name, options, defaults(name))
    try:
        return validate_call(factory)(inputs=inputs, outputs=outputs, **options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{name}: {where} is {first['input']!r}; {first['msg'].lower()}") from None


def defaults(name: str) -> dict[str, Any]:
    """The options of a network with their default values; of the user's own nothing is assumed, so none."""
    if ":" in name:
        return {}
    parameters = inspect.signature(_builtin(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def takes(name: str) -> str:
    """What a built-in network takes: ``"rows"``, or ``"graph"`` for all nodes of a graph at once."""
    found: str = getattr(importlib.import_module(_builtin(name).__module__), "TAKES", "rows")
    return found


@dataclass(frozen=True)
class Architecture:
    """What is needed to build a network again, as JSON can hold it.

    Options left out are written down with their defaults, so that a release with other defaults builds the same.

    Attributes:
        name, inputs, outputs, options: as for ``build``; ``inputs`` is the shape of one example before preprocessing.
        preprocess: what stands before the network, to be fitted or loaded: see ``modules.preprocess.unfitted``.
        units: whether outputs are brought to the units of the targets, which are fitted or loaded too: see
            ``modules.targets.TargetUnits``.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: int
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    preprocess: Spec = field(default=None, hash=False)
    units: bool = False

    def __post_init__(self) -> None:
        options = {**defaults(self.name), **self.options}
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "options", _as_json("options", options))
        object.__setattr__(self, "preprocess", _as_json("preprocessing", self.preprocess))

    def build(self) -> nn.Module:
        """A new, freshly initialised module; with parts to fit its children are ``prepare``, ``net`` and ``units``."""
        prepare, inputs = (None, self.inputs) if self.preprocess is None else unfitted(self.preprocess, self.inputs)
        net = build(self.name, inputs, self.outputs, **self.options)
        return assembled(net, prepare, TargetUnits(self.outputs) if self.units else None)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``from_json`` reads back to an equal architecture."""
        return {**dataclasses.asdict(self), "inputs": list(self.inputs)}

    @classmethod
    def from_json(cls, value: Any) -> Architecture:
        """The architecture that ``to_json`` wrote; anything else is ``BadInput``."""
        try:
            return cls(**value)
        except TypeError as error:
            raise BadInput(f"{value!r} does not describe an architecture: {error}") from None


def _builtin(name: str) -> Factory:
    if name not in names():
        raise BadInput(f"no network is called {name!r}{nearest(name, names())}; your own is 'package.module:factory'")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return module.build


def _check_names(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for option in options:
        if option not in known:
            raise BadInput(f"{name} has no option {option!r}{nearest(option, known)}")


def _as_json(what: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise BadInput(f"the {what} of a network cannot be written down: {error}") from None
