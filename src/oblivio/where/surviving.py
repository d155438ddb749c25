"""Entries that are not zero: what pruning has left."""

from __future__ import annotations

from oblivio.core.problem import Problem
from oblivio.core.where import Selection, Where


class surviving(Where):
    """The entries that differ from zero when the stage starts; whole vectors (biases, norms) always move."""

    def prepare(self, problem: Problem) -> None:
        self.state["mask"] = {n: w.detach() != 0 for n, w in problem.weights("model.*").items() if w.dim() > 1}

    def select(self, problem: Problem) -> Selection:
        return {n: self.state["mask"].get(n) for n in problem.weights("model.*")}

    def __repr__(self) -> str:
        return "surviving()"
