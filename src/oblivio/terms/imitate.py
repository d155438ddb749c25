"""Become like another net of the problem."""

from __future__ import annotations

from torch import Tensor

from oblivio.core.step import Step
from oblivio.core.term import On, term


@term
def imitate(step: Step, on: On, net: str = "teacher", temperature: float = 1.0) -> Tensor:
    """The Task's distance from the outputs of ``net`` to the model's, both divided by ``temperature``.

    Multiplied by the squared temperature, as in ``distill``. ``net`` gets no gradient.
    """
    target = step.out(on, net).detach() / temperature
    return temperature**2 * step.task.distance(step.out(on) / temperature, target, step.batch(on))
