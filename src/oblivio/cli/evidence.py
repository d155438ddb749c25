"""``oblivio claims`` and ``oblivio bench``: the evidence, made and read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oblivio.cli import console, learn
from oblivio.cli.codes import FAILED, FINISHED, REJECTED
from oblivio.cli.progress import Line
from oblivio.cli.records import NOT_RUN
from oblivio.core.errors import BadInput, nearest

if TYPE_CHECKING:
    from oblivio.bench.continual import Found
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


def continual(
    stream: Annotated[str, typer.Option(metavar="NAME", help="KIND-DATASET, as `oblivio learn` has it.")],
    scenario: Annotated[str, typer.Option(metavar="S,S", help="Of class, task and domain.")] = "class",
    methods: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Only these; default: all continual methods.")
    ] = None,
    but: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="All methods but these.")] = None,
    shared: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of all methods that have it; may be given again."),
    ] = None,
    buffer: Annotated[
        int | None, typer.Option(metavar="N", help="Rows that each method stores that stores any.")
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES", help="In place of that, bytes of these rows with all that is stored beside them."
        ),
    ] = None,
    tuned: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Settings of single methods, a JSON file each.")
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="So many; an interval needs two.")] = 3,
    tasks: Annotated[str | None, typer.Option(metavar="N", help="How many.")] = None,
    valid: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the training rows, on which nothing is trained.")
    ] = None,
    stream_options: Annotated[
        list[str] | None,
        typer.Option("--stream-option", metavar="NAME=VALUE", help="Of the kind of stream; may be given again."),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="A network; default: as `oblivio learn`.")] = None,
    hidden: Annotated[str | None, typer.Option(metavar="N,N", help="Widths of an mlp, as 100,100.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: results/continual.")] = None,
) -> int:
    """Compare continual methods on a stream, with joint and naive training: mean and 95% interval over seeds, cost.

    Writes STREAM.json and STREAM.html. What is done is kept: a comparison that was stopped goes on where it was. Exit
    code 1 where a method failed; the others are in the table all the same.
    """
    from oblivio.bench import comparison, continual
    from oblivio.claims.records import ROOT, commit, provenance

    given = {"stream_options": stream_options, "tasks": tasks, "valid": valid, "model": model, "hidden": hidden}
    net = learn.model_of(given)
    settings = {} if tuned is None else comparison.tuned(tuned)
    names = listed(methods) or [n for n in continual.all_methods() if tuned is None or n in settings]
    plan = continual.Plan(
        stream, listed(scenario), [n for n in names if n not in listed(but)], seeds, learn.stream_options(given),
        learn.pairs(shared or (), "--set"), settings, buffer, memory, net["name"], net.get("options", {}),
    )  # fmt: skip
    since = commit()
    with Line() as line:
        found = continual.compare(plan, line.show, learn.watching(line))
    if found.comparison is not None:
        learn.compare(found.comparison)
    told(found)
    settings_in = tuned.name if tuned is not None and tuned.is_absolute() else tuned
    words = {"stream": stream, "scenario": scenario, "methods": methods, "but": but, "set": shared, "buffer": buffer,
             "memory": memory, "tuned": settings_in, "seeds": seeds, "tasks": tasks, "valid": valid,
             "stream-option": stream_options, "model": model, "hidden": hidden}  # fmt: skip
    facts = {"command": f"oblivio bench continual {flags(words)}", **provenance(since)}
    if found.comparison is not None:
        folder = out or ROOT / "results" / "continual"
        continual.write(folder, found, facts)
        console.out().print(f"{folder / stream}.html is to be read, {stream}.json has every figure of every seed")
    return FAILED if found.failed else FINISHED


def flags(words: Mapping[str, Any]) -> str:
    """Options as they are typed; a list is one that is given again, None one that was not given."""
    pairs = [(name, each) for name, value in words.items() for each in (value if isinstance(value, list) else [value])]
    return shlex.join(word for name, value in pairs if value is not None for word in (f"--{name}", str(value)))


def listed(words: str | None) -> list[str]:
    """``a,b`` as a list, with ``_`` for ``-`` in names."""
    return [word.strip().replace("-", "_") for word in (words or "").split(",") if word.strip()]


def told(found: Found) -> None:
    """What is not in the table, and why."""
    for name, why in found.failed.items():
        console.out().print(f"failed: {name}: {why}")
    for name, why in found.refused.items():
        console.out().print(f"not run: {name}: {why}")
    for note in found.notes:
        console.out().print(f"note: {note}")


def tune(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A name from `oblivio methods`.")],
    problem: Annotated[
        list[str] | None, typer.Option("--problem", metavar="ID", help="A standard problem; may be given again.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a continual method: KIND-DATASET, as `oblivio learn` has it.")
    ] = None,
    scenario: Annotated[str, typer.Option(metavar="S", help="Of the stream: class, task or domain.")] = "class",
    shared: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="On a stream: a setting that is not searched, as epochs=20."),
    ] = None,
    buffer: Annotated[int | None, typer.Option(metavar="N", help="On a stream: rows that the method stores.")] = None,
    tasks: Annotated[str | None, typer.Option(metavar="N", help="Of the stream: how many.")] = None,
    valid: Annotated[float, typer.Option(metavar="SHARE", help="Of the rows of the stream, to validate on.")] = 0.1,
    hidden: Annotated[
        str | None, typer.Option(metavar="N,N", help="On a stream: widths of an mlp, as 100,100.")
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", help="Settings that are tried, the defaults first.")] = 20,
    space: Annotated[
        list[str] | None,
        typer.Option("--space", metavar="NAME=LOW:HIGH", help="Another range of a setting; may be given again."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all trials there too.")] = None,
) -> int:
    """Search the settings of a method, on validation rows and on seeds that nothing reports.

    What is minimised is the distance of `oblivio bench unlearning`; of a continual method the average accuracy is
    maximised, at the epochs, batches and stored rows that are given. Needs oblivio[tune].
    """
    if json is not None and not json.absolute().parent.is_dir():
        raise BadInput(f"--json {json}: there is no folder {json.parent}")
    given = {name: words for name, _, words in (pair.partition("=") for pair in space or ())}
    name = method.replace("-", "_")
    if problem and stream is None:
        return tuned_on_problems(name, problem, trials, given, json)
    if stream is None or problem:
        raise BadInput("tune: give --problem, or --stream for a continual method; `oblivio problems` lists problems")
    return tuned_on_stream(
        name, stream, scenario, trials, given, json, shared=shared, buffer=buffer, tasks=tasks, valid=valid,
        hidden=hidden,
    )  # fmt: skip


def tuned_on_problems(method: str, problem: list[str], trials: int, given: Mapping[str, str], json: Path | None) -> int:
    """Search on standard problems; print and write what was found."""
    from oblivio.bench import tuning
    from oblivio.core.files import write_json

    with Line() as line:
        found = tuning.tune(method, problem, trials=trials, given=given, tell=line.show)
    settings_found(method, found.settings)
    console.out().print(f"distance {found.default:.3f} at the defaults, {found.distance:.3f} at the settings found")
    if json is not None:
        write_json(json, found.to_json())
    return FINISHED


def tuned_on_stream(
    method: str, stream: str, scenario: str, trials: int, given: Mapping[str, str], json: Path | None, *,
    shared: list[str] | None, buffer: int | None, tasks: str | None, valid: float, hidden: str | None,
) -> int:  # fmt: skip
    """Search on the validation rows of a stream; print and write what was found."""
    from oblivio.bench import continual, continual_tuning
    from oblivio.claims.records import commit, provenance
    from oblivio.core.files import write_json

    options = {"stream_options": None, "tasks": tasks, "valid": valid, "model": None, "hidden": hidden}
    net, since = learn.model_of(options), commit()
    plan = continual.Plan(
        stream, [scenario], [method], options=learn.stream_options(options), shared=learn.pairs(shared or (), "--set"),
        rows=buffer, model=net["name"], model_options=net.get("options", {}),
    )  # fmt: skip
    with Line() as line:
        found = continual_tuning.tune(plan, trials=trials, given=given, tell=line.show)
    settings_found(method, found.settings)
    shares = f"{100 * found.default:.1f}% at the defaults, {100 * found.accuracy:.1f}% at the settings found"
    console.out().print(f"average accuracy {shares}")
    words = {"stream": stream, "scenario": scenario, "set": shared, "buffer": buffer, "tasks": tasks, "valid": valid,
             "hidden": hidden, "trials": trials, "space": [f"{n}={w}" for n, w in given.items()]}  # fmt: skip
    if json is not None:
        facts = {"command": f"oblivio tune {method} {flags(words)}", **provenance(since)}
        write_json(json, {**found.to_json(), **facts})
    return FINISHED


def settings_found(method: str, found: Mapping[str, Any]) -> None:
    """What was found beside the defaults."""
    from oblivio.bench.tuning import default

    shown = console.table("setting", ">default", ">found")
    for name, value in found.items():
        both = (default(method, name), value)
        shown.add_row(name, *(f"{each:.3g}" if isinstance(each, float) else str(each) for each in both))
    console.out().print(shown)


def speed(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these; default: all.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures there too.")] = None,
    config: Annotated[
        str, typer.Option(metavar="SIZE", help="Of language: tiny, or 1b, which needs an accelerator.")
    ] = "tiny",
) -> int:
    """Measure against bare loops that make the same passes; exit code 1 where a limit is missed."""
    from oblivio.bench import speed

    for name in names or ():
        if name not in speed.BENCHES:
            raise BadInput(f"there is no bench {name!r}{nearest(name, speed.BENCHES)}")
    if json is not None and not json.absolute().parent.is_dir():
        raise BadInput(f"--json {json}: there is no folder {json.parent}")
    return speed.main(json, tuple(names or ()), config)
