"""Probes of language models: one file a kind. ``known`` finds them all."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from oblivio.audits.language.case import TextCase, TextLook
from oblivio.audits.probe import QUESTIONS, Probe, Question, Value

Measure: TypeAlias = Callable[[TextCase, TextLook, Sequence[TextLook]], Value]
PROBES: dict[str, Probe] = {}
ATTACKS: dict[str, str] = {}  # probes that are made only where their attack is asked for


def probe(question: Question, says: str, unit: str, *, attack: str = "", **facts: Any) -> Callable[[Measure], Measure]:
    """Register a function as the probe of its name; ``attack``: the word by which it must be asked for."""

    def mark(measure: Measure) -> Measure:
        name = measure.__name__
        PROBES[name] = Probe(name, question, says, unit, measure, **facts)  # type: ignore[arg-type]
        if attack:
            ATTACKS[name] = attack
        return measure

    return mark


def known() -> dict[str, Probe]:
    """Every probe, in the order of the questions and within them of the files."""
    for package in (__name__, "oblivio.audits.language.attacks"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    return dict(sorted(PROBES.items(), key=lambda item: _place(item[1])))


def attacks() -> list[str]:
    """The words by which attacks are asked for."""
    known()
    return sorted(set(ATTACKS.values()))


def _place(made: Probe) -> tuple[int, str, int]:
    code = inspect.unwrap(made.measure).__code__
    return list(QUESTIONS).index(made.question), made.measure.__module__, code.co_firstlineno
