"""Retraining without the forgotten rows: the standard that every other method is held against."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio.core.descent import Descent
from oblivio.core.opt import cosine, sgd
from oblivio.core.plan import Stage
from oblivio.edits import reset
from oblivio.registry import method
from oblivio.terms import fit


@method(
    paper="no paper: the definition of exact unlearning",
    needs=("retain",),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links"),
    aliases=("gold", "scratch", "exact"),
    cost="a whole training over retain",
    guarantee="exact",
)
def retrain(
    lr: Annotated[float, Field(gt=0)] = 0.05,
    epochs: Annotated[float, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 64,
    wd: Annotated[float, Field(ge=0)] = 0.0,
) -> Stage:
    """Start again from random weights and train on the retained rows alone.

    Equation: min CE(retain), from random weights.
    Needs: retained rows, and modules that can draw their weights anew (``reset_parameters``).
    Fails: never on the rows; it costs a whole training, and differs from the original where its recipe does. A job
    that knows the original's recipe retrains its references with that.
    """
    return reset() >> Descent(fit("retain"), opt=sgd(lr, 0.9, wd, cosine), epochs=epochs, batch=batch)
