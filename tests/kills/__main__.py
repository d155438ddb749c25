"""All kills and all failures, and the record of them: ``python -m kills --json FILE``."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from kills.operations import FAILURES
from kills.server import Server
from kills.trials import FINISHED, KILLED, Job, Kill
from oblivio.claims.records import commit, provenance
from oblivio.core.files import read_json, write_json

Trial: TypeAlias = Callable[[], None]

SYNCED = ("write", "fsync", "rename")  # before and after each of these; before every other operation
FAILING = (*SYNCED, "open", "flush", "mkdir")
EACH = 12  # kills by time in each stage
CHAINS = 12  # jobs that are killed three times
LATE = 5  # attempts at a kill by time


class Record:
    """Counts, as they come in."""

    def __init__(self) -> None:
        self.stages: dict[str, Counter[str]] = {}
        self.operations: Counter[str] = Counter()
        self.failures: dict[str, Counter[str]] = {how: Counter() for how in FAILURES}
        self.clearings = 0
        self.wrong: list[str] = []

    def add(self, stage: str | None, moment: str, kind: str = "") -> None:
        """A kill, if it came in time."""
        if stage is not None:
            self.stages.setdefault(stage, Counter())[moment] += 1
            self.operations[f"{moment} {kind}".strip()] += 1

    @property
    def kills(self) -> int:
        """So far."""
        return sum(sum(moments.values()) for moments in self.stages.values())

    def facts(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "kills": self.kills,
            "kills by stage": {stage: sum(moments.values()) for stage, moments in self.stages.items()},
            "kills by stage and moment": {stage: dict(moments) for stage, moments in self.stages.items()},
            "kills by operation": dict(self.operations),
            "kills while the cache was cleared": self.clearings,
            "failures": {how: dict(kinds) for how, kinds in self.failures.items()},
            "not as it must be": self.wrong,
        }


def kills(job: Job) -> Iterator[Kill]:
    """One before every operation; amid each write; after each write, fsync and rename; loss of power at each fsync."""
    for at, operation in enumerate(job.operations):
        yield Kill(at, "before")
        if operation.kind == "write":
            yield Kill(at, "half")
        if operation.kind in SYNCED:
            yield Kill(at, "after")
        if operation.kind == "fsync":
            yield Kill(at, "power")


# --- trials, to be called one after the other


def at_operations(job: Job, record: Record, step: int = 1) -> Iterator[Trial]:
    def trial(kill: Kill) -> None:
        (stage,) = job.killed(kill)
        assert stage is not None, f"there was no operation {kill.at}"
        record.add(stage, kill.moment, job.operations[kill.at or 0].kind)

    return (partial(trial, kill) for kill in list(kills(job))[::step])


def at_times(job: Job, record: Record, draws: random.Random) -> Iterator[Trial]:
    """``EACH`` for each line of the log that a run writes, at a random time until the next; sooner if that was late."""

    def trial(lines: int, aim: str) -> None:
        for sooner in range(LATE):
            (stage,) = job.killed(Kill(lines=lines, seconds=draws.uniform(0, job.pauses[lines]) / 2**sooner))
            record.add(stage, "time")
            if stage == aim:
                return

    return (partial(trial, lines, aim) for lines, aim in enumerate(job.stages) for _ in range(EACH))


def chains(job: Job, record: Record, draws: random.Random) -> Iterator[Trial]:
    """Three kills of one job: what is killed next is the resumed one."""

    def trial() -> None:
        some = [Kill(draws.randrange(len(job.operations) // 3), draws.choice(["before", "after"])) for _ in range(3)]
        for kill, stage in zip(some, job.killed(*some), strict=True):
            record.add(stage, f"{kill.moment}, one of three")

    return (trial for _ in range(CHAINS))


def failures(job: Job, record: Record) -> Iterator[Trial]:
    """A full disk and denied writes, from each operation on."""

    def trial(how: str, at: int, kind: str) -> None:
        job.fails(at, how)
        record.failures[how][kind] += 1

    for how in FAILURES:
        yield from (partial(trial, how, at, o.kind) for at, o in enumerate(job.operations) if o.kind in FAILING)


def clearings(job: Job, record: Record) -> Iterator[Trial]:
    """The cache is cleared while a training lies there unfinished; a kill of that leaves nothing in the way."""

    def trial(at: int) -> None:
        assert job.cleared((at, "before")) == KILLED
        record.clearings += 1

    assert job.cleared(None) == FINISHED
    number = len(read_json(job.folder / str(job.trials) / "cleared.json")["seen"])
    return (partial(trial, at) for at in range(number))


def everything(server: Server, folder: Path, record: Record) -> None:
    """Each trial on its own: one that is not as it must be is noted, and the next one begins."""
    trained = Job(server, folder / "trained")
    weights = folder / "original.safetensors"
    shutil.copy(next((folder / "trained" / "1" / "cache").rglob("model.safetensors")), weights)
    given = Job(server, folder / "given", method="npo", original=weights, steps=6)
    draws = random.Random(0)
    for name, job, trials in (
        ("operations", trained, at_operations(trained, record)),
        ("operations, weights given", given, at_operations(given, record, 5)),
        ("times", trained, at_times(trained, record, draws)),
        ("times, weights given", given, at_times(given, record, draws)),
        ("three kills", trained, chains(trained, record, draws)),
        ("failures", trained, failures(trained, record)),
        ("clearings", trained, clearings(trained, record)),
    ):
        began = time.monotonic()
        for trial in trials:
            before = job.trials
            try:
                trial()
                for number in range(before, job.trials):
                    shutil.rmtree(job.folder / str(number + 1))
            except (AssertionError, ValueError, OSError) as error:
                record.wrong.append(f"{name}, trial {job.trials}: {error}")
        print(f"{name}: {record.kills} kills so far, {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m kills")
    words.add_argument("--json", type=Path)
    asked = words.parse_args()
    began, since, record = time.monotonic(), commit(), Record()
    with tempfile.TemporaryDirectory() as name, Server() as server:
        everything(server, Path(name), record)
    for line in record.wrong:
        print(line, file=sys.stderr)
    took = {"command": "make kills", "seconds": round(time.monotonic() - began)}
    facts = took | record.facts() | provenance(since)
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(asked.json, facts)
    return 1 if record.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
