"""SimNPO: negative preference by the likelihood of a token instead of the answer's, without a reference model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from oblivio.core.descent import Descent
from oblivio.core.opt import common
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.registry import method
from oblivio.terms import fit
from oblivio.until import unseen


@term
def pressed(step: Step, on: On, beta: float, delta: float = 0.0) -> Tensor:
    """-(2 / beta) log sigmoid(beta (l - delta)), l the loss of an example: of a text that of an answer's token."""
    return 2 / beta * softplus(beta * (delta - step.task.each(step.out(on), step.batch(on))))


@method(
    paper="Fan et al., Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning, 2024",
    needs=("forget", "retain"),
    tasks=("causal_lm", "vision_language"),
    aliases=("simple_npo",),
    cost="epochs over forget and a retain batch beside each",
)
def simnpo(
    beta: Annotated[float, Field(gt=0)] = 4.5,
    delta: Annotated[float, Field(ge=0)] = 0.0,
    forget: Annotated[float, Field(gt=0)] = 0.125,
    retain: Annotated[float, Field(ge=0)] = 1.0,
    lr: Annotated[float, Field(gt=0)] = 3e-4,
    epochs: Annotated[float, Field(gt=0)] = 70,
    batch: Annotated[int, Field(gt=0)] = 12,
    optimiser: Literal["sgd", "adamw"] = "adamw",
) -> Stage:
    """Press the likelihood per token of the forgotten answers down, with a force that fades as it falls.

    Equation: min forget mean_i -(2 / beta) log sigmoid(beta (N_i / n_i - delta)) + retain NLL(retain), N_i the
    negative log-likelihood of an answer and n_i its number of tokens, so that long answers and short ones, known well
    or not, are pressed alike. A row's gradient has the weight 2 p / (1 + p) / n_i with p = pi^(beta / n_i) at delta 0.
    Stops as soon as the forgotten rows do no better than unseen ones would, if the problem has ``valid`` rows to tell.
    Needs: forgotten and retained rows. No reference model. ``delta`` is the paper's gamma.
    Fails: with ``forget`` near 1 the retain term cannot make up for it; the published value is about 1/8.
    """
    loss = forget * pressed("forget", beta, delta) + retain * fit("retain")
    return Descent(loss, opt=common(optimiser, lr), over="forget", epochs=epochs, batch=batch, until=unseen(), every=5)
