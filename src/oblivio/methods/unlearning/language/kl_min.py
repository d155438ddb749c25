"""KL minimisation: ascent on the forgotten rows, tied to the answers that the start gives on the retained ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oblivio.core.descent import Descent
from oblivio.core.opt import common
from oblivio.core.plan import Stage
from oblivio.how import clip
from oblivio.registry import method
from oblivio.terms import distill, fit
from oblivio.until import unseen


@method(
    paper="Maini et al., TOFU: A Task of Fictitious Unlearning for LLMs, COLM 2024",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links", "causal_lm", "vision_language"),
    text={"lr": 3e-4, "optimiser": "adamw", "epochs": 20, "batch": 12},
    aliases=("kl_minimisation", "kl_minimization"),
    cost="epochs over forget and a retain batch beside each, which passes the start too",
)
def kl_min(
    alpha: Annotated[float, Field(ge=0)] = 1.0,
    lr: Annotated[float, Field(gt=0)] = 1e-3,
    epochs: Annotated[float, Field(gt=0)] = 10,
    batch: Annotated[int, Field(gt=0)] = 64,
    optimiser: Literal["sgd", "adamw"] = "sgd",
    most: Annotated[float, Field(gt=0)] = 1.0,
) -> Stage:
    """Raise the loss on the forgotten rows while the predictions on the retained ones stay those of the start.

    Equation: min -CE(forget) + alpha KL(p_start || p)(retain), the KL averaged over the tokens that count and over
    rows, the gradient clipped to norm ``most``; stops as soon as the forgotten rows do no better than unseen ones
    would, if the problem has ``valid`` rows to tell.
    Needs: forgotten rows with labels, and retained ones, whose labels say at most where an answer stands. An epoch
    passes the forgotten rows.
    Fails: the ascent has no bound, so after enough steps it outweighs any alpha; what the model gets wrong on retained
    rows is kept too.
    The code of TOFU averages the KL over prompts and padding as well, which shrinks it by as much as there is of them.
    """
    loss = alpha * distill("retain") - fit("forget")
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
