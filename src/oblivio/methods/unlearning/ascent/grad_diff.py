"""Gradient difference: ascent on the forgotten rows, descent on the retained ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oblivio.core.descent import Descent
from oblivio.core.opt import common
from oblivio.core.plan import Stage
from oblivio.how import clip
from oblivio.registry import method
from oblivio.terms import fit
from oblivio.until import unseen


@method(
    paper="Liu et al., Continual Learning and Private Unlearning, CoLLAs 2022",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links", "causal_lm", "vision_language"),
    text={"lr": 3e-4, "optimiser": "adamw", "epochs": 40, "batch": 12, "gamma": 0.1},
    aliases=("gd", "gradient_difference", "neggrad_plus"),
    cost="epochs over forget, and a retain batch beside each",
)
def grad_diff(
    gamma: Annotated[float, Field(gt=0)] = 0.3,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    epochs: Annotated[float, Field(gt=0)] = 10,
    batch: Annotated[int, Field(gt=0)] = 64,
    optimiser: Literal["sgd", "adamw"] = "sgd",
    most: Annotated[float, Field(gt=0)] = 1.0,
) -> Stage:
    """Raise the loss on the forgotten rows while training goes on for the retained ones.

    Equation: min alpha CE(retain) - gamma CE(forget), the gradient clipped to norm ``most``; stops as soon as the
    forgotten rows do no better than unseen ones would, if the problem has ``valid`` rows to tell.
    Needs: forgotten and retained rows with labels. An epoch passes the forgotten rows.
    Fails: the ascent has no bound, so after enough steps it outweighs any alpha.
    """
    loss = alpha * fit("retain") - gamma * fit("forget")
    return Descent(
        loss,
        how=clip(most),
        opt=common(optimiser, lr),
        over="forget",
        epochs=epochs,
        batch=batch,
        until=unseen(),
        every=5,
    )
