"""Equal memory: which setting of a method says how many rows it stores, and how many bytes one of them takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from oblivio import methods
from oblivio.audits.continual.resources import bytes_of, unique
from oblivio.core.errors import BadInput
from oblivio.core.part import Part, walk
from oblivio.core.source import Source
from oblivio.data.streams.experience import Stream
from oblivio.jobs.method import choose
from oblivio.learners.learner import Learner
from oblivio.sources.memory import Memory

ASKED = 37  # rows with which a setting is tried: no method's default
TRIED = 32  # rows that are learned to see what a stored one takes


def memories(part: Part) -> list[Memory]:
    """The memories in a plan, each once."""
    return [found for found in unique(dict(walk(part, "plan"))) if isinstance(found, Memory)]


def capacity(name: str, settings: Mapping[str, Any]) -> int:
    """How many rows a method with these settings stores at most."""
    return sum(memory.capacity for memory in memories(choose(name, settings, kind="continual").plan))


def setting(name: str, settings: Mapping[str, Any]) -> str | None:
    """The setting that is the number of stored rows; None for a method that has none."""
    if not capacity(name, settings):
        return None
    for each, known in methods.spec(name).settings.items():
        if type(known.default) is int and _holds(name, {**settings, each: ASKED}):
            return each
    return None


def _holds(name: str, settings: Mapping[str, Any]) -> bool:
    try:
        return capacity(name, settings) == ASKED
    except BadInput:  # a setting that may not be so large
        return False


def unsized(name: str, settings: Mapping[str, Any]) -> str | None:
    """What is to be said of a method that stores rows of which no setting is the number."""
    if capacity(name, settings) and setting(name, settings) is None:
        return f"{name} stores up to {capacity(name, settings)} rows and has no setting for how many: it keeps them"
    return None


def bytes_a_row(name: str, settings: Mapping[str, Any], of: str, stream: Stream, model: nn.Module) -> int:
    """Bytes of a stored row with its id and what is stored beside it, seen where a few rows of the stream are learned.

    Args:
        name: of the method.
        settings: of it.
        of: the setting that is the number of rows.
        stream: the first rows of whose first experience are learned.
        model: where it starts.
    """
    spec = methods.spec(name)
    short = {"epochs": 1} if "epochs" in spec.settings else {}
    plan = choose(name, {**settings, **short, of: ASKED}, kind="continual").plan
    learner = Learner(model, plan, stream.modality)
    first = stream.train[0]
    learner.learn(
        dataclasses.replace(first, rows=_few(first.rows), valid=None if first.valid is None else _few(first.valid))
    )
    kept = memories(learner.plan)
    return math.ceil(sum(bytes_of(memory.state) for memory in kept) / sum(memory.capacity for memory in kept))


def _few(rows: Source) -> Source:
    return rows.take(np.unique(np.linspace(0, len(rows) - 1, TRIED).astype(int)))
