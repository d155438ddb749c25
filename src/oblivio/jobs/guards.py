"""Guards: watchers of a run that stop it. Only the copy that is being changed is lost."""

from __future__ import annotations

import time

from oblivio.core.errors import Stopped
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.jobs.job import Guards

EVERY = 100  # steps between two looks at the retained rows
ROWS = 2048  # of them that a look takes; at the end it takes all


class Watcher:
    """Called after every step, and by ``finish`` at the end; raises Stopped where a limit is passed."""

    def __init__(self, guards: Guards, problem: Problem) -> None:
        self.guards = guards
        self.rows = sum(len(problem.sources[name]) for name in ("forget", "retain") if name in problem.sources)
        self.began = time.monotonic()

    def __call__(self, run: Run, stage: Stage, step: Step) -> None:
        self._budgets(run)
        if self.guards.retain_floor is not None and run.steps % EVERY == 0:
            self._floor(run.problem, ROWS)

    def finish(self, run: Run) -> None:
        """The last look, which edits get too."""
        self._budgets(run)
        if self.guards.retain_floor is not None:
            self._floor(run.problem, None)

    def _budgets(self, run: Run) -> None:
        passes = sum(run.problem.passes.values()) / self.rows
        if self.guards.passes is not None and passes > self.guards.passes:
            raise Stopped(
                f"{passes:.1f} passes over all rows are more than guards.passes = {self.guards.passes:g}{KEPT}"
            )
        seconds = time.monotonic() - self.began
        if self.guards.seconds is not None and seconds > self.guards.seconds:
            raise Stopped(f"{seconds:.0f} s are more than guards.seconds = {self.guards.seconds:g}{KEPT}")

    def _floor(self, problem: Problem, most: int | None) -> None:
        retain = problem.source("retain")
        rows = retain if most is None else retain.take(range(min(most, len(retain))))
        score, floor = problem.score(rows), self.guards.retain_floor
        if floor is not None and score < floor:
            raise Stopped(f"accuracy on retained rows is {score:.3f}, below guards.retain_floor = {floor:g}{KEPT}")


KEPT = "; the original model is untouched"
