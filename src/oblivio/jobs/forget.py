"""The main job, from a request to a folder with the new model; killed at any moment, it goes on to the same bits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from oblivio import records
from oblivio.core.errors import Stopped
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run, Watch
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.team import gather
from oblivio.jobs import cache, folder, references
from oblivio.jobs.auditing import Background
from oblivio.jobs.derived import Derived, derived
from oblivio.jobs.folder import LOG, WORK, Log
from oblivio.jobs.job import Job
from oblivio.jobs.ladder import AUTO, FRESH, Ladder, climb
from oblivio.jobs.method import Chosen, apply, peak
from oblivio.jobs.outcome import Outcome, cost
from oblivio.jobs.prepare import Ready, prepare
from oblivio.jobs.references import Reference
from oblivio.jobs.training import forwarded

EVERY = 10.0  # seconds between two lines of the log while something is trained


def run(
    job: Job, out: str | Path, *, watch: Sequence[Watch] = (), resume: bool = False, control: bool = True
) -> Outcome:
    """Do a job.

    Args:
        job: what to do.
        out: a new folder: ``model/``, ``job.yaml`` with every default visible, ``log.jsonl``, ``report.html``,
            ``report.json``, and, unless the job leaves them out, ``rows.parquet``.
        watch: called after every step of every training, as ``Run`` does.
        resume: go on with the job that was interrupted in ``out``.
        control: whether weights that were given may not be by the recipe, so that a model shows whether they are.

    Returns:
        the outcome; its report has been made. Of a job with ``audit.outcome`` it is that model, unchanged.

    Raises:
        BadInput: anything that cannot be served, found before anything is written.
        Stopped: a guard, or NaN; the original is untouched.
    """
    out, team = Path(out), gather(job.processes, job.precision)
    if team.rank == 0 and not resume:
        folder.check_new(out)
    if resume:
        folder.check_resumable(out)
    ready = prepare(job, team)
    if resume:
        folder.check_resumable(out, ready.job)
    elif team.rank == 0:
        folder.begin(out, ready.job)
    team.wait()
    return _Stages(ready, out, watch, control).run()


class _Stages:
    """The stages of a job that has been checked. Each finds what is already done."""

    def __init__(self, ready: Ready, out: Path, watch: Sequence[Watch], control: bool) -> None:
        self.control = control
        self.ready, self.out, self.job, self.team = ready, out, ready.job, ready.team
        self.log = Log(out / LOG)
        self.watch: tuple[Watch, ...] = (*watch, self._progress)
        self.logged = time.monotonic()
        self.stage = ""

    def run(self) -> Outcome:
        try:
            original, training = self._original()
            outcome = self._outcome(original, training)
        except Stopped as stop:
            self._enter("stopped", str(stop))
            raise
        return self._audit(outcome)

    def _original(self) -> tuple[nn.Module, list[Reference]]:
        """The model to change, and what its training took where that is known."""
        ready = self.ready
        if ready.original is not None:
            return ready.original.module, []
        self._enter("original", f"the original: {self.job.model.name} on {len(ready.rows.train):,} rows")
        made = self._trained(ready.rows.train, self.job.seed)
        return made.module, [made]

    def _outcome(self, original: nn.Module, training: list[Reference]) -> Outcome:
        ready, problem = self.ready, self.ready.problem(original)
        if ready.chosen.name == AUTO:
            return self._climbed(problem)
        took: tuple[float, dict[str, int], int] | None
        if ready.outcome is None:
            self._record(problem)
            changed, took = self._method(problem, ready.chosen, self.out / WORK)
        else:
            changed, took = self._given(problem)
        retrained = [*ready.given, *self._references(self.job.references.count)]
        spent = {} if took is None else cost(*took, retrained if any(r.seconds for r in retrained) else training)
        return Outcome(changed, problem, ready.chosen, spent, retrained, ready.notes, ready.making, self._background())

    def _background(self) -> Background:
        control = self._control()  # before what derives from the rows is listed, for it does
        return Background(self.job.audit, self._data(), self._derived(), control)

    def _climbed(self, problem: Problem) -> Outcome:
        """The first method that is accepted and confirmed, or retraining; see ``oblivio.jobs.ladder``."""
        ready, count = self.ready, self.job.references.count
        known, background = [*ready.given, *self._references(count)], self._background()

        def made(chosen: Chosen, changed: Problem, spent: dict[str, Any]) -> Outcome:
            return Outcome(changed, problem, chosen, spent, known, ready.notes, ready.making, background)

        def retrained() -> Reference:
            self._enter("retraining", f"retraining on {len(ready.rows.retain):,} rows, for no method was accepted")
            return self._trained(ready.rows.retain, references.exact_seed(self.job.seed))

        return climb(
            problem, Ladder(**ready.chosen.settings), known, made=made, retrained=retrained,
            run=lambda chosen: self._method(problem, chosen, self.out / WORK / chosen.name),
            fresh=lambda before: self._references(FRESH, count + before),
        )  # fmt: skip

    def _record(self, problem: Problem) -> None:
        """Make what the method needs of the training, from the original and the rows it was trained on."""
        for name in self.ready.wanted:
            self._enter("record", f"the record {name} of the training")
            trained = Problem(problem.copy().model, task=problem.task, seed=problem.seed, train=self.ready.rows.train)
            problem.records[name] = records.make(name, trained)

    def _method(
        self, problem: Problem, chosen: Chosen, work: Path
    ) -> tuple[Problem, tuple[float, dict[str, int], int]]:
        """The problem after the method; seconds, rows forwarded, and the most memory in use."""
        self._enter("method", f"{chosen.name}: {len(self.ready.rows.forget):,} rows to forget")
        changed, seconds = apply(chosen.plan, problem, work, guards=self.job.guards, watch=self.watch)
        return changed, (seconds, forwarded(changed), peak(self.team.device))

    def _given(self, problem: Problem) -> tuple[Problem, None]:
        """The problem with the model that was changed before; what that took is not known."""
        assert self.ready.outcome is not None
        changed = problem.copy()
        changed.nets["model"] = self.ready.outcome.module.to(self.team.device)
        return changed, None

    def _references(self, count: int, first: int = 0) -> list[Reference]:
        """So many references; the job's own are those from number 0 on."""
        rows, found = self.ready.rows.retain, []
        for number in range(first, first + count):
            of = f" of {self.job.references.count}" if number < self.job.references.count else ", to confirm"
            self._enter("reference", f"reference {number + 1}{of}: retraining on {len(rows):,} rows")
            found.append(self._trained(rows, references.seed_of(self.job.seed, number)))
        return found

    def _control(self) -> nn.Module | None:
        """A model trained on all rows as the references are, where the original came ready-made."""
        if self.ready.original is None or not self.job.references.count or not self.control:
            return None
        self._enter("control", "a control: the recipe on all rows, to see whether it makes models like the original")
        return self._trained(self.ready.rows.train, references.control_seed(self.job.seed)).module

    def _trained(self, rows: Source, seed: int) -> Reference:
        """A model trained by the job's recipe, kept from before or made now, and what that took."""
        ready = self.ready
        assert ready.network is not None
        made = cache.trained(
            self.job.recipe, ready.network, rows, seed, task=ready.dataset.task, team=self.team, watch=self.watch
        )
        return Reference(made.module, made.seconds, made.rows)

    def _data(self) -> dict[str, Any]:
        dataset = self.ready.dataset
        return {"name": dataset.name, "licence": dataset.licence, "classes": dataset.classes}

    def _derived(self) -> list[Derived]:
        """The original, where it was read from or is kept, and the kept control."""
        if self.team.rank != 0:
            return []
        found = [] if self.job.model.weights is None else [(Path(self.job.model.weights), "the original model")]
        if self.ready.network is not None:
            seeds = {self.job.seed: "the original model, kept to be used again",
                     references.control_seed(self.job.seed): "a control trained on all rows"}  # fmt: skip
            found += [(self._kept(seed), what) for seed, what in seeds.items()]
        return [derived(path, what) for path, what in found if path.exists()]

    def _kept(self, seed: int) -> Path:
        """Where a model of this seed that was trained on all rows is kept, if it is."""
        ready = self.ready
        assert ready.network is not None
        return cache.place(cache.parts(
            self.job.recipe, ready.network, ready.rows.train, seed, task=ready.dataset.task, team=self.team
        ))  # fmt: skip

    def _audit(self, outcome: Outcome) -> Outcome:
        """The model and the report are written; with ``report.json`` the run is finished."""
        if self.team.rank == 0:
            self._enter("audit", "the audit of all models")
            outcome.write(self.out)
            verdict = outcome.report.verdict
            self._enter("end", f"{verdict.word}: {self.out}", cost=outcome.cost, reasons=list(verdict.reasons))
            folder.tidy(self.out, WORK)
        self.team.wait()
        return outcome

    # --- saying what happens

    def _enter(self, stage: str, sentence: str, **facts: object) -> None:
        self.stage = stage
        if self.team.rank == 0:
            self.log(stage, message=sentence, **facts)

    def _progress(self, run: Run, stage: Stage, step: Step) -> None:
        if self.team.rank != 0 or time.monotonic() - self.logged < EVERY:
            return
        self.logged = time.monotonic()
        loss = None if step.loss is None else float(step.loss)
        self.log("step", stage=self.stage, place=stage.place, t=step.t, end=step.end, loss=loss)
