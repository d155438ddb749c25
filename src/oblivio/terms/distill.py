"""Stay close to the outputs of the frozen start."""

from __future__ import annotations

from torch import Tensor

from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, term


def outputs(out: Tensor, batch: Batch) -> Tensor:
    """The outputs as they are."""
    return out


@term(frozen=(outputs,))
def distill(step: Step, on: On, temperature: float = 1.0) -> Tensor:
    """The Task's distance from the frozen outputs to the present ones, both divided by ``temperature``.

    Multiplied by the squared temperature, so that gradients keep their size (Hinton et al., 2015).
    """
    target = step.frozen(on, outputs) / temperature
    return temperature**2 * step.task.distance(step.out(on) / temperature, target, step.batch(on))
