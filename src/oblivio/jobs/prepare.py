"""Everything of a job that can be wrong is found here, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from oblivio import data, networks, records
from oblivio.artefact import Artefact
from oblivio.audits.audit import check_left_out
from oblivio.audits.policy import policy
from oblivio.core.errors import BadInput
from oblivio.core.plan import Plan
from oblivio.core.problem import Problem
from oblivio.core.source import Source
from oblivio.core.team import Team
from oblivio.data.dataset import Dataset
from oblivio.data.identity import read_ids
from oblivio.data.loading import is_own
from oblivio.jobs import serving, weights
from oblivio.jobs.job import Data, Forget, Given, Job, Method, References
from oblivio.jobs.ladder import AUTO
from oblivio.jobs.ladder import check as check_ladder
from oblivio.jobs.method import Chosen, choose
from oblivio.jobs.network import Network, network
from oblivio.jobs.outcome import Making
from oblivio.jobs.recipe import shipped
from oblivio.jobs.references import Reference, check_without
from oblivio.jobs.rows import Rows, divide, stand_ins
from oblivio.networks._own import imported

VALID = 0.1  # share held out where the original is trained here


@dataclass(frozen=True)
class Ready:
    """A job that has been checked: ``job`` with every default visible, and what it means.

    ``outcome`` is the model to be audited, where the job is to audit one that was changed before.
    """

    job: Job
    dataset: Dataset
    rows: Rows
    network: Network | None
    original: Artefact | None
    outcome: Artefact | None
    chosen: Chosen
    given: Sequence[Reference]
    notes: Sequence[str]
    team: Team
    proxy: Source | None = None

    def problem(self, model: nn.Module) -> Problem:
        """The request, put to this model."""
        return Problem(
            model, task=self.dataset.task, goal=self.job.forget.goal, seed=self.job.seed, team=self.team,
            features=self.job.model.features, forget=self.rows.forget, retain=self.rows.retain, test=self.rows.test,
            valid=self.rows.valid, proxy=self.proxy,
        )  # fmt: skip

    @property
    def wanted(self) -> list[str]:
        """Records of the training that the method cannot do without; the ladder makes none."""
        needs = () if self.chosen.spec is None else self.chosen.spec.needs
        return [name for name in needs if name in records.names()]

    @property
    def making(self) -> Making | None:
        """What saving the new model takes; None where none is made."""
        if self.outcome is not None:
            return None
        if self.original is not None:
            return Making(self.original.architecture, self.dataset.classes, self.original.journal)
        assert self.network is not None
        return Making(self.network.architecture, self.dataset.classes)


def prepare(job: Job, team: Team) -> Ready:
    """Load what a job names and check all of it.

    Raises:
        BadInput: anything in the job, its data or its files that cannot be served.
    """
    dataset = data.load(job.data.name, **job.data.arguments)
    chosen = _chosen(job)
    net = None if job.model.name is None else network(job.model.name, job.model.options, dataset)
    original = None if job.model.weights is None else weights.read(Path(job.model.weights), net, dataset.task)
    if net is None and original is not None and original.architecture is not None:
        net = Network(original.architecture)
    outcome = None if job.audit.outcome is None else weights.read(Path(job.audit.outcome), net, dataset.task)
    _check_recipe(job)
    job = resolved(job, chosen, trained_here=original is None)
    rows = divide(dataset, job.forget, job.data.valid or 0.0, job.seed, job.data.without)
    given = [_given(g, rows, net, dataset.task) for g in job.references.given]
    notes = [*dataset.notes, *rows.notes, *(note for _, more in given for note in more)]
    proxy = None if job.data.proxy is None else stand_ins(data.load(job.data.proxy))
    ready = Ready(job, dataset, rows, net, original, outcome, chosen, [r for r, _ in given], notes, team, proxy)
    _check(ready)
    return ready


def _chosen(job: Job) -> Chosen:
    """The method; for a model that was changed before, no more than its name."""
    if job.audit.outcome is not None:
        return Chosen(Plan([]), Path(job.audit.outcome).stem if job.method is None else job.method.name, {})
    if job.method is not None and job.method.name == AUTO:
        return _ladder(job.method, job.references)
    if job.method is None:
        raise BadInput("method: this field is needed; it says how to forget (`oblivio methods` lists them)")
    return choose(job.method.name, job.method.settings, [(p.name, p.settings) for p in job.method.pieces])


def _ladder(method: Method, references: References) -> Chosen:
    """No method yet, but the ladder on which one is looked for."""
    if method.pieces:
        raise BadInput("method auto takes methods as they are shipped; leave out its pieces")
    if not references.count:
        raise BadInput("method auto trains models without the rows, to judge and at last to serve; give references: 3")
    ladder = check_ladder(method.settings, references.count + len(references.given))
    return Chosen(Plan([]), AUTO, ladder.model_dump())


def _check_recipe(job: Job) -> None:
    if job.model.weights is not None and job.references.count and not job.recipe.model_fields_set:
        raise BadInput("references are to be trained as the original was, whose weights are given; say with recipe how")
    if job.recipe.train is not None:
        imported(job.recipe.train)


def _check(ready: Ready) -> None:
    job, net = ready.job, ready.network
    if net is None and job.references.count:
        raise BadInput("references cannot be trained: the model was saved without its architecture; give model.name")
    if ready.original is not None:
        module = ready.original.module
    else:
        assert net is not None  # a job has a name or weights
        module = net.architecture.build()
    problem = ready.problem(module)
    problem.records.update({name: {} for name in ready.wanted})  # as if they were made, which takes a trained model
    if job.guards.retain_floor is not None and not problem.task.higher:
        raise BadInput(f"guards.retain_floor is of an accuracy; a {problem.task.name} has none")
    if job.model.features is not None:
        _ = problem.features
    policy(job.forget.goal, job.audit.tolerances)
    check_left_out(job.audit.leave_out)
    serving.check(problem, ready.chosen.spec)


def _given(given: Given, rows: Rows, net: Network | None, task: str) -> tuple[Reference, list[str]]:
    """A reference that is ready-made, and notes on it."""
    without = read_ids(given.without) if isinstance(given.without, str) else given.without
    notes = check_without(f"the reference {given.model}", without, rows.forget)
    return Reference(weights.read(Path(given.model), net, task).module), notes


# --- every default visible


def resolved(job: Job, chosen: Chosen, trained_here: bool) -> Job:
    """The job with all that was left open filled in, and with paths that hold from any folder."""
    name = job.model.name
    options = {**networks.defaults(name), **job.model.options} if name else job.model.options
    valid = job.data.valid if job.data.valid is not None else VALID if trained_here else 0.0
    recipe = (
        job.recipe if not trained_here and not job.recipe.model_fields_set else job.recipe.over(shipped(name or ""))
    )
    full = job.but(
        data=_placed(job.data).but(valid=valid),
        model=job.model.but(options=options, weights=_place(job.model.weights)),
        recipe=recipe,
        forget=_forget(job.forget),
        method=None if job.method is None else job.method.but(settings=chosen.settings or job.method.settings),
        references=_references(job.references),
        audit=job.audit.but(outcome=_place(job.audit.outcome)),
    )
    return Job.of(**full.model_dump(mode="json"))  # as the file will hold it: lists, no tuples


def _place(path: Any) -> Any:
    """An absolute path where ``path`` is text that names a file or folder; else what was given."""
    return str(Path(path).absolute()) if isinstance(path, str) and Path(path.partition(":")[0]).exists() else path


def _placed(given: Data) -> Data:
    known = given.name in data.names() or is_own(given.name)
    name = given.name if known else _place(given.name)
    return given.but(name=name, test=_place(given.test), without=_place(given.without))


def _forget(given: Forget) -> Forget:
    rows = given.rows
    if isinstance(rows, str):
        kind, _, value = rows.partition("=")
        rows = {kind.strip(): value.strip()}
    return given.but(rows={k: _place(v) if k == "ids" else v for k, v in rows.items()})


def _references(given: References) -> References:
    return given.but(given=[g.but(model=_place(g.model), without=_place(g.without)) for g in given.given])
