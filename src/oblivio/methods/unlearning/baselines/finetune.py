"""Fine-tuning on what is kept: the baseline that hopes the rest fades."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oblivio.core.descent import Descent
from oblivio.core.opt import adamw, linear, sgd
from oblivio.core.plan import Stage
from oblivio.registry import method
from oblivio.terms import fit


@method(
    paper="no paper: the obvious baseline",
    needs=("retain",),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links", "causal_lm", "vision_language"),
    text={"lr": 3e-4, "optimiser": "adamw", "epochs": 3, "batch": 12, "wd": 0.01},
    aliases=("ft",),
    cost="epochs over retain",
)
def finetune(
    lr: Annotated[float, Field(gt=0)] = 0.01,
    epochs: Annotated[float, Field(gt=0)] = 5,
    batch: Annotated[int, Field(gt=0)] = 64,
    wd: Annotated[float, Field(ge=0)] = 5e-4,
    optimiser: Literal["sgd", "adamw"] = "sgd",
) -> Stage:
    """Go on training on the retained rows alone.

    Equation: min CE(retain), from the trained weights; the rate falls to 0.
    Needs: retained rows. The forgotten rows are not touched.
    Fails: what the forgotten rows taught fades only as far as it is not shared; memorised rows stay.
    """
    opt = sgd(lr, 0.9, wd, linear) if optimiser == "sgd" else adamw(lr, wd=wd, schedule=linear)
    return Descent(fit("retain"), opt=opt, epochs=epochs, batch=batch)
