"""Weights that press hardest on the examples a model remembers best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oblivio.core.part import Part
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import On, source_name


@dataclass(frozen=True)
class memorised:
    """w_i proportional to exp(-loss_i / tau) at the present weights, mean 1 over the batch; no gradient through it.

    tau to infinity gives equal weights; tau to 0 picks the best fitted example alone. It relates the rows of a batch.
    """

    tau: float = 1.0
    whole = True

    def __call__(self, step: Step, on: On) -> Tensor:
        with torch.no_grad():
            loss = step.task.each(step.out(on).detach(), step.batch(on))
            return len(loss) * torch.softmax(-loss / self.tau, 0)


class memorised_at_start(Part):
    """The same from the losses at the start of the run, in evaluation mode, mean 1 over the source; one pass over it.

    ``state`` holds the weights of every row, (rows,), by the name of the source. Rows have theirs alone, so that
    batches can be chunked.
    """

    keeps = ("start",)

    def __init__(self, tau: float = 1.0) -> None:
        self.tau = tau

    def prepare(self, problem: Problem) -> None:
        self.state.clear()

    def __call__(self, step: Step, on: On) -> Tensor:
        name = source_name(on)
        if name not in self.state:
            self.state[name] = self._all(step.problem, on)
        weights: Tensor = self.state[name]
        return weights[step.batch(on).rows.to(weights.device)]

    def _all(self, problem: Problem, on: On) -> Tensor:
        task = problem.task
        with torch.no_grad():
            loss = problem.tabulate(
                on,
                lambda _, batch: problem.at("start", lambda nets: task.each(task.forward(nets, "model", batch), batch)),
            )
        return len(loss) * torch.softmax(-loss / self.tau, 0)
