"""The runner of claims: measure and judge them, keep the records, measure again and compare.

Only what runs a claim imports torch; ``names`` and ``table`` do not.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oblivio.claims import records
from oblivio.claims.claim import Claim, Measure, Method, Rejected, judge
from oblivio.claims.records import Numbers, Record
from oblivio.core.errors import BadInput, nearest

LEAST = 3  # seeds that a verdict needs
DIGITS = 6  # decimals of a figure
CHEAP = 20  # seconds that tests may take to measure a seed again


def names() -> list[str]:
    """The ids of all claims, in alphabetical order: the files of this package that define ``CLAIM``."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if re.search(r"^CLAIM = ", file.read_text(), re.MULTILINE))


def load(name: str) -> Claim:
    """The claim of this id. Raises BadInput with the nearest id, Rejected where the claim asserts nothing."""
    if name not in names():
        raise BadInput(f"there is no claim {name!r}{nearest(name, names())}")
    claim: Claim = importlib.import_module(f"oblivio.claims.{name}").CLAIM
    return claim


def run(ids: Sequence[str] = (), *, seeds: int = LEAST, fast: bool = False,
        report: Callable[[Record], None] | None = None) -> list[Record]:  # fmt: skip
    """Measure claims and write their records.

    Args:
        ids: which; none means all.
        seeds: 0, 1, ...: how many.
        fast: one seed, and less work where the claim has a cheaper form; no control, no verdict, nothing written.
        report: called with each record as soon as it is there.

    Raises:
        BadInput: an unknown id, or fewer seeds than a verdict needs.
        Rejected: a claim that holds of its control; it leaves no record.
    """
    if seeds < LEAST and not fast:
        raise BadInput(f"--seeds {seeds}: a verdict needs at least {LEAST}; --fast takes one and gives no verdict")
    claims = {name: load(name) for name in ids or names()}
    made = []
    for name, claim in claims.items():
        record = look(name, claim) if fast else examine(name, claim, range(seeds))
        if not fast:
            records.write(record)
        if report is not None:
            report(record)
        made.append(record)
    return made


def table() -> dict[str, Record | None]:
    """Every claim with its record, or None where it was never run."""
    return {name: records.read(name) if records.path(name).exists() else None for name in names()}


def verify(name: str, *, fast: bool = False) -> list[str]:
    """Measure a claim again and say what is not as recorded; nothing where all is within the claim's tolerance.

    Args:
        name: of the claim.
        fast: its first seed alone.

    Raises:
        BadInput: an unknown id, or a claim without a record, or without a fast form that measures the same.
    """
    claim, old = load(name), records.read(name)
    if fast and claim.fast is not None:
        raise BadInput(f"the fast form of {name} measures other figures than its record holds")
    new = look(name, claim) if fast else examine(name, claim, old.seeds)
    return differences(old, new, claim.tolerance)


def differences(old: Record, new: Record, tolerance: float) -> list[str]:
    """Where a record made now differs from the one before by more than ``tolerance``, a sentence each.

    Seeds and controls that the new one does not have are not compared.
    """
    found = _apart("", old.seeds, old.figures, new.seeds, new.figures, tolerance)
    for what, control in new.control.items():
        before = old.control.get(what, {"figures": {}})["figures"]
        found += _apart(f"control, {what}: ", old.seeds, before, new.seeds, control["figures"], tolerance)
    if new.verdict is not None and new.verdict != old.verdict:
        found.append(f"it {new.verdict} now; recorded is that it {old.verdict}")
    return found


def _apart(where: str, seeds: Sequence[int], old: Numbers, now: Sequence[int], new: Numbers, most: float) -> list[str]:
    found = [f"{where}{name} is recorded and no longer measured" for name in old if name not in new]
    for name, values in new.items():
        before = dict(zip(seeds, old.get(name, ()), strict=False))
        for seed, value in zip(now, values, strict=True):
            if seed not in before:
                found.append(f"{where}{name} of seed {seed} is not recorded")
            elif not abs(value - before[seed]) <= most * max(1, abs(before[seed])):
                found.append(f"{where}{name} of seed {seed} is {value:g}, recorded {before[seed]:g}; at most {most:g} "
                             "apart was stated")  # fmt: skip
    return found


def cheap() -> list[str]:
    """The claims of which one seed measures what their records hold, and took at most ``CHEAP`` seconds then."""
    return [name for name, record in table().items() if record is not None and _seed(record) <= CHEAP
            and load(name).fast is None]  # fmt: skip


def _seed(record: Record) -> float:
    """Seconds of one seed of one method: a record has those of all seeds, of the claim and its controls."""
    return record.seconds / (len(record.seeds) * (1 + len(record.control)))


def tenth(commit: str) -> list[str]:
    """A tenth of the cheap claims, at least one, chosen by the commit."""
    known = cheap()
    return sorted(random.Random(commit).sample(known, max(1, len(known) // 10)))


# --- one claim


@dataclass(frozen=True)
class _Start:
    """When and on what commit a measurement began: the code may change while it runs."""

    command: str
    time: float = field(default_factory=time.monotonic)
    commit: str = field(default_factory=lambda: records.commit())

    def record(self, name: str, verdict: str | None, seeds: Sequence[int], figures: Numbers,
               control: dict[str, Any], reason: str) -> Record:  # fmt: skip
        """The record of what began here and ends now."""
        seconds = round(time.monotonic() - self.time, 1)
        with _one_thread():
            made = records.provenance(self.commit)
        return Record(name, verdict, list(seeds), figures, control, reason, self.command, seconds, **made)


def examine(name: str, claim: Claim, seeds: Sequence[int]) -> Record:
    """Measure a claim and its controls over these seeds, and judge it. Raises Rejected where a control passes."""
    start = _Start(f"oblivio claims run {name} --seeds {len(seeds)}")
    figures = _measured(claim.measure, claim.method, seeds)
    judgement = judge(claim, figures)
    control = {what: _control(claim, method, seeds) for what, method in claim.controls.items()}
    for what, found in control.items():
        if found["verdict"] == "holds":
            raise Rejected(f"claim {name} holds of its control too ({what}): {found['reason']}; it shows nothing")
    return start.record(name, judgement.verdict, seeds, figures, control, judgement.reason)


def look(name: str, claim: Claim) -> Record:
    """One seed of a claim in its cheapest form, without a control or a verdict."""
    start = _Start(f"oblivio claims run {name} --fast")
    figures = _measured(claim.fast or claim.measure, claim.method, [0])
    return start.record(name, None, [0], figures, {}, judge(claim, figures, partly=True).reason)


def _control(claim: Claim, method: Method, seeds: Sequence[int]) -> dict[str, Any]:
    figures = _measured(claim.measure, method, seeds)
    judgement = judge(claim, figures)
    return {"verdict": judgement.verdict, "figures": figures, "reason": judgement.reason}


def _measured(measure: Measure, method: Method, seeds: Sequence[int]) -> dict[str, list[float]]:
    with _one_thread():
        each = [measure(method, seed) for seed in seeds]
    return {name: [round(float(figures[name]), DIGITS) for figures in each] for name in each[0]}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums have one order, so that a record does not depend on the number of cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
