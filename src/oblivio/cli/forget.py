"""``oblivio forget``, ``resume`` and ``init``: the main job."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oblivio.cli import console, language, settings
from oblivio.cli.codes import FINISHED, INCONCLUSIVE, REJECTED
from oblivio.cli.progress import Line, Look
from oblivio.core.errors import BadInput, Stopped
from oblivio.methods import registry
from oblivio.registry import Spec

if TYPE_CHECKING:
    from oblivio.audits.report import Report
    from oblivio.core.run import Run
    from oblivio.jobs.job import Job


def _option(words: str, *flags: str, metavar: str | None = None, kind: Any = str) -> Any:
    return Annotated[kind | None, typer.Option(*flags, help=words, metavar=metavar, show_default=False)]


OPTIONS: dict[str, Any] = {
    "job": Annotated[
        Path | None,
        typer.Argument(
            metavar="JOB.yaml",
            show_default=False,
            help="A job file, as `oblivio init` prints one; options beside it win.",
        ),
    ],
    "data": _option(
        "A data set by name, a .csv or .parquet file, a folder of images, hub:REPOSITORY, or package.module:function."
    ),
    "model": _option("A network by name, or your own as package.module:factory."),
    "weights": _option(
        "The trained weights (.safetensors), or a folder saved by oblivio. Without them the original is trained first, "
        "and kept for the next time.",
        metavar="PATH",
    ),
    "forget": _option(
        "What goes: class=3, ids=FILE, random=0.05, group=north, where='age > 60'.", metavar="SPEC"
    ),
    "method": _option("How; `oblivio methods` lists them. auto: from cheap to dear, until one is accepted."),
    "pieces": _option(
        "A piece put on the method, as sam or sam:rho=0.05; may be given again.",
        "--with", metavar="PIECE", kind=list[str],
    ),
    "references": _option("So many models retrained without the rows, to compare with.", metavar="N", kind=int),
    "goal": _option("retrained (as if never seen; default), clean (as if never poisoned) or chance (suppressed)."),
    "with_duplicates": _option("Forget kept rows of equal content too.", "--with-duplicates", kind=bool),
    "rows": Annotated[
        bool | None,
        typer.Option("--rows/--no-rows", help="Write ids and figures of every row too (default).", show_default=False),
    ],
    "retain": _option("Of a language model's texts: the part that stays, as retain90 of tofu.", metavar="PART"),
    "adapter": _option("Of a language model: what alone may move (lora).", metavar="KIND"),
    "audit": _option("lm: judge it as a language model. Known by itself from the data or the model.", metavar="KIND"),
    "attacks": _option("On a language model, beside relearning: prompts,quantize,sample,early.", metavar="LIST"),
    "show_texts": _option("Write what was asked and said to texts.jsonl; else no text leaves the run.", "--show-texts",
                          kind=bool),
    "fast": _option("A small form of all that is generated or trained here, for a look.", "--fast", kind=bool),
    "seed": _option("Of all randomness; default 0.", metavar="N", kind=int),
    "out": _option(
        "A new folder for the model and its report; default: runs/ and the name of the job file or method.",
        metavar="DIR", kind=Path,
    ),
}  # fmt: skip

PLACES = {
    "data": ("data", "name"),
    "model": ("model", "name"),
    "weights": ("model", "weights"),
    "forget": ("forget", "rows"),
    "goal": ("forget", "goal"),
    "with_duplicates": ("forget", "with_duplicates"),
    "method": ("method", "name"),
    "pieces": ("method", "pieces"),
    "settings": ("method", "settings"),
    "references": ("references", "count"),
    "rows": ("audit", "rows"),
    "seed": ("seed",),
}  # of each option in a job

STYLES = {"outcome": "bold cyan", "original": "", "reference": "green", "control": "dim"}  # of kinds of models
WORDS = {"ACCEPTED": "bold green", "REJECTED": "bold red", "INCONCLUSIVE": "bold yellow"}
CODES = {"ACCEPTED": FINISHED, "REJECTED": REJECTED, "INCONCLUSIVE": INCONCLUSIVE}

HELP = """Make a model forget rows, and judge it beside models that never saw them.

Either a job file, or --data, --model, --forget and --method. Exit code 0: ACCEPTED; 3: REJECTED; 4: INCONCLUSIVE.
{settings}"""
ALSO = "A method's settings are options too: oblivio forget --method salun --help lists those of salun."


def command(method: str | None) -> Callable[..., int]:
    """``forget``, with the settings of ``method`` among its options."""
    spec = None if method in (None, "auto") else registry.spec(method.replace("-", "_"))
    own = {} if spec is None else settings.options(spec, OPTIONS)

    def forget(**options: Any) -> int:
        if language.asked(options):
            texts = language.job_of(options, spec, OPTIONS)
            return language.run(texts, language.out_of(options, texts))
        job = job_of(options, spec)
        if job.audit.outcome is not None:
            raise BadInput("audit.outcome names a model that was changed before; to judge it: oblivio audit")
        return run(job, options["out"] or Path("runs") / (options["job"].stem if options["job"] else named(job)))

    forget.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in {**OPTIONS, **own}.items()
        ]
    )
    forget.__annotations__ = {}
    forget.__doc__ = HELP.format(settings="" if spec else ALSO)
    return forget


def named(job: Job) -> str:
    """The name of a job's method; a job to audit a model that was changed before may have none."""
    return "audit" if job.method is None else job.method.name


