"""The page of claims: what each says, what must hold, and what its record shows, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from oblivio.claims import runner
from oblivio.claims.claim import Claim
from oblivio.claims.records import Record


def text() -> str:
    """All claims: a table of verdicts, and a section for each."""
    records = runner.table()
    verdicts = _table(["claim", "verdict", "seeds"], (_verdict(name, record) for name, record in records.items()))
    sections = (section(name, runner.load(name), record) for name, record in records.items())
    return "\n\n".join([verdicts, *sections])


def _verdict(name: str, record: Record | None) -> list[str]:
    if record is None:
        return [f"[{name}](#{name})", "not yet run", ""]
    return [f"[{name}](#{name})", str(record.verdict), ", ".join(map(str, record.seeds))]


def section(name: str, claim: Claim, record: Record | None) -> str:
    """One claim, from its file and its record."""
    parts = [f"## {name}", claim.says, f"Trained: {claim.trained}."]
    parts += _conditions("Must hold of the mean over the seeds:", claim.holds)
    parts += _conditions("Must hold of every seed:", claim.always)
    if claim.changed:
        rows = ([c.what, c.card, c.here, c.why] for c in claim.changed)
        parts.append(_table(["changed", "in the card", "here", "because"], rows))
    if record is not None:
        parts += _found(record)
    return "\n\n".join(parts)


def _conditions(title: str, conditions: Sequence[str]) -> list[str]:
    return [title, "\n".join(f"- `{text}`" for text in conditions)] if conditions else []


def _found(record: Record) -> list[str]:
    rows = [[f"`{n}`", _number(fmean(v)), ", ".join(map(_number, v))] for n, v in record.figures.items()]
    return [
        f"It {record.verdict}: {record.reason}.",
        _table(["figure", "mean", "by seed"], rows),
        *(f"Control, {what}: {found['verdict']}." for what, found in record.control.items()),
        f"`{record.command}`",
    ]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
