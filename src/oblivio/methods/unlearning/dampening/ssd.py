"""Selective synaptic dampening: no training, one pass, weights scaled down."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio.core.plan import Stage
from oblivio.edits import dampen
from oblivio.registry import method


@method(
    paper="Foster et al., Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening, AAAI 2024",
    needs=("forget", "retain|importance"),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links"),
    serves=("class", "clean"),
    refusal="on plain random rows both importances are alike, and dampening either does nothing or harms everything",
    aliases=("selective_synaptic_dampening", "dampening"),
    cost="one pass over forget, one over retain unless the record importance is given",
)
def ssd(
    alpha: Annotated[float, Field(gt=0)] = 3.0,
    strength: Annotated[float, Field(gt=0)] = 0.3,
) -> Stage:
    """Scale down the weights that matter far more to the forgotten rows than to the whole training set.

    Equation: theta_i <- min(strength I_all / I_forget, 1) theta_i where I_forget > alpha I_all; I is the exact
    diagonal Fisher, where the paper's code squares batch means, which depends on the batch size.
    Needs: forgotten rows with labels; the importance of all training rows as the record ``importance``, or retained
    rows to compute it from. With the exact Fisher the ratio is at most |all| / |forget|: a larger alpha does nothing.
    Fails: on rows that are like the rest (refused); too low an alpha harms the rest.
    """
    return dampen(alpha, strength)
