"""Random targets instead of the true ones, drawn anew at every step."""

from __future__ import annotations

from torch import Tensor

from oblivio.core.step import Step
from oblivio.core.term import On, term


@term
def relabel(step: Step, on: On) -> Tensor:
    """The training loss with random targets; the true one is among those that may be drawn."""
    out = step.out(on)
    labels = step.extra(on, "relabel", lambda batch, g: step.task.relabel(out, batch, g))
    return step.task.each(out, step.batch(on).but(y=labels))
