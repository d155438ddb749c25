"""Stop when the forgotten rows do no better than rows would that were never seen."""

from __future__ import annotations

import torch
from torch import Tensor

from oblivio.core.part import Part
from oblivio.core.problem import Problem


class unseen(Part):  # noqa: N801 - used like a function
    """True once the figure of ``forget`` is no better than what held-out ``valid`` rows let expect at the start.

    Classes that the retained rows still have are expected at their validation accuracy; classes that are gone at 0,
    as a retrained model cannot name them. A regression compares mean errors. Without ``valid`` rows never true: the
    descent then runs its full length.
    """

    def __init__(self, forget: str = "forget", valid: str = "valid") -> None:
        self.forgotten, self.valid = forget, valid

    def prepare(self, problem: Problem) -> None:
        if self.valid in problem.sources:
            self.state["level"] = self._level(problem)

    def __call__(self, problem: Problem) -> bool:
        if "level" not in self.state:
            return False
        now, level = problem.score(self.forgotten), self.state["level"]
        return now <= level if problem.task.higher else now >= level

    def _level(self, problem: Problem) -> float:
        asked = _labels(problem, self.forgotten)
        if asked.dim() != 1 or asked.is_floating_point() or "retain" not in problem.sources:
            return problem.score(self.valid)
        with torch.no_grad():
            right = problem.tabulate(self.valid, lambda nets, b: problem.task.quality(problem.served(nets, b), b))
        labels, kept = _labels(problem, self.valid), torch.unique(_labels(problem, "retain"))
        means = {int(c): float(right[labels == c].mean()) for c in kept if (labels == c).any()}
        gone = set(asked.tolist()) - set(kept.tolist())
        return sum(0.0 if c in gone else means.get(c, float(right.mean())) for c in asked.tolist()) / len(asked)


def _labels(problem: Problem, on: str) -> Tensor:
    return torch.cat([batch["y"] for batch in problem.source(on).batches(4096)])
