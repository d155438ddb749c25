"""Train towards targets that are found once for every row."""

from __future__ import annotations

from torch import Tensor

from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import On, Term


class toward(Term):
    """The training loss with ``state["target"]`` as targets, weighed by ``state["weight"]`` if that is there.

    Both are tables by row, which ``find`` fills before the first step of the stage.
    """

    def __init__(self, on: On) -> None:
        self.on = on

    def find(self, problem: Problem) -> dict[str, Tensor]:
        """The tables, each of shape (rows, ...)."""
        raise NotImplementedError

    def prepare(self, problem: Problem) -> None:
        self.state.update(self.find(problem))

    def __call__(self, step: Step) -> Tensor:
        batch = step.batch(self.on)
        values = step.task.each(step.out(self.on), batch.but(y=self.state["target"][batch.rows]))
        if "weight" in self.state:
            values = values * self.state["weight"][batch.rows]
        return values.sum() / step.count(self.on)
