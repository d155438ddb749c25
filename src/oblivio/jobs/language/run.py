"""The main job for language models; killed at any moment, it goes on to the same bits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from oblivio.core.files import write_bytes
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run, Watch
from oblivio.core.step import Step
from oblivio.core.team import gather
from oblivio.jobs import folder, references
from oblivio.jobs.auditing import Background
from oblivio.jobs.folder import LOG, WORK, Log
from oblivio.jobs.job import Audit
from oblivio.jobs.language.job import NEW, LanguageJob
from oblivio.jobs.language.prepare import Ready, located, prepare
from oblivio.jobs.language.training import learn
from oblivio.jobs.method import apply, peak
from oblivio.jobs.outcome import Making, Outcome, cost
from oblivio.jobs.references import Reference
from oblivio.jobs.training import forwarded
from oblivio.networks.language.folder import FACTS, journal_of, open_model, save_model

EVERY = 10.0  # seconds between two lines of the log while something is trained
SAID, ORIGINAL = "texts.jsonl", "original"


def run(job: LanguageJob, out: str | Path, *, watch: Sequence[Watch] = (), resume: bool = False) -> Outcome:
    """Do a job.

    Args:
        job: what to do.
        out: a new folder: ``model/`` (of Transformers or PEFT; an adapter's base, where it was trained here, is in
            ``original/``), ``job.yaml`` with every default visible, ``log.jsonl``, ``report.html``, ``report.json``,
            ``rows.parquet``, and ``texts.jsonl`` where the job asks for it.
        watch: called after every step of every training.
        resume: go on with the job that was interrupted in ``out``.

    Raises:
        BadInput: anything that cannot be served, found before anything is written.
        Stopped: NaN; the original is untouched.
    """
    out, team = Path(out), gather(job.processes, job.precision, sharding=job.sharding)
    if team.rank == 0:
        folder.check_resumable(out) if resume else folder.check_new(out)
    ready = prepare(job, team)
    team.wait()
    if team.rank == 0 and not resume:
        folder.begin(out, ready.job)
    team.wait()
    return _Work(ready, out, watch).do()


class _Work:
    """A job that is being done."""

    def __init__(self, ready: Ready, out: Path, watch: Sequence[Watch]) -> None:
        self.ready, self.job, self.out = ready, ready.job, out
        self.log, self.stage, self.logged = Log(out / LOG), "", 0.0
        self.watch = (*watch, self._progress)

    def do(self) -> Outcome:
        problem, changed, spent = self._sharded() if self.ready.team.sharded else self._whole()
        known = self._references()
        outcome = Outcome(changed, problem, self.ready.chosen, spent, known, self.ready.notes, self._making(),
                          self._background())  # fmt: skip
        if self.ready.team.rank == 0:
            self._enter("audit", "the audit of all models")
            outcome.write(self.out)
            if self.job.audit.show_texts:
                self._show(outcome)
            verdict = outcome.report.verdict
            self._enter("end", f"{verdict.word}: {self.out}", cost=spent, reasons=list(verdict.reasons))
            folder.tidy(self.out, WORK)
        self.ready.team.wait()
        return outcome

    def _whole(self) -> tuple[Problem, Problem, dict[str, Any]]:
        """The request, the request after the method, and what that took."""
        problem = self.ready.problem(self._original())
        return (problem, *self._changed(problem))

    def _sharded(self) -> tuple[Problem, Problem, dict[str, Any]]:
        """The same where no process holds a whole model: what it became is written, and read again for the audit."""
        path = self.out / folder.MODEL
        if not (path / FACTS).exists():
            problem, chosen = self.ready.problem(self._original()), self.ready.chosen
            self._enter("method", f"{chosen.name}: {len(problem.source('forget')):,} texts to forget, in shards")
            run = Run(chosen.plan, problem, self.out / WORK, watch=self.watch)
            run.resume().go()
            facts = {"method": chosen.name, "settings": chosen.settings, "plan": repr(run.plan), "base": self._base}
            save_model(path, problem.model, self.ready.tokenizer, journal=problem.journal, base=self._base, facts=facts)
        ready = replace(self.ready, team=replace(self.ready.team, sharded=False))
        original, changed = (ready.problem(open_model(of, self.job.model.trust)[0]) for of in (self._base, path))
        return original, changed, {}

    @property
    def _base(self) -> str:
        """Where the model lies that was given, or, where it was trained here, beside which an adapter stands."""
        given = self.job.model.folder
        return str((self.out / ORIGINAL).absolute()) if given is None else located(given)

    def _original(self) -> nn.Module:
        """The model that was given, or one trained on all that is to be known."""
        if self.ready.model is not None:
            model: nn.Module = self.ready.model
            return model
        self._enter("original", "training the original on all texts")
        model = self._learned("retain+test+forget", self.job.seed)
        if self.job.adapter is not None and self.ready.team.rank == 0 and not (self.out / ORIGINAL).exists():
            save_model(self.out / ORIGINAL, model, self.ready.tokenizer)  # an adapter is nothing without its base
        return model

    def _learned(self, roles: str, seed: int) -> nn.Module:
        """A small model trained here on the texts of these roles, or kept from before."""
        found = {text.id: text for role in roles.split("+") for text in self.ready.roles.get(role, ())}
        tokens, recipe, model = self.ready.encoded(tuple(found.values())), self.job.recipe, self.job.model
        return learn(tokens, self.ready.tokenizer, seed, network=model.network, steps=recipe.steps, lr=recipe.lr,
                     batch=recipe.batch, watch=self.watch, **model.options)  # fmt: skip

    def _changed(self, problem: Problem) -> tuple[Problem, dict[str, Any]]:
        """The request after the method, and what that took; or with the model that was changed before."""
        if self.ready.outcome is not None:
            changed = problem.copy()
            changed.nets["model"] = self.ready.outcome
            return changed, {}
        chosen = self.ready.chosen
        self._enter("method", f"{chosen.name}: {len(problem.source('forget')):,} texts to forget")
        changed, seconds = apply(chosen.plan, problem, self.out / WORK, watch=self.watch)
        return changed, cost(seconds, forwarded(changed), peak(self.ready.team.device), [])

    def _references(self) -> list[Reference]:
        """Folders that were given, and models trained here without the texts."""
        found = []
        for path in self.job.references.given:
            self._enter("reference", f"the reference in {path}")
            found.append(Reference(open_model(path, self.job.model.trust)[0]))
        for number in range(self.job.references.count):
            self._enter(
                "reference", f"reference {number + 1} of {self.job.references.count}: retraining without the texts"
            )
            found.append(Reference(self._retrained(references.seed_of(self.job.seed, number) % 2**31)))
        return found

    def _retrained(self, seed: int) -> nn.Module:
        if self.job.recipe.start in (None, NEW):
            return self._learned("retain+test", seed)
        return self._tuned(seed)

    def _tuned(self, seed: int) -> nn.Module:
        """A model fine-tuned on retained texts from where the original began."""
        from oblivio.core.descent import Descent
        from oblivio.core.opt import adamw, cosine
        from oblivio.tasks.language import CausalLM
        from oblivio.terms import fit

        assert self.job.recipe.start is not None
        recipe, (model, _) = self.job.recipe, open_model(self.job.recipe.start, self.job.model.trust)
        problem = Problem(model, task=CausalLM(), seed=seed, team=self.ready.team, retain=self.ready.tokens["retain"])
        plan = Descent(fit("retain"), opt=adamw(recipe.lr, wd=0.01, schedule=cosine), steps=recipe.steps,
                       batch=recipe.batch)  # fmt: skip
        Run(plan, problem, watch=self.watch).go()
        return problem.model.eval()

    def _making(self) -> Making | None:
        """What saving the new model takes; None where none is made."""
        if self.ready.outcome is not None:
            return None
        if self.job.model.folder is None and self.job.adapter is None:
            return Making()
        return Making(journal=journal_of(self._base), base=self._base)

    def _background(self) -> Background:
        audit = self.job.audit
        settings = Audit(tolerances=audit.tolerances, leave_out=audit.leave_out, rows=audit.rows, attacks=audit.attacks)
        data = {"name": self.ready.texts.name, "licence": self.ready.texts.licence or "not stated", "classes": None}
        return Background(settings=settings, data=data)

    def _show(self, outcome: Outcome) -> None:
        """What was asked of the new model, what is true, and what it said; one JSON object a line."""
        from oblivio.audits.language.shown import lines

        write_bytes(self.out / SAID, "".join(lines(outcome.problem)).encode())

    # --- saying what happens

    def _enter(self, stage: str, sentence: str, **facts: object) -> None:
        self.stage = stage
        if self.ready.team.rank == 0:
            self.log(stage, message=sentence, **facts)

    def _progress(self, run: Run, stage: Stage, step: Step) -> None:
        if self.ready.team.rank != 0 or time.monotonic() - self.logged < EVERY:
            return
        self.logged = time.monotonic()
        loss = None if step.loss is None else float(step.loss)
        self.log("step", stage=self.stage, place=stage.place, t=step.t, end=step.end, loss=loss)
