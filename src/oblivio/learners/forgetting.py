"""Forgetting inside a learner: every place that held the rows, what was done there, and what still comes from them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio import methods
from oblivio.core.errors import BadInput
from oblivio.core.part import Part
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Batch, Source
from oblivio.learners._rows import SHOWN, asked
from oblivio.sources import Tensors, as_source
from oblivio.sources.memory import Memory

UNCHANGED = "not changed: what they learned of the rows stays; give method= to unlearn it"


@dataclass(frozen=True)
class Place:
    """A place that held the rows, and what was done there."""

    where: str
    done: str


@dataclass(frozen=True)
class Forgotten:
    """What a request did.

    Attributes:
        ids: the rows.
        places: where they were held, and what was done there.
        kept: what was made with them and stays, such as an importance or the weights of an earlier model.
        weights: what was done to the weights.
        guarantee: of the weights: that of the method, or ``none``. What was taken out of ``places`` is gone exactly.
        seconds: from the call to the answer.
    """

    ids: Sequence[Any]
    places: Sequence[Place] = ()
    kept: Sequence[str] = ()
    weights: str = UNCHANGED
    guarantee: str = "none"
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [f"{len(self.ids)} rows forgotten", *(f"  {p.where}: {p.done}" for p in self.places)]
        lines += [f"  weights: {self.weights}", *(f"  still there: {what}" for what in self.kept)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**dataclasses.asdict(self), "ids": list(self.ids)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Forgotten:
        """What ``to_json`` wrote."""
        return cls(**{**value, "places": [Place(**place) for place in value["places"]]})


@dataclass(frozen=True)
class Request:
    """The rows of a request: their ids, and their columns where they were given."""

    ids: list[Any]
    rows: Source

    @classmethod
    def of(cls, value: Any) -> Request:
        """From ids, or from rows. Raises BadInput where there are none, or one comes twice."""
        if isinstance(value, Source) or _has_columns(value):
            rows = as_source(value, "rows")
            return cls(asked(rows.ids.tolist(), _Everything()), rows)
        ids = asked(value, _Everything())
        return cls(ids, Named(np.asarray(ids)))

    def known(self, learned: Container[Any]) -> None:
        """Raises BadInput where a row was never learned, so that no place holds it."""
        asked(self.ids, learned)


class _Everything:
    def __contains__(self, _: Any) -> bool:
        return True


def _has_columns(value: Any) -> bool:
    """Whether a value is rows rather than ids: a dict, a Dataset, or a tuple of arrays."""
    if isinstance(value, (Mapping, torch.utils.data.Dataset, torch.utils.data.DataLoader)):
        return True
    return isinstance(value, (tuple, list)) and bool(value) and all(getattr(v, "ndim", 0) for v in value)


class Named(Source):
    """Rows of which only the ids are known."""

    columns = ()

    def __init__(self, ids: Any) -> None:
        self._named = ids

    def __len__(self) -> int:
        return len(self._named)

    @property
    def ids(self) -> Any:
        return self._named

    def read(self, name: str, rows: Tensor, into: dict[str, Any]) -> None:
        raise BadInput(f"{name!r}: of the rows to forget only the ids are known; give the rows themselves")


def carry_out(
    request: Request, work: Problem, parts: Mapping[str, Part], method: str | Stage | None, retain: Any,
    settings: Mapping[str, Any],
) -> Forgotten:  # fmt: skip
    """Take the rows out of ``work`` and ``parts``, which are the learner's own copies."""
    began = time.monotonic()
    gone = _with_columns(request, parts) if method is not None else request.rows
    work.moved = False  # a Part may ask whether the weights changed
    weights, guarantee = UNCHANGED, "none"
    if method is not None:
        weights, guarantee = _unlearn(work, parts, gone, method, retain, settings)
    places = [Place(_called(part), done) for part in parts.values() if (done := part.forget(gone, work))]
    places += _sources(request, work)
    kept = _derived(parts, work)
    return Forgotten(request.ids, places, kept, weights, guarantee, round(time.monotonic() - began, 3))


