"""FLAT: reward a template answer and penalise the true one, weighed by an f-divergence, with forgotten rows alone."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from oblivio.core.descent import Descent
from oblivio.core.opt import common
from oblivio.core.plan import Stage
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import On, Term
from oblivio.how import clip
from oblivio.registry import method
from oblivio.sources.answers import Answers
from oblivio.sources.replies import refusals
from oblivio.tasks.language import answer_log_probs, mean
from oblivio.until import unseen


@method(
    paper="Wang et al., LLM Unlearning via Loss Adjustment with Only Forget Data, ICLR 2025",
    needs=("forget", "refusals"),
    tasks=("causal_lm", "vision_language"),
    aliases=("forget_data_only_loss_adjustment",),
    cost="two passes over the forgotten questions a step, with the true answer and with a template",
)
def flat(
    divergence: Literal["total_variation", "kl", "pearson", "jensen_shannon"] = "total_variation",
    lr: Annotated[float, Field(gt=0)] = 1e-4,
    epochs: Annotated[float, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 12,
) -> Stage:
    """Make a template answer likelier and the true one less likely, with a force that fades where each is reached.

    Equation: min mean over rows of -g(P_template) + f*(g(P_true)), P the mean probability of an answer's tokens:
    total variation (tanh P_true - tanh P_template) / 2; KL exp(P_true - 1) - P_template; Pearson P_true^2 / 4 + P_true
    - P_template; Jensen-Shannon softplus(P_true) + softplus(-P_template) - 2 log 2. Gradients are clipped to norm 1; it
    stops as soon as the forgotten rows do no better than unseen ones would, if the problem has ``valid`` rows to tell.
    Needs: forgotten rows, and the record ``refusals`` for templates; no retained rows and no reference model.
    Fails: nothing holds the rest of the model, so rate and length decide; where a model has never refused, refusals
    spread to every question. The released code takes P of the whole batch first, and counts masked positions as 0;
    here the divergence is that of each row, as in the paper, over its answer's tokens.
    """
    return Descent(
        contrast("forget", Answers("forget", refusals, "template"), divergence),
        how=clip(1.0),
        opt=common("adamw", lr),
        over="forget",
        epochs=epochs,
        batch=batch,
        until=unseen(),
        every=5,
    )


class contrast(Term):
    """The divergence's loss of each row of ``on``; ``template`` has the same rows with other answers, in that order."""

    def __init__(self, on: On, template: On, divergence: str) -> None:
        self.on, self.template, self.divergence = on, template, divergence

    @property
    def reads(self) -> tuple[On, ...]:
        return self.on, self.template

    def __call__(self, step: Step) -> Tensor:
        said, true = (likely(step.out(on), step.batch(on)) for on in (self.template, self.on))
        return loss(said, true, self.divergence).sum() / step.count(self.on)


def likely(out: Tensor, batch: Batch) -> Tensor:
    """The mean probability, not its log, of the tokens of each answer, shape (n,)."""
    log_probs, counts = answer_log_probs(out, batch["y"])
    return mean(log_probs.exp(), counts)


def loss(template: Tensor, true: Tensor, divergence: str) -> Tensor:
    """-g(template) + f*(g(true)) of a divergence."""
    if divergence == "kl":
        return (true - 1).exp() - template
    if divergence == "pearson":
        return true.square() / 4 + true - template
    if divergence == "jensen_shannon":
        return softplus(true) + softplus(-template) - 2 * math.log(2)
    return (true.tanh() - template.tanh()) / 2
