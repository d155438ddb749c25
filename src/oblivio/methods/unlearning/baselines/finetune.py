"""Fine-tuning on what is kept: the baseline that hopes the rest fades."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio.core.descent import Descent
from oblivio.core.opt import linear, sgd
from oblivio.core.plan import Stage
from oblivio.registry import method
from oblivio.terms import fit


@method(
    paper="no paper: the obvious baseline",
    needs=("retain",),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links"),
    aliases=("ft",),
    cost="epochs over retain",
)
def finetune(
    lr: Annotated[float, Field(gt=0)] = 0.01,
    epochs: Annotated[float, Field(gt=0)] = 5,
    batch: Annotated[int, Field(gt=0)] = 64,
    wd: Annotated[float, Field(ge=0)] = 5e-4,
) -> Stage:
    """Go on training on the retained rows alone.

    Equation: min CE(retain), from the trained weights.
    Needs: retained rows. The forgotten rows are not touched.
    Fails: what the forgotten rows taught fades only as far as it is not shared; memorised rows stay.
    """
    return Descent(fit("retain"), opt=sgd(lr, 0.9, wd, linear), epochs=epochs, batch=batch)
