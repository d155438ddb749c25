"""Early-learning regularisation: agree with a running mean of what the model itself said of each row before."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from oblivio.core.problem import Problem
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.term import On, Term
from oblivio.sources.rows import among

EDGE = 1e-4  # probabilities are kept so far from 0 and 1


class elr(Term):
    """mean log(1 - <t_i, p_i>) with t_i <- beta t_i + (1 - beta) p_i at each visit of row i, zero before the first.

    The gradient goes through p alone. ``state`` holds ``table``, (rows, classes) by place in the source, and the
    ``ids`` of the rows; ``forget`` puts the rows of a deletion request back to zero. Outputs are logits, (n, classes).
    """

    def __init__(self, on: On, beta: float = 0.7) -> None:
        self.on, self.beta = on, beta

    def prepare(self, problem: Problem) -> None:
        ids = problem.source(self.on).ids
        known: Any = torch.from_numpy(ids.astype(np.int64)) if ids.dtype.kind in "iu" else [str(i) for i in ids]
        self.state.clear()
        self.state["ids"] = known

    def __call__(self, step: Step) -> Tensor:
        p = likely(step.out(self.on))
        target = self._target(p.detach(), step.batch(self.on).rows)
        return (1 - (target * p).sum(1)).log().sum() / step.count(self.on)

    def _target(self, p: Tensor, rows: Tensor) -> Tensor:
        fresh = (1 - self.beta) * p / p.sum(1, keepdim=True)
        table = self.state.get("table")
        return fresh if table is None else fresh + self.beta * table[rows.to(table.device)]

    def after(self, step: Step) -> None:
        rows, fresh = step.drawn(self.on).rows, step.gathered(self.on, likely(step.seen(self.on)))
        if "table" not in self.state:
            self.state["table"] = fresh.new_zeros(len(step.source(self.on)), fresh.shape[1])
        self.state["table"][rows.to(fresh.device)] = self._target(fresh, rows)

    def forget(self, rows: Source, problem: Problem) -> str:
        if "table" not in self.state:
            return ""
        gone = among(self.state["ids"], rows.ids)
        self.state["table"][torch.from_numpy(gone).to(self.state["table"].device)] = 0
        return f"targets of {gone.sum()} rows emptied" if gone.any() else ""


def likely(out: Tensor) -> Tensor:
    """Probabilities of logits, kept off 0 and 1; shape (n, classes)."""
    return out.softmax(1).clamp(EDGE, 1 - EDGE)
