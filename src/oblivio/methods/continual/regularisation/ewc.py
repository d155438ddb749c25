"""EWC: weights that mattered to earlier experiences, by the Fisher, are held where these left them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oblivio.core.plan import Stage
from oblivio.methods.continual.regularisation._held import Form, held
from oblivio.registry import method
from oblivio.terms.anchor import Anchor, Fisher, Labels


@method(
    kind="continual",
    paper="Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, PNAS 2017",
    needs=("new",),
    tasks=("classification", "multilabel"),
    aliases=("elastic_weight_consolidation",),
    cost="one more pass over the rows of every experience, with a backward pass a class for fisher='all'; two copies "
    "of the weights",
)
def ewc(
    lam: Annotated[float, Field(gt=0)] = 300.0,
    fisher: Labels = "all",
    form: Form = "proximal",
    lr: Annotated[float, Field(gt=0)] = 0.02,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 10,
    batch: Annotated[int, Field(gt=0)] = 10,
) -> Stage:
    """Hold every weight by a spring at its value after each earlier experience, as stiff as it mattered there.

    Equation: min CE(new) + (lam / 2) sum_{k<t} sum_i F_k,i (theta_i - theta_k,i)^2, F_k the diagonal Fisher of
    experience k at its end. The sum over k is one square and a constant, so two copies of the weights hold it exactly.
    F is the mean over rows of squares per example: of the gradients of log p(c|x), weighed by p(c|x) over the classes
    that count (``all``); of a class drawn from p (``sample``); of the data's label (``true``: the empirical Fisher,
    far smaller where rows are fitted, so that lam must be larger); of the likeliest class (``pred``). lam has a
    meaning only with this choice.
    ``proximal`` pulls the weights after every step; ``explicit`` adds the penalty to the loss, and diverges where
    lr lam F exceeds 2.
    Needs: rows of the new experience with labels, and to be told where experiences end.
    Fails: in class-incremental streams, where no spring says which of two experiences a row is from. A deleted row's
    part in F and in the weights stays.
    """
    anchor = Anchor(Fisher(fisher))
    return held(anchor, lam, form, lr=lr, momentum=momentum, epochs=epochs, batch=batch)
