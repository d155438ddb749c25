"""``oblivio claims`` and ``oblivio bench``: the evidence, made and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oblivio.cli import console
from oblivio.cli.codes import FAILED, FINISHED, REJECTED
from oblivio.cli.progress import Line
from oblivio.cli.records import NOT_RUN
from oblivio.core.errors import BadInput, nearest

if TYPE_CHECKING:
    from oblivio.claims.records import Record


def run(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Only these; default: all.")] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="So many; a verdict needs three.")] = 3,
    fast: Annotated[bool, typer.Option("--fast", help="One seed, less work; no verdict, no record.")] = False,
) -> int:
    """Measure claims, judge them, and write the records to results/claims.

    Exit code 3 where a claim holds of its own control too: it shows nothing and leaves no record.
    """
    from oblivio.claims import runner
    from oblivio.claims.claim import Rejected

    todo = ids or runner.names()
    done: list[Record] = []

    def tell(record: Record) -> None:
        done.append(record)
        console.out().print(f"{record.id}: {record.verdict or 'no verdict'} ({record.seconds:.0f} s); {record.reason}")
        line.show("claims", len(done), len(todo), note=todo[len(done)] if len(done) < len(todo) else "")

    with Line() as line:
        line.show("claims", 0, len(todo), note=todo[0])
        try:
            runner.run(todo, seeds=seeds, fast=fast, report=tell)
        except Rejected as rejected:
            return console.complain(str(rejected), REJECTED)
    return FINISHED


def table() -> None:
    """List all claims with the verdicts of their records, and what failed of those that do not hold."""
    from oblivio.claims import runner

    shown = console.table("claim", "verdict", ">seeds", "what failed")
    for name, record in runner.table().items():
        if record is None:
            shown.add_row(name, NOT_RUN)
        else:
            shown.add_row(name, record.verdict, str(len(record.seeds)), failed(record.reason))
    console.out().print(shown)


def failed(reason: str) -> str:
    """The conditions that failed, of a reason that has them first."""
    return "; ".join(part.removeprefix("failed: ") for part in reason.split("; ") if part.startswith("failed: "))


def verify(
    claim: Annotated[str, typer.Argument(metavar="ID", help="As `oblivio claims table` lists them.")],
    fast: Annotated[bool, typer.Option("--fast", help="Its first seed alone.")] = False,
) -> int:
    """Measure a claim again and compare with its record; exit code 1 where figures or verdict differ."""
    from oblivio.claims import runner

    with Line(f"claim {claim}"):
        differences = runner.verify(claim, fast=fast)
    for difference in differences:
        console.out().print(difference)
    if not differences:
        console.out().print(f"{claim}: as recorded, within the claim's tolerance")
    return FAILED if differences else FINISHED


def speed(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these; default: all.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures there too.")] = None,
) -> int:
    """Measure against bare loops that make the same passes; exit code 1 where a limit is missed."""
    from oblivio.bench import speed

    for name in names or ():
        if name not in speed.BENCHES:
            raise BadInput(f"there is no bench {name!r}{nearest(name, speed.BENCHES)}")
    if json is not None and not json.absolute().parent.is_dir():
        raise BadInput(f"--json {json}: there is no folder {json.parent}")
    return speed.main(json, tuple(names or ()))
