"""Weights that press hardest on the examples a model remembers best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oblivio.core.step import Step
from oblivio.core.term import On


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
