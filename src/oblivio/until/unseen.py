"""Stop when the forgotten rows do no better than rows would that were never seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from oblivio.core.problem import Problem
from oblivio.core.source import Source


@dataclass(frozen=True)
class unseen:  # noqa: N801 - used like a function
    """True once the figure of ``forget`` is no better than what held-out ``valid`` rows let expect.

    Classes that the retained rows still have are expected at their validation accuracy; classes that are gone at 0,
    as a retrained model cannot name them. A regression compares mean errors. Without ``valid`` rows never true: the
    descent then runs its full length.
    """

    forget: str = "forget"
    valid: str = "valid"

    def __call__(self, problem: Problem) -> bool:
        if self.valid not in problem.sources:
            return False
        if not problem.task.higher:
            return problem.score(self.forget) >= problem.score(self.valid)
        return problem.score(self.forget) <= self.expected(problem)

    def expected(self, problem: Problem) -> float:
        """Accuracy to be expected of a retrained model on the forgotten rows, by class where labels are classes."""
        asked = _labels(problem, self.forget)
        if asked.dim() != 1 or "retain" not in problem.sources:
            return problem.score(self.valid)
        right = problem.tabulate(self.valid, lambda nets, b: problem.task.quality(problem.served(nets, b), b))
        labels, kept = _labels(problem, self.valid), torch.unique(_labels(problem, "retain"))
        hits = {int(c): right[labels == c] for c in kept}
        mean = {c: float(h.mean()) if len(h) else float(right.mean()) for c, h in hits.items()}
        return sum(mean.get(int(c), 0.0) for c in asked) / len(asked)


def _labels(problem: Problem, on: str) -> torch.Tensor:
    source: Source = problem.source(on)
    cache: dict[str, torch.Tensor] = source.__dict__.setdefault("_labels", {})
    if "y" not in cache:
        cache["y"] = torch.cat([batch["y"] for batch in source.batches(4096)])
    return cache["y"]
