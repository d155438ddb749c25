"""Gradient ascent on the forgotten rows: the baseline that every method must beat."""

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
    paper="Jang et al., Knowledge Unlearning for Mitigating Privacy Risks in Language Models, ACL 2023",
    needs=("forget",),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links", "causal_lm", "vision_language"),
    text={"lr": 3e-4, "optimiser": "adamw", "epochs": 10, "batch": 12},
    aliases=("ga", "neggrad", "negative_gradient"),
    cost="epochs over forget",
)
def grad_ascent(
    lr: Annotated[float, Field(gt=0)] = 2e-4,
    epochs: Annotated[float, Field(gt=0)] = 10,
    batch: Annotated[int, Field(gt=0)] = 64,
    optimiser: Literal["sgd", "adamw"] = "sgd",
    most: Annotated[float, Field(gt=0)] = 1.0,
) -> Stage:
    """Raise the training loss on the forgotten rows.

    Equation: min -CE(forget), the gradient clipped to norm ``most``; stops as soon as the forgotten rows do no better
    than unseen ones would, if the problem has ``valid`` rows to tell.
    Needs: forgotten rows with labels.
    Fails: the loss has no bound; past the stop it destroys the model.
    """
    return Descent(
        -fit("forget"), how=clip(most), opt=common(optimiser, lr), epochs=epochs, batch=batch, until=unseen(), every=5
    )
