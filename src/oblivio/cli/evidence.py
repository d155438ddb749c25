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


def unlearning(
    problem: Annotated[str, typer.Option(metavar="ID", help="A standard problem; `oblivio problems` lists them.")],
    methods: Annotated[
        list[str] | None, typer.Option("--method", metavar="NAME", help="Only this; may be given again.")
    ] = None,
    but: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="All methods but this; may be given again.")
    ] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Settings found by `oblivio tune --json`; only the methods with such."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="So many; an interval needs two.")] = 3,
    references: Annotated[int, typer.Option(metavar="N", help="Retrained models for each seed.")] = 3,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: results/bench/unlearning.")] = None,
) -> int:
    """Compare methods on a standard problem: rank, verdicts, mean and 95% interval over seeds, cost.

    Writes ID.json and ID.svg. What is done is kept: a comparison that was stopped goes on where it was.
    """
    from oblivio.bench import comparison, standing
    from oblivio.claims.records import ROOT, commit, provenance
    from oblivio.core.files import write_bytes, write_json

    settings = {} if tuned is None else comparison.tuned(tuned)
    known = [name for name in comparison.all_methods() if tuned is None or name in settings]
    names = [name for name in methods or known if name not in (but or ())]
    plan = comparison.Plan(problem, names, seeds, references, settings)
    comparison.check(plan)
    minutes = comparison.expected(plan) / 60
    console.out().print(f"expected: about {minutes:.0f} min on one core if nothing is kept from before")
    since = commit()
    with Line() as line:
        found = comparison.compare(plan, line.show)
    shown = console.table(*standing.heads(found))
    for cells in standing.rows(found):
        shown.add_row(*cells)
    console.out().print(shown)
    for name, why in found.refused.items():
        console.out().print(f"not run: {name}: {why}")
    most = max((n for *_, n in found.made), default=0)
    console.out().print(f"passes that several methods need (importance, outputs of the start): each made {most} time")
    folder = out or ROOT / "results" / "bench" / "unlearning"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [f"--method {name}" for name in methods or ()] + [f"--but {name}" for name in but or ()]
    chosen += [] if tuned is None else [f"--tuned {tuned.name if tuned.is_absolute() else tuned}"]
    name = problem if tuned is None else f"{problem}-tuned"
    words = ["oblivio bench unlearning --problem", problem, *chosen, "--seeds", seeds, "--references", references]
    command = " ".join(map(str, words))
    write_json(folder / f"{name}.json", {**found.to_json(), "command": command, **provenance(since)})
    write_bytes(folder / f"{name}.svg", standing.svg(found).encode())
    return FINISHED


def tune(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A name from `oblivio methods`.")],
    problem: Annotated[
        list[str], typer.Option("--problem", metavar="ID", help="A standard problem; may be given again.")
    ],
    trials: Annotated[int, typer.Option(metavar="N", help="Settings that are tried, the defaults first.")] = 20,
    space: Annotated[
        list[str] | None,
        typer.Option("--space", metavar="NAME=LOW:HIGH", help="Another range of a setting; may be given again."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all trials there too.")] = None,
) -> int:
    """Search the settings of a method, on validation rows and on seeds that nothing reports.

    What is minimised is the distance of `oblivio bench unlearning`. Needs oblivio[tune].
    """
    from oblivio.bench import tuning
    from oblivio.core.files import write_json

    if json is not None and not json.absolute().parent.is_dir():
        raise BadInput(f"--json {json}: there is no folder {json.parent}")
    given = {name: words for name, _, words in (pair.partition("=") for pair in space or ())}
    with Line() as line:
        found = tuning.tune(method.replace("-", "_"), problem, trials=trials, given=given, tell=line.show)
    shown = console.table("setting", ">default", ">found")
    for name, value in found.settings.items():
        both = (tuning.default(found.method, name), value)
        shown.add_row(name, *(f"{each:.3g}" if isinstance(each, float) else str(each) for each in both))
    console.out().print(shown)
    console.out().print(f"distance {found.default:.3f} at the defaults, {found.distance:.3f} at the settings found")
    if json is not None:
        write_json(json, found.to_json())
    return FINISHED


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
