"""Dark experience replay: a stored row comes with what the model said of it when it was stored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.registry import method
from oblivio.sources import Buffer, outputs


@method(
    kind="continual",
    paper="Buzzega et al., Dark Experience for General Continual Learning: a Strong, Simple Baseline, NeurIPS 2020",
    needs=("new",),
    tasks=("classification", "binary", "multilabel"),
    aliases=("dark_experience_replay",),
    cost="one more forward and backward a step, over the replayed batch; the stored rows and their logits",
)
def der(
    buffer: Annotated[int, Field(gt=0)] = 500,
    alpha: Annotated[float, Field(ge=0)] = 0.3,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 32,
    replay: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Learn the new rows and keep to the logits z that stored rows had before the update at which they were stored.

    Equation: min CE(new) + alpha mean (f(x) - z)^2, the mean over rows and outputs, so alpha depends on their number.
    Logits of classes that had not come yet are kept too, as in the paper, and the loss on new rows has them in play:
    else they would stand where chance put them, and accuracy in the scenario ``class`` falls by 0.17 on digits.
    Needs: new rows; no boundaries.
    Fails: with a large alpha the kept logits hold new classes down.
    """
    stored = Buffer(buffer, store=outputs, batch=replay)
    total = terms.fit("new", view="unmasked") + alpha * terms.match(stored)
    return Descent(total, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum, carry=True))
