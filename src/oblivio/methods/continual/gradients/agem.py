"""A-GEM: a step must not raise the mean loss of a random batch of stored rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.grads import Grads, add, dot
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import Rule, Term, rule
from oblivio.registry import method
from oblivio.sources import Buffer, Exemplars
from oblivio.terms.vectors import SMALLEST


def unopposed(g: Grads, r: Grads) -> Grads:
    """``g`` without the part of it that points against ``r``: g - min(g . r, 0) / |r|^2 r; r = 0 has none."""
    return add(g, r, -dot(g, r).clamp(max=0) / dot(r, r).clamp(min=SMALLEST))


@rule
class averaged(Rule):
    """The gradient of ``loss`` without its part against that of ``memory``, and ``beta`` times the latter.

    While the memory is empty the gradient of ``loss``. Passes a step: one of each term.
    """

    loss: Term
    memory: Term
    beta: float = 0.0

    def constraints(self, step: Step) -> list[Grads]:
        """The gradient that must not be opposed; none while the memory is empty."""
        return [self.memory.grad(step)] if step.supplied(self.memory) else []

    def grad(self, step: Step, graph: bool = False) -> Grads:
        held = self.constraints(step)  # first, so that ``step.seen`` gives what the loss saw
        g = self.loss.grad(step)
        for r in held:
            g = add(unopposed(g, r), r, self.beta) if self.beta else unopposed(g, r)
        return g


@method(
    kind="continual",
    paper="Chaudhry et al., Efficient Lifelong Learning with A-GEM, ICLR 2019",
    needs=("new",),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("a_gem", "averaged_gem"),
    cost="one more forward and backward a step, over the batch of stored rows; the stored rows",
)
def agem(
    buffer: Annotated[int, Field(gt=0)] = 500,
    fill: Literal["turn", "reservoir"] = "turn",
    beta: Annotated[float, Field(ge=0)] = 0.0,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 32,
    replay: Annotated[int, Field(gt=0)] = 128,
) -> Stage:
    """Take the step of the new rows, without what in it would raise the loss of a batch of stored rows.

    Equation: g - min(g . r, 0) / |r|^2 r, with g the gradient of CE(new) and r that of CE on ``replay`` stored rows,
    drawn over all experiences; plus ``beta`` r. The store holds equal shares of random rows of the finished
    experiences, or with ``fill="reservoir"`` a uniform sample of all rows that passed (A-GEM-R).
    No eps is added to |r|^2, so that the constraint holds to rounding however small r is; r = 0 opposes nothing.
    Needs: new rows; with ``fill="turn"`` to be told where experiences end.
    Fails: in the scenario ``class``, far below ``er`` with the same rows: a step that is only not against the old
    classes does not learn them again. One mean lets single experiences get worse. With momentum the update that is
    made need not obey what its gradient obeyed.
    """
    if fill == "turn":
        stored: Buffer | Exemplars = Exemplars(buffer, batch=replay)
    else:
        stored = Buffer(buffer, batch=replay)
    total = averaged(terms.fit("new"), terms.fit(stored), beta)
    return Descent(total, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum, carry=True))
