"""Naive fine-tuning: learn each experience as it comes, with nothing against forgetting. The lower line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import sgd
from oblivio.core.plan import Stage
from oblivio.registry import method


@method(
    kind="continual",
    paper="McCloskey and Cohen, Catastrophic Interference in Connectionist Networks, 1989",
    needs=("new",),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("finetuning", "sgd"),
    cost="the passes over the new rows alone",
)
def naive(
    loss: Literal["all", "current"] = "all",
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 1,
    batch: Annotated[int, Field(gt=0)] = 32,
) -> Stage:
    """Train on the new rows and on nothing else. On all experiences as one it is joint training, the upper line.

    Equation: min CE(new); with ``loss="current"`` over the classes of the present experience alone, which by itself
    keeps the scores of other classes from being pressed down.
    Needs: new rows.
    Fails: it forgets; that is what it is for. A smaller rate forgets less and learns less.
    """
    new = terms.fit("new", view=loss)
    return Descent(new, over="new", epochs=epochs, batch=batch, opt=sgd(lr, momentum, carry=True))