def _called(part: Part) -> str:
    name = getattr(part, "name", "")
    return f"{type(part).__name__} {name}".rstrip()


def _sources(request: Request, work: Problem) -> list[Place]:
    """The rows of the last experience, and what was kept of its passes, are let go of."""
    found = []
    for name, source in list(work.sources.items()):
        held = np.isin(source.ids, np.asarray(request.ids))
        if held.any():
            work.sources[name] = work._named(name, source.take(np.flatnonzero(~held)))
            found.append(Place(f"source {name}", f"{held.sum()} rows left out"))
    work.frozen = {}
    work.snapshots.pop("start", None)
    return found


def _derived(parts: Mapping[str, Part], work: Problem) -> list[str]:
    """What the rows had a part in and no request can take apart."""
    found = [_called(p) for p in parts.values() if _holds(p) and type(p).forget is Part.forget]
    return [*found, *(f"snapshot {name}" for name in work.snapshots), *(f"record {name}" for name in work.records)]


def _holds(part: Part) -> bool:
    return not isinstance(part, Stage) and any(isinstance(v, (Tensor, dict, list)) for v in part.state.values())


# --- the weights


def _with_columns(request: Request, parts: Mapping[str, Part]) -> Source:
    """The rows with their columns: as given, or as the memories hold them. Raises BadInput where one is nowhere."""
    if request.rows.columns:
        return request.rows
    held = _held(parts, np.asarray(request.ids), inside=True)
    missing = set(request.ids).difference([] if held is None else held.ids.tolist())
    if held is None or missing:
        raise BadInput(f"the weights can only be made to forget rows that are there; no memory holds {len(missing)} of "
                       f"them, first {sorted(missing)[:SHOWN]}: give the rows themselves")  # fmt: skip
    return held


def _held(parts: Mapping[str, Part], ids: Any, inside: bool) -> Source | None:
    """The rows in all memories whose ids are, or are not, among ``ids``; each once."""
    batches: list[Batch] = []
    known: set[Any] = set()
    asked = set(ids.tolist())
    for memory in (p for p in parts.values() if isinstance(p, Memory) and len(p)):
        names = memory.ids.tolist()
        at = [i for i, name in enumerate(names) if (name in asked) == inside and name not in known]
        at = list({names[i]: i for i in at}.values())
        known.update(names[i] for i in at)
        batches += [memory.batch(torch.tensor(at))] if at else []
    if not batches:
        return None
    common = [n for n in batches[0].source.columns if all(n in b.source.columns for b in batches)]
    columns = {n: torch.cat([b[n] for b in batches]) for n in common}
    return Tensors(columns, ids=np.concatenate([np.asarray(b["id"]) for b in batches]))


def _unlearn(
    work: Problem,
    parts: Mapping[str, Part],
    gone: Source,
    method: str | Stage,
    retain: Any,
    settings: Mapping[str, Any],
) -> tuple[str, str]:
    """Run a method of unlearning on the weights; what it did, and its guarantee."""
    rest = as_source(retain, "retain") if retain is not None else _held(parts, gone.ids, inside=False)
    if rest is None:
        raise BadInput("no memory holds rows to keep the model by; give retain=")
    if isinstance(method, str):
        spec = methods.spec(method)
        if spec.kind != "unlearning":
            raise BadInput(
                f"{method} is of the kind {spec.kind}; the weights are changed by one of the kind unlearning"
            )
        plan, guarantee, name = methods.registry.get(method)(**settings), spec.guarantee, method
    else:
        plan, guarantee, name = method, "empirical", "a plan"
    asked = work.copy()
    asked.nets = work.nets
    asked.sources = {"forget": work._named("forget", gone), "retain": work._named("retain", rest)}
    Run(plan, asked).go()
    work.journal, work.moved = asked.journal, True
    return f"changed by {name}, which kept {len(rest)} rows", guarantee
