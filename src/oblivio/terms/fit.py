"""The Task's own training loss, and what other terms take from the frozen start."""

from __future__ import annotations

from torch import Tensor

from oblivio.core.step import Step
from oblivio.core.term import On, term


@term
def fit(step: Step, on: On, net: str = "model") -> Tensor:
    """The training loss of ``net`` on ``on``."""
    return step.task.each(step.out(on, net), step.batch(on))
