"""Run the properties over a method, by its name in the registry, or over a plan of your own."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from oblivio import methods
from oblivio.contracts.case import Case, below
from oblivio.contracts.problems import TABLE, Tiny
from oblivio.contracts.properties import PROPERTIES
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput, nearest
from oblivio.core.plan import Stage
from oblivio.core.term import source_name
from oblivio.registry import Setting, Spec

PIECES_ON = "relabel"  # the method that a piece is tried on which does not say on which


@dataclass(frozen=True)
class Failure:
    """A property that does not hold, on which problem, and what was seen instead."""

    property: str
    problem: str
    message: str

    def __str__(self) -> str:
        return f"{self.property} fails on {self.problem}: {self.message}"


def check(
    method: str | Stage, *, needs: tuple[str, ...] | None = None, on: str | Tiny = "", only: str = ""
) -> list[Failure]:
    """The properties that a method does not have; an empty list is what you want.

    Args:
        method: a method of the registry by its id (your own after ``methods.add``), or a plan.
        needs: the sources and records that a plan needs; default: the sources its objectives read.
        on: one tiny problem, by name or your own. Default: all that suit the method's tasks; for a plan ``digits``.
        only: names of the properties to look at; default: all of ``PROPERTIES``.
    """
    tinies = [on] if isinstance(on, Tiny) else [_tiny(on)] if on else problems_of(method)
    cases = (case for tiny in tinies for case in _cases(method, needs, tiny))
    return [failure for case in cases for failure in _on(case, only.split() or list(PROPERTIES))]


def problems_of(method: str | Stage) -> list[Tiny]:
    """The tiny problems that a method is tried on; none, where it needs experiences: see ``check_stream``."""
    if isinstance(method, Stage):
        return [TABLE["digits"]]
    spec = methods.spec(method)
    fit = [tiny for tiny in TABLE.values() if tiny.kind in spec.tasks and (tiny.name == "images" or not spec.images)]
    alike = {"faces"} if "causal_lm" in spec.tasks else set()  # a picture is one more column of a text
    return [] if spec.structure else [t for t in fit if (t.name == "experts") == spec.experts and t.name not in alike]


def _tiny(name: str) -> Tiny:
    if name not in TABLE:
        raise BadInput(f"there is no tiny problem {name!r}{nearest(name, TABLE)}")
    return TABLE[name]


def _on(case: Case, wanted: list[str]) -> Iterator[Failure]:
    for name in wanted:
        if name not in PROPERTIES:
            raise BadInput(f"there is no property {name!r}{nearest(name, PROPERTIES)}")
        try:
            yield from (Failure(name, case.name, message) for message in PROPERTIES[name](case))
        except Exception as error:  # a method that breaks is the finding, and the others are still to be looked at
            yield Failure(name, case.name, f"{type(error).__name__}: {error}")


def _cases(method: str | Stage, needs: tuple[str, ...] | None, tiny: Tiny) -> Iterator[Case]:
    if isinstance(method, Stage):
        read = (
            source_name(on)
            for d in below(method, Descent)
            for on in (*d.loss.reads, *(() if d.over is None else (d.over,)))
        )
        yield Case(partial(copy.deepcopy, method), tuple(dict.fromkeys(read)) if needs is None else needs, tiny)
        return
    spec = methods.spec(method)
    base = methods.spec(_under(spec)).needs if spec.kind == "piece" else ()
    for variant in _variants(spec):
        needed, name = tuple(dict.fromkeys((*spec.needs, *base))), ", ".join(f"{k}={v}" for k, v in variant.items())
        case = Case(partial(_made, spec, **variant), needed, tiny, name, dict(_changed(spec)) if not variant else {})
        if not variant or _serves(case):
            yield case


def _serves(case: Case) -> bool:
    """Whether a variant runs on the problem; one that is not for it says so."""
    try:
        return bool(case.finished)
    except BadInput:
        return False


def _made(spec: Spec, **settings: Any) -> Stage:
    made: Stage | Callable[[Stage], Stage] = methods.registry.get(spec.id)(**settings)
    return made if isinstance(made, Stage) else made(methods.registry.get(_under(spec))(**dict(spec.on_settings)))


def _under(piece: Spec) -> str:
    """The method that a piece is tried on."""
    return piece.on or PIECES_ON


def _changed(spec: Spec) -> Iterator[tuple[str, list[tuple[Stage, Stage]]]]:
    """For every setting, plans without and with another value of it, under every variant of the method."""
    for name, setting in spec.settings.items():
        others = [(variant, other) for variant in _variants(spec) for other in _others(setting)]
        pairs = [({**v, name: setting.default}, {**v, name: other}) for v, other in others]
        if pairs:
            yield name, [(_made(spec, **a), _made(spec, **b)) for a, b in pairs]


def _variants(spec: Spec) -> list[dict[str, Any]]:
    """The defaults, and each other word of the settings that are words."""
    others = [{n: w} for n, s in spec.settings.items() for w in _words(s) if w != s.default]
    return [{}, *others]


def _words(setting: Setting) -> list[str]:
    kind, _, rest = setting.type.partition("[")
    return list(ast.literal_eval(f"[{rest}")) if kind == "Literal" else []


def _others(setting: Setting) -> list[Any]:
    """Other values: of words all, of numbers one nearby, of switches the other."""
    value = setting.default
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    return [value / 2 or 0.5] if isinstance(value, float) else [w for w in _words(setting) if w != value]
