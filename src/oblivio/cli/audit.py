"""``oblivio audit``, ``compare``, ``purge`` and ``cite``: judge models, put outcomes side by side, clear up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oblivio.cli import console, language
from oblivio.cli.codes import FAILED, FINISHED
from oblivio.cli.forget import run
from oblivio.cli.work import named
from oblivio.core.errors import BadInput
from oblivio.methods import registry

if TYPE_CHECKING:
    from oblivio.jobs.job import Job

Out = Annotated[Path | None, typer.Option(metavar="PATH", show_default=False, help="Where to write.")]


def audit(
    job: Annotated[
        Path | None,
        typer.Argument(metavar="JOB.yaml|DIR", show_default=False, help="A job, or the folder of a finished run."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="DIR", show_default=False, help="A changed language model, not a job."),
    ] = None,
    original: Annotated[
        str | None,
        typer.Option(metavar="DIR", show_default=False, help="Of --model: what it was before; default: as it says."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="SET", show_default=False, help="Of --model: the texts, as people or tofu.")
    ] = None,
    forget: Annotated[
        str | None, typer.Option(metavar="PART", show_default=False, help="Of --model: the texts that were to go.")
    ] = None,
    retain: Annotated[
        str | None, typer.Option(metavar="PART", show_default=False, help="Of --model: the texts that stay.")
    ] = None,
    attacks: Annotated[
        str | None,
        typer.Option(metavar="LIST", show_default=False, help="Of --model: relearn,prompts,quantize,sample,early,..."),
    ] = None,
    show_texts: Annotated[
        bool | None,
        typer.Option("--show-texts", show_default=False, help="Of --model: write what it says."),
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(metavar="PATH", show_default=False, help="The changed model: a folder, or a .safetensors file."),
    ] = None,
    references: Annotated[
        int | None, typer.Option(metavar="N", show_default=False, help="So many models retrained without the rows.")
    ] = None,
    rows: Annotated[
        bool | None, typer.Option("--rows/--no-rows", show_default=False, help="Write figures of every row (default).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default=False, help="A new folder; default: under runs/.")
    ] = None,
) -> int:
    """Judge a model that was changed before, beside its original and models retrained without the rows.

    Nothing is changed. Exit code 0: ACCEPTED; 3: REJECTED; 4: INCONCLUSIVE.
    """
    if model is not None:
        before = original or language.original_of(Path(model))
        given = {"model": before, "outcome": model, "data": data, "forget": forget,
                 "retain": retain, "attacks": attacks, "show_texts": show_texts, "rows": rows}  # fmt: skip
        texts = language.job_of(given)
        return language.run(texts, out or Path("runs") / f"audit-{Path(model).name}")
    if job is None:
        raise BadInput("say what to judge: a job, the folder of a finished run, or --model with a language model")
    if language.asked({"job": _file(job)}):
        return _language(job, outcome, references, rows, out)
    asked = _asked(job, outcome, references, rows)
    return run(asked, out or Path("runs") / f"audit-{job.stem or named(asked)}")


def _file(path: Path) -> Path:
    """The job file itself, or that in the folder of a run."""
    from oblivio.jobs.folder import JOB

    return path / JOB if path.is_dir() else path


def _language(job: Path, outcome: str | None, references: int | None, rows: bool | None, out: Path | None) -> int:
    """The audit of a job for a language model, or of its finished run."""
    changed = outcome or (str(job) if job.is_dir() else None)
    given = {"job": _file(job), "outcome": changed, "references": references, "rows": rows}
    texts = language.job_of(given)
    if texts.audit.outcome is None:
        raise BadInput("say with --outcome, or audit.outcome in the job, which model to judge: a folder")
    return language.run(texts, out or Path("runs") / f"audit-{job.stem}")


def _asked(path: Path, outcome: str | None, references: int | None, rows: bool | None) -> Job:
    from oblivio.jobs.folder import JOB, interrupted
    from oblivio.jobs.job import Job

    if interrupted(path):
        raise BadInput(f"{path} is an interrupted run; finish it first with: oblivio resume {path}")
    found = Job.load(path / JOB if path.is_dir() else path)
    if outcome is None and path.is_dir():
        outcome = str(path)
    changes: dict[str, Any] = {"outcome": outcome, "rows": rows}
    judged = found.audit.but(**{name: value for name, value in changes.items() if value is not None})
    if judged.outcome is None:
        raise BadInput("say with --outcome, or audit.outcome in the job, which model to judge: a folder or a file")
    counted = found.references if references is None else found.references.but(count=references)
    return found.but(audit=judged, references=counted)


def compare(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT", help="report.json files, or folders of runs.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("compare.html"),
) -> None:
    """Put several outcomes of one request side by side, in a table and on one page."""
    from oblivio.audits.report import Report
    from oblivio.audits.report.compare import compare, table
    from oblivio.core.files import write_bytes

    found = [(path.stem if path.is_file() and path.stem != "report" else _name(path), Report.load(path))
             for path in reports]  # fmt: skip
    if not out.absolute().parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}")
    write_bytes(out, compare(found).encode())
    console.out().print(table(found), soft_wrap=True)
    console.out().print(f"\n{out} is to be read")


def _name(path: Path) -> str:
    """The name of a run's folder."""
    return (path if path.is_dir() else path.absolute().parent).name


def purge(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a finished run.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Remove what still derives from the forgotten rows: the original model, caches, rows.parquet. No way back.

    The model that has forgotten, its report and log stay.
    """
    from oblivio.jobs import derived

    found = derived.listed(folder)
    out = console.out()
    for each in found:
        out.print(f"{each.path}: {each.what}", soft_wrap=True)
    if not found:
        out.print("nothing that the run knows of derives from the forgotten rows any more")
        return FINISHED
    if not yes and not typer.confirm("Remove all of these? There is no roll-back after that."):
        out.print("nothing was removed")
        return FINISHED
    done = derived.purge(folder)
    for path, reason in done.left:
        console.complain(f"{path} stays: {reason}", FAILED)
    out.print(f"{len(done.gone)} removed, {len(done.left)} left. There is no roll-back.")
    return FAILED if done.left else FINISHED


def cite(method: Annotated[str, typer.Argument(metavar="METHOD", help="A name from `oblivio methods`.")]) -> None:
    """Print where a method comes from, and this project, as BibTeX."""
    from oblivio.cli.bibtex import entries

    console.out().print(entries(registry.spec(method.replace("-", "_"))), soft_wrap=True)
