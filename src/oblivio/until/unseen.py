"""Stop when the forgotten rows do no better than rows would that were never seen."""

from __future__ import annotations

import torch
from torch import Tensor

from oblivio.core.part import Part
from oblivio.core.problem import Problem


class unseen(Part):
    """True once the figure of ``forget`` is no better than what rows would get that were never learned.

    Classes that the retained rows still have are expected at the accuracy that the start has on held-out ``valid``
    rows of them; classes that are gone at ``gone``, as a retrained model cannot name them. A regression compares mean
    errors. Where ``valid`` rows are needed and missing it is never true: the descent then runs its full length.
    """

    writes = False

    def __init__(self, forget: str = "forget", valid: str = "valid", gone: float = 0.01) -> None:
        self.forgotten, self.valid, self.gone = forget, valid, gone

    def prepare(self, problem: Problem) -> None:
        level = self._level(problem)
        if level is not None:
            self.state["level"] = level

    def __call__(self, problem: Problem) -> bool:
        if "level" not in self.state:
            return False
        now, level = problem.score(self.forgotten), self.state["level"]
        return now <= level if problem.task.higher else now >= level

    def _level(self, problem: Problem) -> float | None:
        gone = self._gone(problem)
        if gone.all():
            return self.gone
        if self.valid not in problem.sources:
            return None
        if not gone.any():  # a regression, labels of another form, or rows of classes that stay
            return self._kept(problem, _labels(problem, self.forgotten))
        kept = self._kept(problem, _labels(problem, self.forgotten)[~gone])
        share = float(gone.double().mean())
        return share * self.gone + (1 - share) * kept

    def _gone(self, problem: Problem) -> Tensor:
        """For every forgotten row whether no retained row has its class; shape (rows,)."""
        asked = _labels(problem, self.forgotten)
        if asked.dim() != 1 or asked.is_floating_point() or "retain" not in problem.sources:
            return torch.zeros(len(asked), dtype=torch.bool)
        return ~torch.isin(asked, _labels(problem, "retain"))

    def _kept(self, problem: Problem, asked: Tensor) -> float:
        """The start's figure on valid rows, classes in the shares that they have in ``asked``."""
        with torch.no_grad():
            figure = problem.tabulate(self.valid, lambda nets, b: problem.task.quality(problem.served(nets, b), b))
        if asked.dim() != 1 or asked.is_floating_point():
            return float(figure.mean())
        labels = _labels(problem, self.valid)
        means = {int(c): float(figure[labels == c].mean()) for c in labels.unique()}
        return sum(means.get(c, float(figure.mean())) for c in asked.tolist()) / len(asked)


def _labels(problem: Problem, on: str) -> Tensor:
    """The targets of all rows; where a row has several, an empty table that says so."""
    source = problem.source(on)
    if source.batch(torch.arange(1))["y"].dim() > 1:
        return torch.empty(len(source), 0)
    return torch.cat([batch["y"] for batch in source.batches(4096)])
