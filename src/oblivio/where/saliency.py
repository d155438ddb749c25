"""The most salient share of all weights, ranked at once over the whole model."""

from __future__ import annotations

from oblivio.core.errors import BadInput
from oblivio.core.grads import top
from oblivio.core.problem import Problem
from oblivio.core.term import Term
from oblivio.core.where import Selection, Where


class saliency(Where):
    """The ``keep`` share of entries whose gradient of ``term`` is largest in size at the weights the stage starts from.

    The gradient is that of the mean over the whole source, in evaluation mode; the absolute value comes last.
    """

    def __init__(self, term: Term, keep: float = 0.5) -> None:
        if not 0 < keep <= 1:
            raise BadInput(f"keep = {keep}: a share above 0 and at most 1 is needed")
        self.term, self.keep = term, keep

    def prepare(self, problem: Problem) -> None:
        gradient = problem.gradient(self.term)
        self.state["mask"] = top({k: g.abs() for k, g in gradient.items()}, self.keep)

    def select(self, problem: Problem) -> Selection:
        return dict(self.state["mask"])

    def __repr__(self) -> str:
        return f"saliency({self.term!r}, keep={self.keep:g})"
