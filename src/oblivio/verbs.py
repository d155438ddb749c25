"""The verbs: forget, learn, audit, protect, load, save; and learner, for a model that goes on doing both."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from oblivio import artefact, learners, methods
from oblivio.audits.report import Report
from oblivio.core.errors import BadInput
from oblivio.core.plan import Plan, Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Watch
from oblivio.core.task import Task
from oblivio.core.where import Where
from oblivio.data.dataset import TASKS, known_task
from oblivio.data.duplicates import copies
from oblivio.jobs import anew, serving, weights
from oblivio.jobs import folder as folders
from oblivio.jobs.auditing import Background, audited
from oblivio.jobs.job import Audit
from oblivio.jobs.ladder import AUTO, FRESH, climb
from oblivio.jobs.ladder import check as check_ladder
from oblivio.jobs.method import Chosen, Piece, apply, choose, peak
from oblivio.jobs.outcome import Outcome, cost
from oblivio.jobs.recipe import Recipe
from oblivio.jobs.references import Reference, check_without
from oblivio.jobs.section import parse
from oblivio.jobs.training import fitted, forwarded
from oblivio.learners.learner import Learner
from oblivio.sources import as_source

Retrained: TypeAlias = "nn.Module | str | Path | tuple[nn.Module | str | Path, Sequence[Any]]"


def forget(
    problem: Problem,
    method: str | Stage,
    *,
    pieces: Iterable[Piece] = (),
    references: int | Iterable[Retrained] = (),
    recipe: Recipe | dict[str, Any] | None = None,
    folder: str | Path | None = None,
    watch: Sequence[Watch] = (),
    adapter: Where | None = None,
    **settings: Any,
) -> Outcome:
    """Make a copy of the problem's model forget; the model itself keeps every bit, also when this fails.

    Args:
        problem: the model, the rows to ``forget`` and to ``retain``, and what else the method needs.
        method: the name of a registered method, or a plan such as ``methods.salun(keep=0.5)``; or ``auto``, which tries
            methods from the cheapest to the dearest until the audit accepts one, and retrains if it accepts none: it
            needs a number of ``references``, 3 or more, and ``recipe``.
        pieces: changes of the plan, in order: names, (name, settings), or functions from plan to plan.
        references: models retrained without the rows, or folders they were saved in; with the ids each was trained
            without, as (model, ids), these are checked. Or a number: so many are trained by ``recipe``.
        recipe: how the original was trained, such as ``{"optimiser": "adamw", "lr": 2e-3, "epochs": 20}``.
        folder: a new folder for the outcome. Called again after a kill, with the same arguments, the run goes on.
        watch: called after every step with (run, stage, step).
        adapter: what alone may move, such as ``where.lora(r=8)``, which is put beside the layers of the model.
        settings: of the method; of ``auto`` ``budget`` (0.5 retrainings) and ``methods`` (all that the request allows).

    Raises:
        BadInput: a request that the method cannot serve, or rows that no model can; nothing was written.
        Stopped: NaN; a watcher may raise it too.

    Example:
        ``outcome = forget(Problem(model, forget=gone, retain=rest, test=held_out), "salun", keep=0.5)``
    """
    if method == AUTO:
        return _climbed(problem, settings, references, recipe, folder, watch)
    chosen = choose(method, settings, pieces, task=problem.task.name, adapter=adapter)
    serving.check(problem, chosen.spec)
    notes = _copies(problem)
    known, control = _standards(problem, references, recipe)
    return _run(problem, chosen, known, notes, folder, watch, control)


def _climbed(
    problem: Problem,
    settings: Mapping[str, Any],
    count: int | Iterable[Retrained],
    recipe: Recipe | dict[str, Any] | None,
    folder: str | Path | None,
    watch: Sequence[Watch],
) -> Outcome:
    """The first method that is accepted and confirmed, or retraining; see ``oblivio.jobs.ladder``."""
    if not isinstance(count, int) or recipe is None:
        raise BadInput("method auto trains models without the rows: give references=3 or more, and recipe=")
    ladder, how = check_ladder(settings, count), _recipe(recipe)
    serving.check(problem)
    out = _free(folder)
    notes, known = _copies(problem), anew.references(problem, how, count)

    def run(chosen: Chosen) -> tuple[Problem, tuple[float, dict[str, int], int]]:
        work = None if out is None else out / folders.WORK / chosen.name
        changed, seconds = apply(chosen.plan, problem, work, watch=watch)
        return changed, (seconds, forwarded(changed), peak(problem.team.device))

    outcome = climb(
        problem, ladder, known, run=run, retrained=lambda: anew.exact(problem, how),
        fresh=lambda before: anew.references(problem, how, FRESH, count + before),
        made=lambda chosen, changed, spent: Outcome(changed, problem, chosen, spent, known, notes),
    )  # fmt: skip
    return _written(outcome, out)


def _run(
    problem: Problem,
    chosen: Chosen,
    references: Sequence[Reference],
    notes: Sequence[str],
    folder: str | Path | None,
    watch: Sequence[Watch],
    control: nn.Module | None = None,
) -> Outcome:
    out = _free(folder)
    changed, seconds = apply(chosen.plan, problem, None if out is None else out / folders.WORK, watch=watch)
    spent = cost(seconds, forwarded(changed), peak(problem.team.device), references)
    outcome = Outcome(changed, problem, chosen, spent, references, notes, background=Background(control=control))
    return _written(outcome, out)


def _free(folder: str | Path | None) -> Path | None:
    """A folder that is new or of a run that was killed. Raises BadInput for another one."""
    out = None if folder is None else Path(folder)
    if out is not None and not (out / folders.WORK).is_dir():
        folders.check_new(out)
    return out


def _written(outcome: Outcome, out: Path | None) -> Outcome:
    if out is not None and outcome.problem.team.rank == 0:
        outcome.write(out)
        folders.tidy(out, folders.WORK)
    return outcome


def _copies(problem: Problem) -> list[str]:
    if "retain" not in problem.sources:
        return []
    count = len(copies(problem.sources["forget"], problem.sources["retain"]))
    if not count:
        return []
    note = f"{count} retained rows have the same content as rows to forget: the model goes on knowing it"
    warnings.warn(note, stacklevel=3)
    return [note]


def _reference(problem: Problem, given: Retrained) -> Reference:
    model, without = given if isinstance(given, tuple) else (given, None)
    if without is not None:
        name = "a reference" if isinstance(model, nn.Module) else f"the reference {model}"
        check_without(name, list(without), problem.source("forget"))
    return Reference(model if isinstance(model, nn.Module) else load(model, problem.model))


def learn(
    model: nn.Module,
    rows: Any,
    recipe: Recipe | dict[str, Any] | None = None,
    *,
    seed: int = 0,
    task: Task | str | None = None,
    folder: str | Path | None = None,
    watch: Sequence[Watch] = (),
) -> nn.Module:
    """Train a copy of ``model``, from the weights it has, and return it in evaluation mode.

    A fresh network trained on the retained rows by the original's recipe is a reference for ``forget``.

    Args:
        model: stays as it is.
        rows: (x, y), a dict of columns, a Dataset, a DataLoader or a Source.
        recipe: settings, such as ``{"lr": 0.1, "epochs": 5}``; see ``oblivio.jobs.recipe.Recipe``.
        seed: of the order of rows and of augmentation.
        task: default: classification for whole targets, regression for floating ones.
        folder: where checkpoints lie, from which a killed training goes on.
        watch: called after every step with (run, stage, step).

    Raises:
        BadInput: settings or rows that cannot be used.
    """
    settings = recipe if isinstance(recipe, Recipe) else parse(Recipe, recipe or {}, "recipe")
    if settings.train is not None:
        raise BadInput(f"learn trains the model it is given by settings; call {settings.train} yourself")
    place = None if folder is None else Path(folder)
    made = fitted(copy.deepcopy(model), settings, as_source(rows, "rows"), seed, place, task=task, watch=watch)
    return made.module.eval()


def audit(
    subject: Outcome | nn.Module,
    problem: Problem | None = None,
    *,
    references: int | Iterable[Retrained] = (),
    recipe: Recipe | dict[str, Any] | None = None,
    tolerances: Mapping[str, float] | None = None,
    leave_out: Sequence[str] = (),
) -> Report:
    """Put a model beside its original and models retrained without the rows, attack all of them alike, and judge it.

    Args:
        subject: an outcome, or a model that was changed elsewhere.
        problem: for a model: the request, on the original.
        references: as for ``forget``, beside those of the outcome; or a number: so many are trained, each from new
            random weights of the original's network on the retained rows, by ``recipe``, and so is a control on all
            rows, which shows whether the recipe is that of the original.
        recipe: how the original was trained, such as ``{"optimiser": "adamw", "lr": 2e-3, "epochs": 20}``.
        tolerances: by figure, the least half width of its band, in place of the policy's.
        leave_out: probes that are not made, such as ``relearning``, which trains.

    Returns:
        the report: ``report.verdict``, ``report.table()``, ``report.save("report.html")``.

    Raises:
        BadInput: a model without a problem, a number of references without a recipe, or a network whose weights
            cannot be drawn anew.

    Example:
        ``report = audit(outcome, references=3, recipe={"optimiser": "adamw", "lr": 2e-3})``
    """
    if not isinstance(subject, Outcome):
        if problem is None:
            raise BadInput("audit: give problem=, the original with the rows to forget, for a model of its own")
        subject = _foreign(subject, problem)
    more, control = _standards(subject.original, references, recipe)
    settings = Audit(tolerances=dict(tolerances or {}), leave_out=list(leave_out))
    background = dataclasses.replace(subject.background, settings=settings)
    if control is not None:
        background = dataclasses.replace(background, control=control)
    return audited(subject, [*subject.references, *more], background)


def _standards(
    original: Problem, references: int | Iterable[Retrained], recipe: Recipe | dict[str, Any] | None
) -> tuple[list[Reference], nn.Module | None]:
    """References, given or trained now, and with the latter a control on all rows."""
    if not isinstance(references, int):
        return [_reference(original, given) for given in references], None
    if references == 0:
        return [], None
    if recipe is None:
        raise BadInput(f"references={references}: say with recipe= how the original was trained; so are they")
    settings = _recipe(recipe)
    return anew.references(original, settings, references), anew.control(original, settings)


def _recipe(given: Recipe | dict[str, Any]) -> Recipe:
    settings = given if isinstance(given, Recipe) else parse(Recipe, given, "recipe")
    if settings.train is not None:
        raise BadInput(f"references are trained by settings; train them by {settings.train} yourself, and give them")
    return settings


def _foreign(model: nn.Module, problem: Problem) -> Outcome:
    """An outcome around a model that was not made here."""
    changed = problem.copy()
    changed.nets["model"] = copy.deepcopy(model).to(problem.team.device)
    serving.check(changed)
    return Outcome(changed, problem, Chosen(Plan([]), "outcome", {}), {}, making=None)


def protect(problem: Problem, method: str | Stage, **settings: Any) -> Outcome:
    """Change a copy of a model against attacks, such as a backdoor, by a method of the kind ``protection``.

    Args:
        problem: the model and what the method needs, mostly a few clean rows as ``retain``; none need to be forgotten.
        method: the name of a method of that kind (`oblivio methods`), or a plan.
        settings: of the method.

    Raises:
        BadInput: no such method or setting, or a problem that it cannot serve.

    Example:
        ``model = protect(Problem(model, retain=clean_rows), "ebyd").model``
    """
    chosen = choose(method, settings, kind="protection")
    serving.check(problem, chosen.spec)
    return _run(problem, chosen, [], [], None, ())


def load(folder: str | Path, base: nn.Module | None = None, factory: str | None = None) -> nn.Module:
    """The model in a folder that ``save``, an outcome or a run wrote, in evaluation mode.

    Args:
        folder: of the model, or of the run.
        base: the module before any surgery, for a model of your own that was saved without its architecture.
        factory: your own ``package.module:factory`` that built the model; no code is run on a folder's word alone.

    Raises:
        BadInput: no model there, half of one, a pickle, or an interrupted run.
    """
    return weights.saved(Path(folder), base, factory).module


def save(subject: Outcome | nn.Module, folder: str | Path, *, task: str | None = None) -> None:
    """Write an outcome (model and report) or a model into a new or empty folder.

    Args:
        subject: what to write. A module comes back with ``load(folder, base=...)``: how to build it is not known.
        folder: where to.
        task: of a module: classification, binary, multilabel or regression.

    Raises:
        BadInput: a folder that holds something or cannot be written, or a module without ``task``.
    """
    if isinstance(subject, Outcome):
        subject.save(folder)
        return
    if task is None:
        raise BadInput(f"save: say with task= what the model does: {', '.join(TASKS)}")
    folders.check_new(Path(folder))
    artefact.save(Path(folder), subject, task=known_task(task))


def learner(
    model: nn.Module | None,
    method: str | Stage,
    *,
    task: Task | str = "classification",
    seed: int = 0,
    pieces: Iterable[Piece] = (),
    folder: str | Path | None = None,
    grow: bool = True,
    active: str = "seen",
    **settings: Any,
) -> Any:
    """A model that goes on learning and forgetting.

    Args:
        model: where it starts; copies of it are used; heads in closed form take it as a frozen encoder. None for
            ``certified``, which is a model of its own.
        method: a continual method such as ``er`` or ``ewc``, another registered method, or a plan, which is run for
            every experience; or ``sisa``, ``s3t``, ``acu``, ``ridge`` or ``certified``, which forget with a guarantee
            (`oblivio methods` lists all).
        task: classification, binary, multilabel or regression; of a plan it may be a Task.
        seed: of all randomness.
        pieces: changes of the plan, in order: names, (name, settings), or functions from plan to plan.
        folder: where a continual learner keeps its state; the same call goes on from there after a kill.
        grow: give the head more outputs where an experience has classes beyond them.
        active: the outputs that the training loss of the scenario ``class`` uses: all classes ``seen`` so far, ``all``
            outputs, or those of the ``current`` experience.
        settings: of the method.

    Returns:
        with ``learn``, ``forget`` and ``predict``; see ``oblivio.learners``.

    Raises:
        BadInput: an unknown method or setting, or a task that it is not for.

    Example:
        ``learner(model, "er", buffer=500).learn(experience).forget([4, 8])``
    """
    if isinstance(method, str) and method in learners.registry.names:
        make = learners.registry.get(method)(**settings)
        return make() if model is None else make(model, task=task, seed=seed)
    if model is None:
        raise BadInput(f"learner: {method} changes a model; give one")
    kind = methods.spec(method).kind if isinstance(method, str) else ""
    chosen = choose(method, settings, pieces, kind=kind)
    name = task if isinstance(task, str) else task.name
    if chosen.spec is not None and name not in chosen.spec.tasks:
        raise BadInput(f"{method} is for {', '.join(chosen.spec.tasks)}; this task is {name}")
    return Learner(model, chosen.plan, task, seed, folder=folder, grow=grow, active=active)
