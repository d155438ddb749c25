"""The Task's own training loss, and what other terms take from the frozen start."""

from __future__ import annotations

from torch import Tensor

from oblivio.core.step import Step
from oblivio.core.term import On, term


@term
def fit(step: Step, on: On, net: str = "model", view: str = "all") -> Tensor:
    """The training loss of ``net`` on ``on``; of the outputs that count in training, those alone that are in ``view``.

    ``view="current"`` is the local cross-entropy, over the classes of the present experience. ``view="unmasked"`` has
    all outputs in play, also of classes that have not come.
    """
    batch = step.batch(on)
    if view == "unmasked":
        return step.task.unmasked().each(step.out(on, net), batch)
    return step.task.each(step.task.view(step.out(on, net), batch, view), batch)
