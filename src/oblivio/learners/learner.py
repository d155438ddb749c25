"""Learner: a model that keeps learning and forgetting. One plan for every experience; clocks restart, memories stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.task import Task
from oblivio.sources import as_source


class Learner:
    """``learn(new=rows)`` runs the plan on the rows; ``forget(rows)`` lets every Part drop what it holds of them."""

    def __init__(self, model: nn.Module, plan: Stage, task: Task | str, seed: int = 0) -> None:
        self.problem = Problem(model, task=task, seed=seed)
        self.plan = copy.deepcopy(plan)

    def learn(self, **sources: Any) -> Learner:
        """One experience; the next turn of the same plan."""
        for name, value in sources.items():
            self.problem.sources[name] = self.problem._named(name, as_source(value, name))
        self.problem.turn += 1
        Run(self.plan, self.problem, fresh=False).go()
        return self

    def forget(self, rows: Any, weights: Callable[[Problem], Problem] | None = None) -> Learner:
        """Drop rows from every Part that holds them and, with ``weights``, from the weights too.

        ``weights``: takes the problem with the rows as source ``forget`` and changes it, as ``ob.forget`` does.
        """
        source = self.problem._named("forget", as_source(rows, "forget"))
        for _, part in walk(self.plan, "plan"):
            part.forget(source)
        if weights is not None:
            self.problem.sources["forget"] = source
            self.problem = weights(self.problem)
            del self.problem.sources["forget"]
        return self

    def predict(self, x: Tensor) -> Tensor:
        """Served outputs for inputs of shape (n, ...)."""
        return self.problem.predict(as_source(x, "asked"))
