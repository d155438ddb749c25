"""A sequence: requests that arrive one after the other at one model, each judged, and the earlier ones judged again.

A request starts from the last accepted model; its references are retrained without all that was asked to go so far. A
request that is not accepted stays open, and its rows go with those of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from oblivio.audits.audit import audit
from oblivio.audits.report import JSON, Report
from oblivio.audits.subjects import Subject
from oblivio.audits.verdict import named
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.run import Watch
from oblivio.core.source import Source
from oblivio.core.team import gather
from oblivio.jobs import cache, folder, forget, weights
from oblivio.jobs.folder import MODEL
from oblivio.jobs.job import Forget, Job
from oblivio.jobs.prepare import Ready, prepare
from oblivio.jobs.references import seed_of
from oblivio.jobs.rows import Rows, divide
from oblivio.jobs.serving import forgotten_classes
from oblivio.jobs.turns import Tell, Turns

SLOW = ("relearning",)  # a probe that trains, left out where an earlier request is judged again


class Requests(Job):
    """Requests in order, and how each is served; the other fields are those of a job.

    Attributes:
        requests: what goes, in order.
        take: ``accepted``: a request that is not accepted stays open, unless its outcome is exact and the audit only
            inconclusive; ``all``: every outcome is taken, for studies.
    """

    forget: Forget | None = None  # type: ignore[assignment]
    requests: Annotated[list[Forget], Field(min_length=2, max_length=100)]
    take: Literal["accepted", "all"] = "accepted"


@dataclass(frozen=True)
class Again:
    """A request that was served before, judged on the model as it is now."""

    request: int
    word: str
    forget: float | None
    references: float
    mia: float | None


@dataclass(frozen=True)
class Served:
    """What came of one request: ``rows`` are those that went, with those of open requests before it."""

    request: int
    asked: Any
    rows: int
    method: str
    word: str
    taken: bool
    kept: float | None
    references: float
    cost: float | None
    again: Sequence[Again] = field(default_factory=list)


def run(job: Requests, out: Path, *, watch: Sequence[Watch] = (), tell: Tell = lambda _: None) -> list[Served]:
    """Serve all requests.

    Args:
        job: what is asked, and how it is served.
        out: a folder with ``request-NN/`` for each, as of a job, and ``sequence.json``. That of a sequence that was
            killed is gone on with, to the same bits.
        watch: called after every step of every training.
        tell: called with a line when a request begins and ends.

    Raises:
        BadInput: what no job can serve, a folder of something else, or references that are not trained here.
    """
    if not job.references.count:
        raise BadInput("a sequence retrains references after each request: give references: 3")
    return _Sequence(job, out, watch, tell).run(job.requests)


class _Sequence(Turns[Requests, Forget, Served]):
    """A sequence of requests about rows: which ids are gone, and which stay open."""

    def __init__(self, job: Requests, out: Path, watch: Sequence[Watch], tell: Tell) -> None:
        super().__init__(job, out, watch, tell)
        self.gone: list[Any] = []
        self.parts: dict[int, list[Any]] = {}  # ids of each request that was served

    def one(self, number: int, request: Forget) -> Served:
        ids = [*self.open, *self._ids(request)]
        place = self.place(number)
        self.tell(f"request {number} of {len(self.job.requests)}: {len(ids):,} rows")
        report = self._report(self._step(request, ids), place)
        word, taken = report["verdict"]["word"], self._taken(report)
        again: list[Again] = []
        if taken:
            self.last, self.gone, self.open, self.parts[number] = place / MODEL, [*self.gone, *ids], [], ids
            again = [self._again(before, place) for before in self.parts if before != number]
        else:
            self.open = ids
        self.tell(f"request {number}: {word}")
        never = [report.value("kept", name) for name in named(report, "reference")]
        cost = report["cost"].get("of_retraining", {}).get("rows")
        return Served(number, request.rows, len(ids), report["method"]["name"], word, taken, report.value("kept"),
                      fmean(value for value in never if value is not None), cost, again)  # fmt: skip

    def _taken(self, report: Report) -> bool:
        """Whether the next request starts from it: accepted, or exact where the audit can tell nothing."""
        exact = report["guarantee"] == "exact" and report["verdict"]["word"] == "INCONCLUSIVE"
        return self.job.take == "all" or exact or report["verdict"]["word"] == "ACCEPTED"

    def _ids(self, request: Forget) -> list[Any]:
        """What a request names of the rows that are left and not asked for already."""
        rows = self._rows(request, [*self.gone, *self.open])
        return list(rows.forget.ids.tolist())

    def _rows(self, request: Forget, without: list[Any]) -> Rows:
        ready, valid = self.ready, self.ready.job.data.valid or 0.0
        return divide(ready.dataset, request, valid, self.job.seed, without)

    def _step(self, request: Forget, ids: list[Any]) -> Job:
        """The job of one request: these ids, on the last accepted model, among the rows that are left."""
        of = self.ready.job
        model = of.model if self.last is None else of.model.but(weights=str(self.last.absolute()))
        fields = of.but(forget=request.but(rows={"ids": ids}), model=model, data=of.data.but(without=self.gone))
        return Job.of(**fields.model_dump(mode="json"))

    def _report(self, job: Job, place: Path) -> Report:
        if not (place / JSON).exists():
            forget.run(job, place, watch=self.watch, resume=folder.interrupted(place), control=self.last is None)
        return Report.load(place)

    # --- what is judged again

    @cached_property
    def ready(self) -> Ready:
        """The first request, checked; its defaults hold for all."""
        given = {name: value for name, value in self.job if name not in ("requests", "take", "forget")}
        first = {name: getattr(self.job, name) for name in self.job.model_fields_set & given.keys()}
        return prepare(Job(**first, forget=self.job.requests[0]), gather(self.job.processes, self.job.precision))

    @cached_property
    def original(self) -> nn.Module:
        """The model before any request."""
        ready = self.ready
        return self._trained(ready.rows.train, ready.job.seed) if ready.original is None else ready.original.module

    def _trained(self, rows: Source, seed: int) -> nn.Module:
        ready = self.ready
        assert ready.network is not None
        made = cache.trained(ready.job.recipe, ready.network, rows, seed, task=ready.dataset.task, team=ready.team)
        return made.module

    def _again(self, before: int, place: Path) -> Again:
        """Request ``before`` on the model that was taken now, beside references without all that went so far."""
        ids = self.parts[before]
        now = self._rows(Forget(rows={"ids": ids}), [i for i in self.gone if i not in set(ids)])
        problem = Problem(self.original, task=self.ready.dataset.task, goal=self.job.requests[before - 1].goal,
                          seed=self.job.seed, features=self.job.model.features, forget=now.forget, retain=now.retain,
                          test=now.test, valid=now.valid)  # fmt: skip
        model = weights.read(place / MODEL, self.ready.network, self.ready.dataset.task).module
        count = self.ready.job.references.count
        never = [self._trained(now.retain, seed_of(self.job.seed, number)) for number in range(count)]
        known = [Subject("now", "outcome", {"model": model}), Subject("original", "original", {"model": self.original})]
        retrained = [Subject(f"retrained {i}", "reference", {"model": each}) for i, each in enumerate(never, 1)]
        leave_out = sorted({*self.job.audit.leave_out, *SLOW})
        report = audit(problem, [*known, *retrained], forgotten_classes(problem), leave_out=leave_out,
                       tolerances={k: v for k, v in self.job.audit.tolerances.items() if k not in SLOW})  # fmt: skip
        values = [report.value("forget", name) for name in named(report, "reference")]
        return Again(before, report.verdict.word, report.value("forget"), fmean(v for v in values if v is not None),
                     report.value("mia_lira"))  # fmt: skip
