"""From the words of a command to a job, and the run of a job on the terminal, whatever kind of model it is for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from oblivio.cli import console, settings
from oblivio.cli.codes import FINISHED, INCONCLUSIVE, REJECTED
from oblivio.cli.progress import Line, Look
from oblivio.core.errors import Stopped
from oblivio.registry import Spec

if TYPE_CHECKING:
    from oblivio.audits.report import Report
    from oblivio.core.run import Run
    from oblivio.jobs.job import Job
    from oblivio.jobs.language.job import LanguageJob
    from oblivio.jobs.outcome import Outcome

J = TypeVar("J", "Job", "LanguageJob")

STYLES = {"outcome": "bold cyan", "original": "", "reference": "green", "control": "dim"}  # of kinds of models
WORDS = {"ACCEPTED": "bold green", "REJECTED": "bold red", "INCONCLUSIVE": "bold yellow"}
CODES = {"ACCEPTED": FINISHED, "REJECTED": REJECTED, "INCONCLUSIVE": INCONCLUSIVE}


def filled(
    kind: type[J],
    options: Mapping[str, Any],
    places: Mapping[str, Sequence[str]],
    spec: Spec | None = None,
    taken: Collection[str] = (),
) -> J:
    """The job file among the options, if there is one, with the other options in place of its fields.

    Args:
        kind: of job.
        options: values by name; None where not given.
        places: where in a job each option stands.
        spec: the method, whose settings are options too.
        taken: the command's own options, beside those settings.
    """
    fields = {} if options.get("job") is None else kind.load(options["job"]).model_dump(exclude_unset=True)
    chosen = {name: options[name] for name in places if options.get(name) is not None}
    if spec is not None:
        before = fields.get("method") or {}
        kept = before.get("settings", {}) if before.get("name") == spec.id else {}
        chosen |= {"method": spec.id, "settings": kept | settings.given(spec, options, taken)}
    if "pieces" in chosen:
        chosen["pieces"] = [piece(words) for words in chosen["pieces"]]
    for name, value in chosen.items():
        *outer, last = places[name]
        functools.reduce(_section, outer, fields)[last] = value
    return kind.of(**fields)


def _section(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a job's fields; a new one where there is none, or where a written job says so."""
    fields[name] = {} if fields.get(name) is None else fields[name]
    section: dict[str, Any] = fields[name]
    return section


def piece(words: str) -> dict[str, Any]:
    """``sam:rho=0.05,on=forget`` as a job file has it.

    >>> piece("sam:rho=0.05")
    {'name': 'sam', 'settings': {'rho': 0.05}}
    """
    import yaml

    name, _, given = words.partition(":")
    pairs = (pair.partition("=") for pair in given.split(",") if pair)
    return {"name": name, "settings": {key: yaml.safe_load(value) for key, _, value in pairs}}


def run(
    start: Callable[..., Outcome], job: Job | LanguageJob, out: Path, label: Callable[[Run], str], again: bool = False
) -> int:
    """Do a job and print what came of it; the exit code is that of the verdict.

    ``start`` does jobs of this kind, and ``label`` says in words what a run is for.
    """
    from oblivio.jobs import folder

    try:
        with Line() as line:
            outcome = start(job, out, watch=[Look(line, label)], resume=again)
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


def label(name: str, trainings: Mapping[int, str]) -> Callable[[Run], str]:
    """What a run is for, in words: ``name`` where it forgets, else that of its seed, by which trainings are known."""

    def said(run: Run) -> str:
        return name if "forget" in run.problem.sources else trainings.get(run.problem.seed, "the original")

    return said


def named(job: Job | LanguageJob) -> str:
    """The name of a job's method; a job to audit a model that was changed before may have none."""
    return "audit" if job.method is None else job.method.name


def folder_of(options: Mapping[str, Any], job: Job | LanguageJob) -> Path:
    """Where to write: as asked, or under ``runs``."""
    if options.get("out") is not None:
        return Path(options["out"])
    return Path("runs") / (options["job"].stem if options.get("job") else named(job))


def show(report: Report) -> None:
    """Print a report: the verdict and each model's line in the style of its kind, the rest as it is."""
    out = console.out()
    kinds = {subject["name"]: STYLES[subject["kind"]] for subject in report["subjects"]}
    kinds[f"{sum(each['kind'] == 'reference' for each in report['subjects'])} retrained"] = STYLES["reference"]
    for line in report.table().splitlines():
        name = line.partition("  ")[0]
        out.print(line, style=WORDS.get(line) or kinds.get(name, ""), soft_wrap=True)
