"""UER: new rows are learned by the angle of their features alone, stored ones by angle and length."""

from __future__ import annotations

from typing import Annotated, Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Nets, Problem
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.modules.heads import linear_layer
from oblivio.modules.unbiased import drop_bias, rows
from oblivio.registry import method
from oblivio.sources import Buffer


@edit
def without_bias(problem: Problem) -> None:
    """Take the bias off the head, once in the life of a model."""
    layer = problem.features.partition(".")[2]
    if linear_layer(problem.model, layer).bias is not None:
        problem.operate(drop_bias, layer=layer)


@term(taps=("features",))
def angular(step: Step, on: On, scale: float) -> Tensor:
    """The training loss of the scores ``scale`` cos(w_c, z): its gradient leaves the length of every w_c alone."""
    z = step.tap(on, "features")
    name = step.problem.features

    def weights(nets: Nets) -> Tensor:
        head: Any = nets.get_submodule(name)
        return rows(head)

    w = step.call(weights)  # type: ignore[arg-type]
    return step.task.each(scale * F.normalize(z) @ F.normalize(w).T, step.batch(on))


@method(
    kind="continual",
    paper="Lin et al., UER: A Heuristic Bias Addressing Approach for Online Continual Learning, ACM MM 2023",
    needs=("new",),
    tasks=("classification",),
    aliases=("unbias_experience_replay",),
    cost="as er: one more forward and backward a step, over the replayed batch; the stored rows",
)
def uer(
    buffer: Annotated[int, Field(gt=0)] = 500,
    scale: Annotated[float, Field(gt=0)] = 8.0,
    lr: Annotated[float, Field(gt=0)] = 0.1,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 10,
    replay: Annotated[int, Field(gt=0)] = 10,
) -> Stage:
    """Experience replay with two readings of one head, so that the lengths of its weights keep favouring old classes.

    Equation: min CE(s cos(w_c, z); new) + CE(w_c z; replay), z the features and w_c the row of the head for class c.
    Served are the dot products w_c z.
    Needs: new rows, one pass; a model that ends in a linear layer. Its bias is taken off when the first experience
    comes, since a bias would favour new classes again. No scale is given in public
    material; 8 was chosen on digits.
    Fails: with a scale of 1 the loss cannot fit; with 16 and this rate a step of the angles makes the new weights long.
    On digits the angle for stored rows too is more accurate still, and forgets a little more.
    """
    stored = Buffer(buffer, batch=replay)
    total = angular("new", scale) + terms.fit(stored)
    return without_bias() >> Descent(total, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum, carry=True))
