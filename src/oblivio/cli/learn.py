"""``oblivio learn``: a stream learned by a continual method, beside joint and naive training."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oblivio.cli import console, settings
from oblivio.cli.codes import FINISHED
from oblivio.cli.progress import Line, Look
from oblivio.cli.work import piece
from oblivio.core.errors import BadInput, Stopped
from oblivio.methods import registry
from oblivio.registry import Spec

if TYPE_CHECKING:
    from oblivio.audits.continual import Comparison
    from oblivio.core.run import Run, Watch
    from oblivio.jobs.course import Course
    from oblivio.jobs.learning import Learned, Learning


def _option(words: str, *flags: str, metavar: str | None = None, kind: Any = str) -> Any:
    return Annotated[kind | None, typer.Option(*flags, help=words, metavar=metavar, show_default=False)]


STREAM: dict[str, Any] = {
    "stream": _option(
        "KIND-DATASET, such as split-fashion_mnist, permuted-mnist, rotated-digits, blurry-cifar10_small (kinds: "
        "split, permuted, rotated, domains, blurry, si_blurry, sliding, recurring); or data sets joined by +.",
        metavar="NAME",
    ),
    "tasks": _option("How many, or a list of their classes: '[[0, 1], [2, 3, 4]]'.", metavar="N"),
    "valid": _option("Share of the training rows on which nothing is trained.", metavar="SHARE", kind=float),
    "stream_options": _option(
        "Another option of the kind of stream, as share=0.2; may be given again.",
        "--stream-option", metavar="NAME=VALUE", kind=list[str],
    ),
    "model": _option(
        "A network by name, or your own as package.module:factory; default: mlp, for colour images small-cnn."
    ),
    "hidden": _option("Widths of the hidden layers of an mlp, as 100,100.", metavar="N,N"),
}  # fmt: skip

OPTIONS: dict[str, Any] = {
    "stream": STREAM["stream"],
    "scenario": _option("class, task or domain; default: that of the kind of stream."),
    "method": _option("How; `oblivio methods` lists the continual methods."),
    "pieces": _option(
        "A piece put on the method, as cbp or cbp:rho=1e-4; may be given again.",
        "--with", metavar="PIECE", kind=list[str],
    ),
    **{name: option for name, option in STREAM.items() if name != "stream"},
    "order": _option("Seed of the order of classes; default: that of the data set.", metavar="N", kind=int),
    "trace": _option("Look at all tasks so far every K steps, for the stability gap.", metavar="K", kind=int),
    "references": Annotated[
        bool | None,
        typer.Option("--references/--no-references", show_default=False,
                     help="Run joint and naive training beside it, as upper and lower line (default)."),
    ],
    "forget": _option("Forget these rows at the end, as ids=17,99, wherever the learner holds them.", metavar="SPEC"),
    "forget_method": _option("Out of the weights too, by this method of unlearning.", metavar="NAME"),
    "seed": _option("Of weights, order of rows and all draws; default 0.", metavar="N", kind=int),
    "out": _option("A new folder, or that of the same command, which was killed; default: runs/STREAM-METHOD.",
                   metavar="DIR", kind=Path),
}  # fmt: skip

HELP = """Learn a stream of experiences, and measure all tasks after each: what is learned, kept and forgotten.

Writes the model, history.json, report.html (beside joint and naive training) and learn.json, which says how. The same
command goes on after a kill; what was learned is neither learned nor evaluated again.
{settings}"""
ALSO = "A method's settings are options too: oblivio learn --method er --help lists those of er."


def command(method: str | None) -> Callable[..., int]:
    """``learn``, with the settings of ``method`` among its options."""
    spec = None if method is None else registry.spec(method.replace("-", "_"))
    own = {} if spec is None else settings.options(spec, OPTIONS)

    def learn(**options: Any) -> int:
        job = job_of(options, spec)
        out = options["out"] or Path("runs") / f"{job.stream}-{job.method.name}"
        return run(job, out)

    learn.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in {**OPTIONS, **own}.items()
        ]
    )
    learn.__annotations__ = {}
    learn.__doc__ = HELP.format(settings="" if spec else ALSO)
    return learn


def job_of(options: Mapping[str, Any], spec: Spec | None) -> Learning:
    """The job that these options ask for. Raises BadInput where one that is needed was not given."""
    from oblivio.jobs.learning import Learning

    if not options["stream"]:
        raise BadInput("--stream is needed, such as --stream split-digits")
    if spec is None:
        raise BadInput("--method is needed, such as --method er; `oblivio methods` lists the continual methods")
    method = {"name": spec.id, "settings": settings.given(spec, options, OPTIONS),
              "pieces": [piece(words) for words in options["pieces"] or ()]}  # fmt: skip
    given = {name: options[name] for name in ("scenario", "order") if options[name] is not None}
    chosen = {name: options[name] for name in ("seed", "trace", "references") if options[name] is not None}
    if options["forget_method"] is not None and options["forget"] is None:
        raise BadInput(f"--forget-method {options['forget_method']}: say which rows with --forget ids=17,99")
    if options["forget"] is not None:
        chosen["forget"] = {"ids": ids_of(options["forget"]), "method": options["forget_method"]}
    return Learning.of(
        stream=options["stream"], method=method, options={**given, **stream_options(options)}, model=model_of(options),
        **chosen,
    )  # fmt: skip


def stream_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the stream, but for its scenario and order."""
    found = pairs(options["stream_options"] or (), "--stream-option")
    if options["tasks"] is not None:
        found["tasks"] = _value(options["tasks"])
    return found | ({} if options["valid"] is None else {"valid": options["valid"]})


