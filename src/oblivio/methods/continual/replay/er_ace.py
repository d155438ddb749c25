"""ER-ACE: experience replay that does not let new rows press the scores of earlier classes down."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.modules.masked import MASKED
from oblivio.registry import method
from oblivio.sources import Buffer


@term
def asymmetric(step: Step, on: On) -> Tensor:
    """The training loss with the classes out of play that were seen before and are not in the batch."""
    batch, out = step.batch(on), step.out(on)
    every = step.task.view(out, batch, "train")
    old = step.task.view(out, batch, "old") > MASKED
    old[:, step.drawn(on)["y"].long().unique()] = False
    return step.task.each(every.masked_fill(old & (step.problem.turn > 1), MASKED), batch)


@method(
    kind="continual",
    paper="Caccia et al., New Insights on Reducing Abrupt Representation Change in Online Continual Learning, 2022",
    needs=("new",),
    tasks=("classification",),
    aliases=("er-ace",),
    cost="as er",
)
def er_ace(
    buffer: Annotated[int, Field(gt=0)] = 500,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 32,
    replay: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Learn the new rows among the classes of their own batch and those never seen, the stored ones among all.

    Equation: min CE(new; seen before and absent from the batch left out) + CE(replay).
    Needs: new rows; it keeps ``buffer`` of them. No boundaries: without a scenario it is ``er``.
    Fails: as ``er``; where classes recur it learns them slowly against each other.
    """
    stored = Buffer(buffer, batch=replay)
    total = asymmetric("new") + terms.fit(stored)
    return Descent(total, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum, carry=True))
