"""SalUn: random labels on the weights that the forgotten rows touch most."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio.core.plan import Stage
from oblivio.methods.unlearning.relabelling.relabel import relabel
from oblivio.registry import method
from oblivio.terms import fit
from oblivio.where import saliency


@method(
    paper="Fan et al., SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency, ICLR 2024",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links"),
    aliases=("saliency_unlearning", "saliency"),
    cost="one pass over forget for the mask, then epochs over forget, and as many over retain",
)
def salun(
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5,
    lr: Annotated[float, Field(gt=0)] = 0.005,
    epochs: Annotated[int, Field(gt=0)] = 3,
    batch: Annotated[int, Field(gt=0)] = 64,
    wd: Annotated[float, Field(ge=0)] = 5e-4,
) -> Stage:
    """Random relabelling, restricted to the share of weights whose forget gradient is largest.

    Equation: relabel's turns of min CE(forget, random y') and min CE(retain), over the ``keep`` share of weights whose
    |grad CE(forget)| is largest at the start, ranked over the whole model.
    Needs: forgotten rows with labels, retained rows.
    Fails: as relabel does, and at the same settings.
    """
    plan = relabel(lr=lr, epochs=epochs, batch=batch, wd=wd)
    return plan.but(where=saliency(fit("forget"), keep))
