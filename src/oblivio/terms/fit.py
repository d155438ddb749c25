"""The Task's own training loss, and what other terms take from the frozen start."""

from __future__ import annotations

from torch import Tensor

from oblivio.core.step import Step
from oblivio.core.term import On, term


@term
def fit(step: Step, on: On, net: str = "model", view: str = "all") -> Tensor:
    """The training loss of ``net`` on ``on``; of the outputs that count in training, those alone that are in ``view``.

    ``view="current"`` is the local cross-entropy, over the classes of the present experience.
    """
    batch = step.batch(on)
    return step.task.each(step.task.view(step.out(on, net), batch, view), batch)