def model_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The network that is asked for. Raises BadInput for widths that are no numbers."""
    if options["hidden"] is None:
        return {"name": options["model"]}
    try:
        hidden = [int(width) for width in options["hidden"].split(",")]
    except ValueError:
        raise BadInput(f"--hidden {options['hidden']}: give whole numbers, as 100,100") from None
    return {"name": options["model"] or "mlp", "options": {"hidden": hidden}}


def pairs(given: list[str] | tuple[str, ...], flag: str) -> dict[str, Any]:
    """``NAME=VALUE`` each, the values read as YAML. Raises BadInput for one without a value."""
    found = {}
    for words in given:
        name, equals, value = words.partition("=")
        if not equals or not name or not value:
            raise BadInput(f"{flag} {words}: give NAME=VALUE")
        found[name] = _value(value)
    return found


def _value(words: str) -> Any:
    import yaml

    try:
        found = yaml.safe_load(words)
    except yaml.YAMLError:
        raise BadInput(f"{words!r} is no value: it is read as YAML, as 3, 0.1, word or [1, 2]") from None
    try:
        return float(found) if isinstance(found, str) else found  # 1e-4, which YAML takes for a word
    except ValueError:
        return found


def run(job: Learning, out: Path) -> int:
    """Do a job and print what came of it."""
    from oblivio.claims.records import commit, provenance
    from oblivio.jobs import learning

    facts = {"command": words(job), **provenance(commit())}
    try:
        with Line() as line:
            done = learning.run(job, out, facts, watching(line))
    except (KeyboardInterrupt, OSError) as error:
        if learning.interrupted(out):
            raise Stopped(f"{str(error) or 'interrupted'}; go on with the same command") from None
        raise
    show(done)
    read = "report.html is to be read; " if done.results else ""
    console.out().print(f"\n{out}: {read}model/, history.json; learner/ holds its memories, learn.json says how")
    return FINISHED


def words(job: Learning) -> str:
    """The command that does this job, but for where to."""
    given: list[tuple[str, Any]] = [("--stream", job.stream), ("--method", job.method.name)]
    given += [(f"--{name.replace('_', '-')}", value) for name, value in own_settings(job).items()]
    given += [("--with", _piece(each.name, each.settings)) for each in job.method.pieces]
    kept = ("scenario", "order", "tasks", "valid")
    given += [(f"--{name}", job.options[name]) for name in kept if name in job.options]
    given += [("--stream-option", f"{name}={value}") for name, value in job.options.items() if name not in kept]
    given += [] if job.model.name is None else [("--model", job.model.name)]
    given += [("--hidden", ",".join(map(str, hidden)))] if (hidden := job.model.options.get("hidden")) else []
    given += [("--trace", job.trace)] if job.trace else []
    given += [] if job.forget is None else [("--forget", f"ids={','.join(job.forget.ids)}")]
    given += [("--forget-method", job.forget.method)] if job.forget is not None and job.forget.method else []
    line = [word for flag, value in [*given, ("--seed", job.seed)] for word in _flag(flag, value)]
    return shlex.join(["oblivio", "learn", *line, *["--no-references"] * (not job.references)])


def own_settings(job: Learning) -> dict[str, Any]:
    """The settings that were given, by the names of their options."""
    keyword = settings.keywords(registry.spec(job.method.name), OPTIONS)
    return {keyword[name]: value for name, value in job.method.settings.items()}


def _flag(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, str(value)]


def _piece(name: str, given: Mapping[str, Any]) -> str:
    return name + ":" * bool(given) + ",".join(f"{key}={value}" for key, value in given.items())


def ids_of(spec: str) -> list[str]:
    """``ids=17,99`` as a list of words. Raises BadInput for anything else."""
    kind, _, listed = spec.partition("=")
    found = [word.strip() for word in listed.split(",") if word.strip()]
    if kind != "ids" or not found:
        raise BadInput(f"--forget {spec}: name the rows by their ids, as ids=17,99")
    return found


def watching(line: Line) -> Callable[[Course], list[Watch]]:
    """Progress of a course, experience by experience."""

    def of(course: Course) -> list[Watch]:
        def label(run: Run) -> str:
            of = f"{course.stream.scenario}, seed {course.seed}, {course.name}"
            return f"{of}: experience {run.problem.turn} of {len(course.experiences)}"

        return [Look(line, label)]

    return of


# --- what is printed


def show(done: Learned) -> None:
    """The matrix of accuracies with its figures, and the method beside joint and naive training."""
    console.out().print(done.outcome.history.table(), soft_wrap=True)
    if done.results is not None:
        compare(done.results)
    if done.forgotten is not None:
        console.out().print(f"{done.forgotten}\naverage accuracy {100 * done.after:.1f}% after it", soft_wrap=True)


def compare(results: Comparison) -> None:
    """A table for each scenario: joint training first, naive last, the best method first between them."""
    from oblivio.audits.continual.page import HEADS, heads, ordered, row

    for scenario in results.scenarios:
        columns = heads(results, scenario)
        shown = console.table(f"{scenario}-incremental", *(f">{HEADS[column]}" for column in columns), ">seeds")
        for method in ordered(results, scenario):
            cells = row(results, scenario, method, columns).cells
            seeds = len(results.of(scenario, method))
            shown.add_row(method, *(cell.text.replace("\N{NO-BREAK SPACE}", "") for cell in cells), str(seeds))
        console.out().print(shown)
        for note in results.uninformative(scenario):
            console.out().print(f"note: {note}")
