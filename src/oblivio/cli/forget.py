"""``oblivio forget``, ``resume`` and ``init``: the main job."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oblivio.cli import language, settings, work
from oblivio.core.errors import BadInput
from oblivio.methods import registry
from oblivio.registry import Spec

if TYPE_CHECKING:
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
            return language.run(texts, work.folder_of(options, texts))
        job = job_of(options, spec)
        if job.audit.outcome is not None:
            raise BadInput("audit.outcome names a model that was changed before; to judge it: oblivio audit")
        return run(job, work.folder_of(options, job))

    forget.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in {**OPTIONS, **own}.items()
        ]
    )
    forget.__annotations__ = {}
    forget.__doc__ = HELP.format(settings="" if spec else ALSO)
    return forget


def job_of(options: Mapping[str, Any], spec: Spec | None) -> Job:
    """The job that the words of a command ask for."""
    from oblivio.jobs.job import Job

    return work.filled(Job, options, PLACES, spec, OPTIONS)


def resume(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run that was killed.")]) -> int:
    """Go on with a run that was killed; it ends with the same bits as one that never was."""
    from oblivio.jobs.folder import JOB, check_resumable
    from oblivio.jobs.job import Job

    check_resumable(folder)
    if language.asked({"job": folder / JOB}):
        return language.run(language.job_of({"job": folder / JOB}), folder, again=True)
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
    from oblivio.jobs import forget

    return work.run(forget.run, job, out, doing(job), again)


def doing(job: Job) -> Callable[[Run], str]:
    """What a run of this job does, in words. Every model that is trained has a seed of its own, to know it by."""
    from oblivio.jobs.references import control_seed, seed_of

    count = job.references.count
    trainings = {seed_of(job.seed, i): f"reference {i + 1} of {count}" for i in range(count)}
    return work.label(work.named(job), {**trainings, control_seed(job.seed): "the control"})
