"""Online EWC: one anchor at the latest weights, and one Fisher that decays."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio.core.plan import Stage
from oblivio.methods.continual.regularisation._held import Form, held
from oblivio.registry import method
from oblivio.terms.anchor import Anchor, Fisher, Labels


@method(
    kind="continual",
    paper="Schwarz et al., Progress & Compress: A scalable framework for continual learning, ICML 2018",
    needs=("new",),
    tasks=("classification", "multilabel"),
    aliases=("ewc_on", "o_ewc"),
    cost="one more pass over the rows of every experience, with a backward pass a class for fisher='all'; two copies "
    "of the weights",
)
def online_ewc(
    lam: Annotated[float, Field(gt=0)] = 300.0,
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0,
    fisher: Labels = "all",
    normalise: bool = False,
    form: Form = "proximal",
    lr: Annotated[float, Field(gt=0)] = 0.02,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 10,
    batch: Annotated[int, Field(gt=0)] = 10,
) -> Stage:
    """Hold every weight at its latest value, as stiff as it mattered to all earlier experiences, the latest most.

    Equation: min CE(new) + (lam / 2) sum_i F_i (theta_i - theta*_i)^2; when an experience ends F <- gamma F + F_t and
    theta* <- theta. F_t as in ``ewc``, scaled to mean 1 with ``normalise``. The first two experiences are those of
    ``ewc``, bit for bit.
    This is the second half of Progress & Compress; its active column and its distillation are not here. Mammoth's code
    has 2 lam in place of lam and a Fisher of its own; van de Ven's multiplies by gamma once more where it is used.
    Needs: rows of the new experience with labels, and to be told where experiences end.
    Fails: as ``ewc``; with gamma below 1 old experiences fade on purpose.
    """
    anchor = Anchor(Fisher(fisher, normalise=normalise), gamma, latest=True)
    return held(anchor, lam, form, lr=lr, momentum=momentum, epochs=epochs, batch=batch)