def job_of(options: Mapping[str, Any], spec: Spec | None) -> Job:
    """The job file, if one is given, with the options in place of its fields."""
    from oblivio.jobs.job import Job

    fields = {} if options["job"] is None else Job.load(options["job"]).model_dump(exclude_unset=True)
    chosen = {name: options[name] for name in PLACES if options.get(name) is not None}
    if spec is not None:
        before = fields.get("method", {})
        kept = before.get("settings", {}) if before.get("name") == spec.id else {}
        chosen |= {"method": spec.id, "settings": kept | settings.given(spec, options, OPTIONS)}
    if "pieces" in chosen:
        chosen["pieces"] = [piece(words) for words in chosen["pieces"]]
    for name, value in chosen.items():
        *outer, last = PLACES[name]
        functools.reduce(lambda inside, section: inside.setdefault(section, {}), outer, fields)[last] = value
    return Job.of(**fields)


def piece(words: str) -> dict[str, Any]:
    """``sam:rho=0.05,on=forget`` as a job file has it.

    >>> piece("sam:rho=0.05")
    {'name': 'sam', 'settings': {'rho': 0.05}}
    """
    import yaml

    name, _, given = words.partition(":")
    pairs = (pair.partition("=") for pair in given.split(",") if pair)
    return {"name": name, "settings": {key: yaml.safe_load(value) for key, _, value in pairs}}


def resume(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run that was killed.")]) -> int:
    """Go on with a run that was killed; it ends with the same bits as one that never was."""
    from oblivio.jobs.folder import JOB, check_resumable
    from oblivio.jobs.job import Job

    check_resumable(folder)
    if language.asked({"job": folder / JOB}):
        return language.run(language.job_of({"job": folder / JOB}, None, {}), folder, again=True)
    return run(Job.load(folder / JOB), folder, again=True)


def init(
    texts: Annotated[bool, typer.Option("--language", help="One for a language model.")] = False,
) -> None:
    """Print a job file with comments, which runs as it is: oblivio init > job.yaml."""
    from oblivio.jobs.job import Job
    from oblivio.jobs.language import job

    typer.echo(job.EXAMPLE if texts else Job.example(), nl=False)


def run(job: Job, out: Path, again: bool = False) -> int:
    """Do a job and print what came of it; the exit code is that of the verdict."""
    from oblivio.jobs import folder, forget

    try:
        with Line() as line:
            outcome = forget.run(job, out, watch=[Look(line, doing(job))], resume=again)
    except (KeyboardInterrupt, OSError) as error:
        if folder.interrupted(out):
            raise Stopped(f"{str(error) or 'interrupted'}; go on with: oblivio resume {out}") from None
        raise
    finally:
        leave()
    if not console.first():
        return FINISHED
    show(outcome.report)
    made = "" if job.audit.outcome is not None else "model/ has forgotten; "
    console.out().print(f"\n{out}: {made}report.html is to be read, report.json, log.jsonl and job.yaml say how")
    return CODES[outcome.report.verdict.word]


def leave() -> None:
    """Take leave of the other processes, where there are any: one that ends without is aborted by torch."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def doing(job: Job) -> Callable[[Run], str]:
    """What a run of this job does, in words. Every model that is trained has a seed of its own, to know it by."""
    from oblivio.jobs.references import control_seed, seed_of

    count = job.references.count
    trainings = {seed_of(job.seed, i): f"reference {i + 1} of {count}" for i in range(count)}
    trainings[control_seed(job.seed)] = "the control"

    def label(run: Run) -> str:
        if "forget" in run.problem.sources:
            return named(job)
        return trainings.get(run.problem.seed, "the original")

    return label


def show(report: Report) -> None:
    """Print a report: the verdict and each model's line in the style of its kind, the rest as it is."""
    out = console.out()
    kinds = {subject["name"]: STYLES[subject["kind"]] for subject in report["subjects"]}
    kinds[f"{sum(each['kind'] == 'reference' for each in report['subjects'])} retrained"] = STYLES["reference"]
    for line in report.table().splitlines():
        name = line.partition("  ")[0]
        out.print(line, style=WORDS.get(line) or kinds.get(name, ""), soft_wrap=True)
