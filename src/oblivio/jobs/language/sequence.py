"""Requests that arrive one after the other at one language model: what is left of each, and of the rest, after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

from pydantic import Field

from oblivio.audits.language.memorisation import probability
from oblivio.audits.language.responses import respond
from oblivio.audits.report import JSON, Report
from oblivio.audits.verdict import named
from oblivio.core.errors import BadInput
from oblivio.core.run import Watch
from oblivio.core.team import gather
from oblivio.data.language.texts import Text
from oblivio.jobs import folder
from oblivio.jobs.folder import MODEL
from oblivio.jobs.language.job import NEW, LanguageJob
from oblivio.jobs.language.prepare import GROUP, Ready, prepare
from oblivio.jobs.language.run import run as serve
from oblivio.jobs.turns import Tell, Turns
from oblivio.networks.language.folder import open_model

Number = Annotated[int, Field(ge=2, le=100)]


class TextRequests(LanguageJob):
    """Requests in order, and how each is served; the other fields are those of a job for a language model.

    Attributes:
        requests: the groups that go at each, a name or a list of names; or a number: the groups of ``data.forget``
            fall into so many requests, in their order.
        take: ``accepted``: a request that is not accepted stays open, and goes with the next; ``all``: every outcome is
            taken, for studies.
    """

    requests: Number | Annotated[list[str | list[str]], Field(min_length=2, max_length=100)]
    take: Literal["accepted", "all"] = "accepted"


@dataclass(frozen=True)
class Served:
    """What came of one request.

    Attributes:
        request: its number.
        texts: that went, with those of open requests before it.
        method: that served it.
        word: of the verdict.
        taken: whether the next request starts from it.
        forget, retain, kept: mean probability of the true answers of what went, of what stays and of the test texts.
        references: the first of these for models retrained without all that went so far; None without such.
        seconds: that the method took.
        earlier: the same probability for each request that was served before, on the model as it is now.
    """

    request: int
    texts: int
    method: str
    word: str
    taken: bool
    forget: float | None
    retain: float | None
    kept: float | None
    references: float | None
    seconds: float | None
    earlier: dict[int, float] = field(default_factory=dict)


def run(job: TextRequests, out: Path, *, watch: Sequence[Watch] = (), tell: Tell = lambda _: None) -> list[Served]:
    """Serve all requests.

    Args:
        job: what is asked, and how it is served.
        out: a folder with ``request-NN/`` for each, as of a job, and ``sequence.json``. That of a sequence that was
            killed is gone on with, to the same bits.
        watch: called after every step of every training.
        tell: called with a line when a request begins and ends.

    Raises:
        BadInput: what no job can serve, a folder of something else, fewer groups than requests, or nothing by which a
            request could be accepted.
    """
    if job.take == "accepted" and not (job.references.count or job.references.given):
        raise BadInput("without references no request is ever accepted: give references: 3, or take: all")
    asked = _Sequence(job, out, watch, tell)
    return asked.run(asked.groups)


class _Sequence(Turns[TextRequests, list[str], Served]):
    """A sequence of requests about texts: which groups are gone, and which stay open."""

    def __init__(self, job: TextRequests, out: Path, watch: Sequence[Watch], tell: Tell) -> None:
        super().__init__(job, out, watch, tell)
        self.gone: list[str] = []
        self.served: dict[int, list[str]] = {}  # groups of each request that was taken

    def one(self, number: int, request: list[str]) -> Served:
        groups, place = [*self.open, *request], self.place(number)
        texts = self._texts(groups)
        self.tell(f"request {number} of {len(self.groups)}: {len(texts):,} texts")
        if not (place / JSON).exists():
            serve(self._step(groups), place, watch=self.watch, resume=folder.interrupted(place))
        report = Report.load(place)
        name, word = report["method"]["name"], report["verdict"]["word"]
        taken, earlier = self.job.take == "all" or word == "ACCEPTED", dict[int, float]()
        if taken:
            earlier = self._earlier(place / MODEL)
            self.last, self.gone, self.open = place / MODEL, [*self.gone, *groups], []
            self.served[number] = groups
        else:
            self.open = groups
        self.tell(f"request {number}: {word}")
        never = [value for each in named(report, "reference") if (value := report.value("forget", each)) is not None]
        left, retain, kept = (report.value(figure, name) for figure in ("forget", "retain", "kept"))
        return Served(number, len(texts), name, word, taken, left, retain, kept, fmean(never) if never else None,
                      report["cost"].get("seconds"), earlier)  # fmt: skip

    def _step(self, groups: list[str]) -> LanguageJob:
        """The job of one request: these groups, on the last model that was taken, among the texts that are left."""
        of = self.ready.job
        data = of.data.but(forget=GROUP + "+".join(groups), without=self.gone)
        one = of.but(data=data)
        if self.last is not None:
            start = of.recipe.start or (NEW if of.model.folder is None else None)
            one = one.but(model=of.model.but(folder=str(self.last.absolute())), recipe=of.recipe.but(start=start))
        return LanguageJob.of(**one.model_dump(mode="json"))

    def _earlier(self, model: Path) -> dict[int, float]:
        """What is left of the requests before: the mean probability of their true answers."""
        if not self.served:
            return {}
        network, _ = open_model(model, self.job.model.trust)
        rows = {number: self.ready.encoded(self._texts(groups)) for number, groups in self.served.items()}
        eos = self.ready.tokenizer.eos_token_id
        found = {number: respond(network.eval(), tokens, eos=eos) for number, tokens in rows.items()}
        return {number: float(probability(each).mean()) for number, each in found.items()}

    def _texts(self, groups: list[str]) -> tuple[Text, ...]:
        return tuple(text for text in self.ready.roles["forget"] if text.group in groups)

    @cached_property
    def ready(self) -> Ready:
        """All requests as one, checked."""
        one = self.job.model_dump(mode="json", exclude={"requests", "take"}, exclude_unset=True)
        if self._named:
            names = [name for each in self._named for name in each]
            one["data"] = {**one.get("data", {}), "forget": GROUP + "+".join(names)}
        return prepare(
            LanguageJob.of(**one), gather(self.job.processes, self.job.precision, sharding=self.job.sharding)
        )

    @property
    def _named(self) -> list[list[str]]:
        """The groups of each request, where the job names them."""
        asked = self.job.requests
        return [] if isinstance(asked, int) else [[each] if isinstance(each, str) else each for each in asked]

    @cached_property
    def groups(self) -> list[list[str]]:
        """The groups of each request."""
        names = list(dict.fromkeys(text.group for text in self.ready.roles["forget"]))
        if self._named or not isinstance(count := self.job.requests, int):
            return self._named
        if len(names) < count:
            raise BadInput(f"{self.job.data.forget!r} has {len(names)} groups, too few for {count} requests")
        return [names[i * len(names) // count : (i + 1) * len(names) // count] for i in range(count)]
