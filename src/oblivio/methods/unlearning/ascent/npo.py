"""Negative preference optimisation: an ascent that fades as it succeeds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import common
from oblivio.core.plan import Stage
from oblivio.registry import method
from oblivio.until import unseen


@method(
    paper="Zhang et al., Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning, "
    "COLM 2024",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links", "causal_lm", "vision_language"),
    text={"lr": 3e-4, "optimiser": "adamw", "epochs": 40, "batch": 12, "beta": 1.0},
    aliases=("negative_preference",),
    cost="one pass over forget for the reference scores, then epochs over forget and a retain batch beside each",
)
def npo(
    beta: Annotated[float, Field(gt=0)] = 1.0,
    forget: Annotated[float, Field(gt=0)] = 1.0,
    retain: Annotated[float, Field(ge=0)] = 1.0,
    lr: Annotated[float, Field(gt=0)] = 2e-3,
    epochs: Annotated[float, Field(gt=0)] = 10,
    batch: Annotated[int, Field(gt=0)] = 64,
    optimiser: Literal["sgd", "adamw"] = "sgd",
) -> Stage:
    """Press the likelihood of the forgotten targets below where it started, with a force that fades as it falls.

    Equation: min forget (2 / beta) log(1 + (p / p_start)^beta) + retain CE(retain); stops as soon as the forgotten
    rows do no better than unseen ones would, if the problem has ``valid`` rows to tell.
    Needs: forgotten and retained rows with labels. The scores of the start are cached; no second model is held.
    Fails: with beta to 0 it is gradient ascent; the card's beta of 0.1 is for sums over many tokens, and small models
    with one label need 0.5 to 3.
    """
    loss = forget * terms.npo("forget", beta) + retain * terms.fit("retain")
    return Descent(loss, opt=common(optimiser, lr), over="forget", epochs=epochs, batch=batch, until=unseen(), every=5)
