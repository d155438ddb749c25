"""DER++: dark experience replay, and the labels of a second batch of stored rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.registry import method
from oblivio.sources import Buffer, Twin, outputs


@method(
    kind="continual",
    paper="Buzzega et al., Dark Experience for General Continual Learning: a Strong, Simple Baseline, NeurIPS 2020",
    needs=("new",),
    tasks=("classification", "binary", "multilabel"),
    aliases=("der++", "derpp"),
    cost="two more forwards and backwards a step, over two replayed batches; the stored rows and their logits",
)
def der_pp(
    buffer: Annotated[int, Field(gt=0)] = 500,
    alpha: Annotated[float, Field(ge=0)] = 0.3,
    beta: Annotated[float, Field(ge=0)] = 0.5,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 32,
    replay: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Keep to the stored logits of one batch of stored rows, and learn the labels of another.

    Equation: min CE(new) + alpha mean (f(x1) - z1)^2 + beta CE(x2), with x1 and x2 drawn apart from the same store.
    Needs: new rows; no boundaries.
    Fails: as ``der``. With alpha = 0 it is ``er``, with both 0 ``naive``, both with all outputs in play: see ``der``.
    """
    stored = Buffer(buffer, store=outputs, batch=replay)
    total = (
        terms.fit("new", view="unmasked")
        + alpha * terms.match(stored)
        + beta * terms.fit(Twin(stored), view="unmasked")
    )
    return Descent(total, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum, carry=True))
