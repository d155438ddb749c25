"""How well a rule that projects gradients keeps what it promises, looked at in every step of a run."""

from __future__ import annotations

from typing import Any

import torch

from oblivio.claims.continual import Course
from oblivio.core.grads import Grads, dot, norm
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import Rule, rule


@rule
class checked(Rule):
    """The rule itself; its state remembers the least g . r / (|g| |r|), g its gradient and r any of its constraints."""

    inner: Any  # a Rule with ``constraints(step)``

    def grad(self, step: Step, graph: bool = False) -> Grads:
        g = self.inner.grad(step)
        for r in self.inner.constraints(step):
            cosine = dot(g, r).double() / (norm(g).double() * norm(r).double()).clamp(min=1e-30)
            self.state["worst"] = torch.minimum(self.state.get("worst", torch.ones_like(cosine)), cosine)
        return g


def watched(plan: Stage) -> Stage:
    """The plan with its rule looked at; one that has no such rule as it is."""
    return plan.but(loss=lambda total: checked(total) if hasattr(total, "constraints") else total)


def worst(course: Course) -> float:
    """What ``checked`` remembered at the end of a course; -1 where no rule was looked at, which promises nothing."""
    found = [p.state["worst"] for p in course.learner.parts.values() if isinstance(p, checked)]
    return float(min(found)) if found else -1.0
