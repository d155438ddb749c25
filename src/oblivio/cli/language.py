"""The main job and the audit for language models, on the command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblivio.cli import work
from oblivio.core.errors import BadInput
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
        from oblivio.jobs.section import fields_of

        return bool(fields_of(options["job"]).get("kind") == "language")
    named = [str(options.get(name) or "") for name in ("data", "model")]
    texts = named[0].lower() in SETS or named[0].endswith(ENDINGS)
    model = named[1] in NETWORKS or any((Path(named[1]) / mark).is_file() for mark in MARKS)
    return bool(options.get("audit") == "lm" or texts or (named[1] and model))


def job_of(options: Mapping[str, Any], spec: Spec | None = None, taken: Collection[str] = ()) -> LanguageJob:
    """The job that the words of a command ask for; ``taken`` are the command's own options."""
    from oblivio.jobs.language.job import LanguageJob

    given = dict(options)
    if given.get("model") in NETWORKS:
        given["network"] = given.pop("model")
    if given.get("attacks") is not None:
        given["attacks"] = [word for word in given["attacks"].split(",") if word != "relearn"]
    return work.filled(LanguageJob, given, PLACES, spec, taken)


def run(job: LanguageJob, out: Path, again: bool = False) -> int:
    """Do a job and print what came of it; the exit code is that of the verdict."""
    from oblivio.jobs.language import run as jobs

    return work.run(jobs.run, job, out, doing(job), again)


def doing(job: LanguageJob) -> Callable[[Run], str]:
    """What a run of this job does, in words."""
    from oblivio.jobs.references import seed_of

    count = job.references.count
    trainings = {seed_of(job.seed, i) % 2**31: f"reference {i + 1} of {count}" for i in range(count)}
    return work.label(work.named(job), trainings)


def original_of(outcome: Path) -> str:
    """The folder of the model that was changed into this one, as it says. Raises BadInput where it says nothing."""
    from oblivio.core.files import read_json

    for folder in (outcome / "model", outcome):
        for name, key in (("oblivio.json", "base"), ("adapter_config.json", "base_model_name_or_path")):
            if (folder / name).is_file() and (found := read_json(folder / name).get(key)):
                return str(found)
    raise BadInput(f"{outcome} does not say which model it was made from; say with --original")
