"""Turns: what sequences of requests share, whatever kind of model they are put to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from oblivio.core.errors import BadInput
from oblivio.core.files import write_bytes, write_json
from oblivio.core.run import Watch
from oblivio.jobs import folder
from oblivio.jobs.section import Section

RECORD, JOB = "sequence.json", "sequence.yaml"
Tell = Callable[[str], None]
J = TypeVar("J", bound=Section)
R = TypeVar("R")
S = TypeVar("S", bound=Any)  # a dataclass


class Turns(ABC, Generic[J, R, S]):
    """A sequence on its way.

    Attributes:
        job: what is asked.
        out: the folder of the sequence.
        watch: called after every step of every training.
        tell: called with a line when a request begins and ends.
        last: where the last model that was taken is; None before.
        open: what was asked for and not taken.
    """

    def __init__(self, job: J, out: Path, watch: Sequence[Watch], tell: Tell) -> None:
        self.job, self.out, self.watch, self.tell = job, out, watch, tell
        self.last: Path | None = None
        self.open: list[Any] = []

    def run(self, requests: Iterable[R]) -> list[S]:
        """Serve all requests; the record is written after each."""
        self._claim()
        done: list[S] = []
        for number, request in enumerate(requests, 1):
            done.append(self.one(number, request))
            write_json(self.out / RECORD, {
                "requests": [asdict(each) for each in done], "open": len(self.open),
                "model": None if self.last is None else str(self.last.relative_to(self.out)),
            })  # fmt: skip
        return done

    @abstractmethod
    def one(self, number: int, request: R) -> S:
        """Serve a request, and judge the earlier ones again."""

    def place(self, number: int) -> Path:
        """The folder of a request."""
        return self.out / f"request-{number:02d}"

    def _claim(self) -> None:
        """Make the folder, or find the same sequence in it."""
        kind = type(self.job)
        if not (self.out / JOB).exists():
            folder.check_new(self.out)
            self.out.mkdir(parents=True, exist_ok=True)
            write_bytes(self.out / JOB, self.job.to_yaml().encode())
        elif kind.load(self.out / JOB) != kind.of(**self.job.model_dump(mode="json")):
            raise BadInput(f"{self.out} was begun with another sequence; see its {JOB}")
