"""Looking for a backdoor: what a model says of clean rows, and how small a change of them brings about each class.

The method ``ebyd`` asks this of a model that has unlearned what is clean; its claim shows how far that helps.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.core.surgery import surgery
from oblivio.core.term import On, term

PIXEL = 0.01  # what a fully covered input costs beside the cross-entropy, as in Neural Cleanse


class Trigger(nn.Module):
    """x to (1 - mask) x + mask pattern, both of the shape of one example and between 0 and 1."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.cover = nn.Parameter(torch.full(shape[-2:] if len(shape) > 2 else shape, -2.0))  # one for all channels
        self.paint = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs with the trigger on them."""
        mask = self.cover.sigmoid()
        return (1 - mask) * x + mask * self.paint.sigmoid()


@surgery
def add_trigger(nets: MutableMapping[str, nn.Module], *, shape: list[int]) -> None:
    """Add the net ``trigger`` for examples of this shape."""
    nets["trigger"] = Trigger(shape)


@term
def brings(step: Step, on: On, target: int) -> Tensor:
    """The loss towards ``target`` of rows with the trigger on them, and the size of the trigger."""
    batch = step.batch(on)
    aimed = batch.but(y=torch.full_like(batch["y"], target))

    def both(nets: MutableMapping[str, nn.Module]) -> Tensor:
        out = step.task.forward(nets, "model", batch.but(x=nets["trigger"](batch["x"])))
        return step.task.each(out, aimed) + PIXEL * nets["trigger"].cover.sigmoid().sum()  # type: ignore[operator]

    return step.call(both)  # type: ignore[arg-type]


def recover(problem: Problem, on: str, target: int, *, lr: float = 0.1, steps: int = 200) -> tuple[float, Trigger]:
    """The smallest trigger that turns rows into class ``target`` (Neural Cleanse, Wang et al., 2019).

    Args:
        problem: its model stays as it is; inputs between 0 and 1.
        on: a source of clean rows.
        target: the class.
        lr: of Adam.
        steps: of it, on all rows at once.

    Returns:
        The sum of the mask, in pixels or columns, and the trigger.
    """
    other = problem.copy()
    other.operate(add_trigger, shape=list(problem.source(on).batch(torch.arange(1))["x"].shape[1:]))
    Run(Descent(brings(on, target), where="trigger.*", opt=adam(lr), steps=steps, batch=None), other).go()
    trigger = other.nets["trigger"]
    assert isinstance(trigger, Trigger)
    return float(trigger.cover.detach().sigmoid().sum()), trigger


def histogram(problem: Problem, on: str) -> Tensor:
    """The share of each class among the answers on a source, shape (classes,)."""
    out = problem.predict(on)
    return torch.bincount(out.argmax(1), minlength=out.shape[1]) / len(out)


def anomaly(norms: Tensor) -> Tensor:
    """How far every class's trigger is below the median, in units of 1.4826 median absolute deviations: above 2 is odd.

    Args:
        norms: of the masks, shape (classes,), three or more. Raises BadInput for fewer.
    """
    if len(norms) < 3:
        raise BadInput(f"{len(norms)} classes have no median to differ from; give the norms of three or more")
    off = norms.median() - norms
    return off / (1.4826 * off.abs().median()).clamp_min(1e-12)
