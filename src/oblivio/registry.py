"""The registry of methods: found by their files, described by their decorator and signature, imported when used.

A description is read from the source text, so that listing methods, their settings and their help costs no import.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblivio.core.errors import BadInput, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel

TEXT = ("causal_lm", "vision_language")  # tasks of language models


@dataclass(frozen=True)
class Setting:
    """One hyper-parameter: its type as written, and its default."""

    type: str
    default: Any


@dataclass(frozen=True)
class Spec:
    """What is known of a method without importing it.

    ``needs``: sources and records; ``tasks``: names of tasks it applies to; ``serves``: kinds of request, ``"class"``
    (whole classes go), ``"rows"``, and ``"clean"`` (rows that were manipulated, which all that serve rows serve too);
    ``refusal``: why it serves no other; ``aliases``: other names in use; ``kind``: unlearning, continual, protection,
    learner, or piece (a function of a plan); ``guarantee``: ``exact`` where the result cannot have been touched by the
    forgotten rows, ``certified`` where a bound on what is left is proven, else ``empirical``; ``labels``: whether the
    rows it needs must have targets; ``passes``: how many passes over forgotten and retained rows it makes at most at
    its defaults, where its plan does not tell; ``scenarios``: of a continual method, where it can be used;
    ``images``: whether its rows must be images; ``experts``: whether the model must be a mixture of experts;
    ``structure``: whether it builds a structure of its own from experience to experience, out of a chain of linear
    layers; ``on`` and ``on_settings``: a method that a piece is meant for, such as ``er``, and settings of it by name
    and value; ``text``: defaults of settings on language models, where
    they differ.
    """

    id: str
    module: str
    doc: str = ""
    settings: dict[str, Setting] = field(default_factory=dict)
    paper: str = ""
    needs: tuple[str, ...] = ("forget",)
    tasks: tuple[str, ...] = ("classification",)
    serves: tuple[str, ...] = ("class", "rows")
    refusal: str = ""
    aliases: tuple[str, ...] = ()
    cost: str = ""
    kind: str = "unlearning"
    labels: bool = True
    passes: float = 0.0
    guarantee: str = "empirical"
    scenarios: tuple[str, ...] = ("class", "task", "domain")
    images: bool = False
    experts: bool = False
    structure: bool = False
    on: str = ""
    on_settings: tuple[tuple[str, Any], ...] = ()
    text: dict[str, Any] = field(default_factory=dict)

    def defaults(self, task: str = "") -> dict[str, Any]:
        """The default of every setting for a task."""
        return {name: s.default for name, s in self.settings.items()} | (self.text if task in TEXT else {})

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.doc.partition("\n")[0]


def method(**facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark ``f(settings) -> Stage`` as a method. ``facts``: literal values of Spec's fields.

    A call checks its settings by the annotations; an unknown or unfit one is BadInput that says what is allowed.
    """

    def mark(fn: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(fn).parameters

        @functools.wraps(fn)
        def checked(**settings: Any) -> Any:
            return fn(**check(fn, settings))

        settings = {n: Setting(str(p.annotation), p.default) for n, p in parameters.items()}
        checked.spec = Spec(fn.__name__, fn.__module__, inspect.getdoc(fn) or "", settings, **facts)  # type: ignore[attr-defined]
        return checked

    return mark


def check(fn: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings converted and checked by the annotations of ``fn``."""
    from pydantic import ValidationError

    model = _model(fn)
    for name in settings:
        if name not in model.model_fields:
            raise BadInput(f"{fn.__name__} has no setting {name!r}{nearest(name, model.model_fields)}")
    try:
        return dict(model(**settings))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{fn.__name__}: {where} = {first['input']!r}: {first['msg']}") from None


@functools.cache
def _model(fn: Callable[..., Any]) -> type[BaseModel]:
    """The settings of a method as a model of pydantic, which takes milliseconds to make."""
    from pydantic import ConfigDict, create_model

    parameters = inspect.signature(fn, eval_str=True).parameters
    fields: dict[str, Any] = {n: (p.annotation, p.default) for n, p in parameters.items()}
    return create_model(fn.__name__, __config__=ConfigDict(arbitrary_types_allowed=True), **fields)


class Registry:
    """Methods below a package: ``names``, ``spec(name)``, ``get(name)``; files named in ``but`` are none."""

    def __init__(self, package: str, root: Path, but: tuple[str, ...] = ()) -> None:
        self.package, self.root, self.but = package, root, but
        self._own: dict[str, Callable[..., Any]] = {}

    @functools.cached_property
    def _files(self) -> dict[str, Path]:
        files = sorted(self.root.rglob("*.py"))
        return {p.stem: p for p in files if not p.stem.startswith("_") and p.stem not in self.but}

    @property
    def names(self) -> list[str]:
        """All ids, in alphabetical order."""
        return sorted({*self._files, *self._own})

    def add(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Register a user's own method, decorated with ``@method``, under its name."""
        self._own[fn.spec.id] = fn  # type: ignore[attr-defined]
        return fn

    def spec(self, name: str) -> Spec:
        """What is known of a method. Raises BadInput with the nearest name, or the one that an alias stands for."""
        if name in self._own:
            return self._own[name].spec  # type: ignore[attr-defined,no-any-return]
        if name not in self._files:
            self._unknown(name)
        return read_spec(self._files[name], self._module(name))

    def get(self, name: str) -> Callable[..., Any]:
        """The method itself, imported now."""
        if name in self._own:
            return self._own[name]
        if name not in self._files:
            self._unknown(name)
        return getattr(importlib.import_module(self._module(name)), name)  # type: ignore[no-any-return]

    def _module(self, name: str) -> str:
        return ".".join([self.package, *self._files[name].relative_to(self.root).with_suffix("").parts])

    def _unknown(self, name: str) -> None:
        known = {alias: spec.id for spec in map(self.spec, self.names) for alias in spec.aliases}
        if name.lower() in known:
            raise BadInput(f"{name!r} is called {known[name.lower()]!r} here")
        raise BadInput(f"there is no method {name!r}{nearest(name, self.names)}")


@functools.cache
def read_spec(path: Path, module: str) -> Spec:
    """The Spec written in a method's file, read without running it."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "method":
                    facts = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
                    return Spec(node.name, module, ast.get_docstring(node) or "", _settings(node), **facts)
    raise BadInput(f"{path} has no function decorated with @method(...)")


def _settings(node: ast.FunctionDef) -> dict[str, Setting]:
    args = [*node.args.args, *node.args.kwonlyargs]
    defaults = [*node.args.defaults, *node.args.kw_defaults]
    return {
        a.arg: Setting(ast.unparse(a.annotation) if a.annotation else "Any", ast.literal_eval(d) if d else None)
        for a, d in zip(args, defaults, strict=True)
    }
