"""Everything of a language job that can be wrong is found here, before anything is trained or written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oblivio import where
from oblivio.audits.language.audit import check as check_audit
from oblivio.audits.policy import TEXTS, policy
from oblivio.core.errors import BadInput
from oblivio.core.plan import Plan
from oblivio.core.problem import Problem
from oblivio.core.surgery import Wrap
from oblivio.core.team import Team
from oblivio.data.language.encoding import encode
from oblivio.data.language.loading import texts as load_texts
from oblivio.data.language.request import PLAIN, answer
from oblivio.data.language.texts import Text, Texts, check_apart
from oblivio.jobs.folder import MODEL
from oblivio.jobs.language.job import FAST, FAST_STEPS, NEW, LanguageJob
from oblivio.jobs.language.training import byte_tokens, word_tokens
from oblivio.jobs.method import Chosen, choose
from oblivio.modules.adapters import adapters, merge_adapters
from oblivio.networks.language.folder import open_model
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM

PARTS = {
    "people": {"retain": "retain", "test": "world", "holdout": "holdout"},
    "tofu": {"retain": "retain90", "test": "world_facts", "holdout": "holdout10"},
}  # of sets that are known by name, where the job is silent
LEARNED = {"people": "retain+forget", "tofu": "retain90+forget10"}  # what a group is taken from; else all other parts
GROUP = "group="


@dataclass(frozen=True)
class Ready:
    """A language job that has been checked, and what it means.

    Attributes:
        job: with every default visible.
        texts: the set.
        roles: its texts by their role: forget, retain, test, holdout.
        tokens: the texts of every role.
        tokenizer: of the model.
        model: that was given; None where it is trained here.
        outcome: the model to be audited, where the job is to audit one that was changed before.
        chosen: the method.
        notes: one sentence each.
        team: the processes.
    """

    job: LanguageJob
    texts: Texts
    roles: dict[str, tuple[Text, ...]]
    tokens: dict[str, Tokens]
    tokenizer: Any
    model: Any
    outcome: Any
    chosen: Chosen
    notes: list[str]
    team: Team

    def encoded(self, texts: tuple[Text, ...]) -> Tokens:
        """Texts as tokens, written as the job says."""
        return _encoded(texts, self.tokenizer, self.job)

    def problem(self, model: Any) -> Problem:
        """The request, put to this model."""
        task = CausalLM(self.tokenizer, pack=self.job.pack, checkpointing=self.job.checkpointing)
        given: dict[str, Any] = dict(self.tokens)
        problem = Problem(model, task=task, goal=self.job.goal, seed=self.job.seed, team=self.team, **given)
        words = self.texts.refusals or PLAIN
        problem.records["refusals"] = [answer(each, self.tokenizer) for each in words]
        return problem


def prepare(job: LanguageJob, team: Team) -> Ready:
    """Load what a job names and check all of it.

    Raises:
        BadInput: anything in the job, its texts or its folders that cannot be served.
    """
    job = _short(job) if job.fast else job
    policy(job.goal, job.audit.tolerances, TEXTS)
    check_audit(job.audit.attacks, job.audit.leave_out)
    texts = load_texts(job.data.name, **job.data.options)
    roles = _roles(job, texts)
    chosen = _chosen(job)
    check_apart(roles["forget"], roles.get("retain", ()))
    model, tokenizer = _model(job, texts)
    outcome = None if job.audit.outcome is None else _outcome(Path(job.audit.outcome), job, tokenizer)
    tokens = {role: _encoded(found, tokenizer, job) for role, found in roles.items()}
    cut = {role: rows.cut for role, rows in tokens.items() if rows.cut}
    notes = [*texts.notes, *(f"{count} texts of {role} were cut to the model's length" for role, count in cut.items())]
    if team.sharded and model is None:
        raise BadInput("sharding='full' is for a model that is given; say with model.folder where it lies")
    if model is not None and job.references.count and job.recipe.start is None:
        raise BadInput(
            "references are trained as the original was; say with recipe.start from which folder it was fine-tuned "
            f"({NEW}: from none), or give folders of retrained models"
        )
    return Ready(job, texts, roles, tokens, tokenizer, model, outcome, chosen, notes, team)


def _short(job: LanguageJob) -> LanguageJob:
    """The small form: fewer people, a shorter training."""
    if job.model.folder is not None:
        return job
    data = job.data.but(options={**FAST, **job.data.options}) if job.data.name == "people" else job.data
    given = "steps" in job.recipe.model_fields_set
    return job.but(data=data, recipe=job.recipe if given else job.recipe.but(steps=FAST_STEPS))


def _roles(job: LanguageJob, texts: Texts) -> dict[str, tuple[Text, ...]]:
    """The texts of every role that has some; what goes by its group, or has gone before, is in no other role."""
    data, gone = job.data, set(job.data.without)
    known = PARTS.get(data.name, {name: name for name in ("retain", "test", "holdout") if name in texts.parts})
    asked = {role: getattr(data, role) or known.get(role) for role in ("retain", "test", "holdout")}
    going: tuple[Text, ...] = ()
    if data.forget.startswith(GROUP):
        others = asked["test"], asked["holdout"]
        learned = LEARNED.get(data.name, "+".join(part for part in texts.parts if part not in others))
        going = texts.grouped(learned, data.forget.removeprefix(GROUP).split("+"))
        asked["retain"] = data.retain or learned
    forget = {text.id: text for text in going or texts.part(data.forget)}
    away = forget.keys() if going else set()
    found = {role: [t for t in texts.part(part) if t.id not in away] for role, part in asked.items() if part}
    kept = {role: tuple(t for t in each if t.group not in gone) for role, each in found.items()}
    return {"forget": tuple(forget.values()), **{role: each for role, each in kept.items() if each}}


def _chosen(job: LanguageJob) -> Chosen:
    if job.audit.outcome is not None:
        return Chosen(Plan([]), Path(job.audit.outcome).name, {})
    if job.method is None:
        raise BadInput("method: this field is needed; it says how to forget (`oblivio methods --for texts` lists them)")
    adapter = None if job.adapter is None else where.lora(**job.adapter.model_dump(exclude={"kind"}))
    pieces = [(piece.name, piece.settings) for piece in job.method.pieces]
    return choose(job.method.name, job.method.settings, pieces, task=CausalLM.name, adapter=adapter)


def _model(job: LanguageJob, texts: Texts) -> tuple[Any, Any]:
    """The model that was given with its tokenizer; or none, and a tokenizer of the texts' words."""
    if job.model.folder is None:
        words = job.model.tokenizer == "words"
        return None, word_tokens(texts) if words else byte_tokens(texts, job.model.vocabulary)
    model, tokenizer = open_model(located(job.model.folder), job.model.trust)
    if len(adapters(model)) == 1 and job.adapter is None and not isinstance(model, Wrap):
        merge_adapters({"model": model})  # all may move now, and a folder of PEFT holds an adapter alone
    return model, tokenizer


def located(folder: str) -> str:
    """Where the model of a folder lies, which may be that of a run; ``hub:<repository>`` as it is."""
    path = Path(folder) / MODEL if (Path(folder) / MODEL).is_dir() else Path(folder)
    return str(path.absolute()) if path.exists() else folder


def _outcome(path: Path, job: LanguageJob, tokenizer: Any) -> Any:
    model, own = open_model(located(str(path)), job.model.trust)
    if own.get_vocab() != tokenizer.get_vocab():
        raise BadInput(f"{path} has another tokenizer than the original; their answers cannot be compared")
    return model


def _encoded(texts: tuple[Text, ...], tokenizer: Any, job: LanguageJob) -> Tokens:
    data = job.data
    return encode(
        texts, tokenizer, template=data.template, max_length=data.max_length, overflow=data.overflow, chat=data.chat
    )
