"""The main job and the audit for language models, on the command line."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblivio.cli import console, settings
from oblivio.cli.codes import FINISHED
from oblivio.cli.progress import Line, Look
from oblivio.core.errors import BadInput, Stopped
from oblivio.registry import Spec

if TYPE_CHECKING:
    from oblivio.core.run import Run
    from oblivio.jobs.language.job import LanguageJob

SETS = ("people", "tofu", "muse", "rwku", "domains", "corruption")  # of texts, by name
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".txt")
NETWORKS = ("llama", "gpt2", "mixtral")
MARKS = ("config.json", "adapter_config.json", "base/config.json", "model/config.json", "model/adapter_config.json")
PLACES = {
    "data": ("data", "name"),
    "forget": ("data", "forget"),
    "retain": ("data", "retain"),
    "model": ("model", "folder"),
    "network": ("model", "network"),
    "method": ("method", "name"),
    "pieces": ("method", "pieces"),
    "settings": ("method", "settings"),
    "adapter": ("adapter", "kind"),
    "references": ("references", "count"),
    "audit": ("audit", "kind"),
    "outcome": ("audit", "outcome"),
    "attacks": ("audit", "attacks"),
    "show_texts": ("audit", "show_texts"),
    "rows": ("audit", "rows"),
    "goal": ("goal",),
    "fast": ("fast",),
    "seed": ("seed",),
}  # of each option in a job


def asked(options: Mapping[str, Any]) -> bool:
    """Whether the words of a command are about a language model."""
    if options.get("job") is not None:
        from oblivio.jobs.job import fields_of

        return bool(fields_of(options["job"]).get("kind") == "language")
    named = [str(options.get(name) or "") for name in ("data", "model")]
    texts = named[0].lower() in SETS or named[0].endswith(ENDINGS)
    model = named[1] in NETWORKS or any((Path(named[1]) / mark).is_file() for mark in MARKS)
    return bool(options.get("audit") == "lm" or texts or (named[1] and model))


def job_of(options: Mapping[str, Any], spec: Spec | None, taken: Mapping[str, Any]) -> LanguageJob:
    """The job file, if one is given, with the options in place of its fields; ``taken`` are options of the command."""
    from oblivio.jobs.job import fields_of
    from oblivio.jobs.language.job import LanguageJob

    fields = {} if options.get("job") is None else fields_of(options["job"])
    chosen = {name: options[name] for name in PLACES if options.get(name) is not None}
    if chosen.get("model") in NETWORKS:
        chosen["network"] = chosen.pop("model")
    if "attacks" in chosen:
        chosen["attacks"] = [word for word in chosen["attacks"].split(",") if word != "relearn"]
    if "pieces" in chosen:
        from oblivio.cli.forget import piece

        chosen["pieces"] = [piece(words) for words in chosen["pieces"]]
    if spec is not None:
        before = fields.get("method", {})
        kept = before.get("settings", {}) if isinstance(before, dict) and before.get("name") == spec.id else {}
        chosen |= {"method": spec.id, "settings": kept | settings.given(spec, options, taken)}
    for name, value in chosen.items():
        *outer, last = PLACES[name]
        functools.reduce(lambda inside, section: inside.setdefault(section, {}), outer, fields)[last] = value
    return LanguageJob.of(**fields)


def out_of(options: Mapping[str, Any], job: LanguageJob) -> Path:
    """Where to write: as asked, or under ``runs``."""
    if options.get("out") is not None:
        return Path(options["out"])
    name = "audit" if job.method is None else job.method.name
    return Path("runs") / (options["job"].stem if options.get("job") else name)


def run(job: LanguageJob, out: Path, again: bool = False) -> int:
    """Do a job and print what came of it; the exit code is that of the verdict."""
    from oblivio.cli.forget import CODES, leave, show
    from oblivio.jobs import folder
    from oblivio.jobs.language import run as jobs

    try:
        with Line() as line:
            outcome = jobs.run(job, out, watch=[Look(line, doing(job))], resume=again)
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


def doing(job: LanguageJob) -> Any:
    """What a run of this job does, in words."""
    from oblivio.jobs.references import seed_of

    trainings = {seed_of(job.seed, i) % 2**31: f"reference {i + 1} of {job.references.count}"
                 for i in range(job.references.count)}  # fmt: skip

    def label(run: Run) -> str:
        if "forget" in run.problem.sources:
            return "the audit" if job.method is None else job.method.name
        return trainings.get(run.problem.seed, "the original")

    return label


def original_of(outcome: Path) -> str:
    """The folder of the model that was changed into this one, as it says. Raises BadInput where it says nothing."""
    from oblivio.core.files import read_json

    for folder in (outcome / "model", outcome):
        for name, key in (("oblivio.json", "base"), ("adapter_config.json", "base_model_name_or_path")):
            if (folder / name).is_file() and (found := read_json(folder / name).get(key)):
                return str(found)
    raise BadInput(f"{outcome} does not say which model it was made from; say with --original")
