"""UNDIAL: distil a model into itself, its logit of every remembered token lowered by a constant."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import common
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.registry import method
from oblivio.tasks.language import ahead
from oblivio.terms import fit
from oblivio.terms.distill import outputs


def lowered(out: Tensor, y: Tensor, beta: float, ends: bool = False) -> Tensor:
    """Logits (n, L, V) less ``beta`` at each token that is to be predicted and counts; no other entry changes.

    The last token that counts in a row, its end, is spared but with ``ends``.
    """
    target, counts = ahead(y)
    if not ends:
        counts = counts & (counts.flip(1).cumsum(1).flip(1) > 1)
    low = out.clone()
    low[:, :-1].scatter_add_(2, target[..., None], -beta * counts[..., None].to(out.dtype))
    return low


@term(frozen=(outputs,))
def adjusted(step: Step, on: On, beta: float, ends: bool = False) -> Tensor:
    """KL(softmax(z_start - beta e_y) || p) over the tokens that count: the cross-entropy, less q's own entropy."""
    batch = step.batch(on)
    return step.task.distance(step.out(on), lowered(step.frozen(on, outputs), batch["y"], beta, ends), batch)


@method(
    paper="Dong et al., UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models, "
    "NAACL 2025",
    needs=("forget",),
    tasks=("causal_lm",),
    aliases=("self_distillation_adjusted_logits",),
    cost="epochs over forget, each batch passes the start too",
)
def undial(
    beta: Annotated[float, Field(gt=0)] = 10.0,
    focus: Literal["words", "all"] = "words",
    alpha: Annotated[float, Field(ge=0)] = 0.0,
    lr: Annotated[float, Field(gt=0)] = 1e-4,
    epochs: Annotated[float, Field(gt=0)] = 50,
    batch: Annotated[int, Field(gt=0)] = 12,
    optimiser: Literal["sgd", "adamw"] = "adamw",
) -> Stage:
    """Learn what the start would say had it not remembered: a fixed aim, at which training comes to rest.

    Equation: min mean_t CE(softmax(z_start,t - beta e_y_t), p_t)(forget) + alpha NLL(retain), over the tokens of
    answers, their ends among them; with the focus on ``words`` nothing is taken off at the end of an answer, as is
    published with ``all``. What is minimised is the KL, which has the same gradient and is 0 at the aim.
    Needs: forgotten rows; retained ones only with ``alpha``. The start's logits are computed anew at each batch: with
    an adapter it is the model without it, else a copy of what moves.
    Fails: words that carry no fact are lowered too, so judge by the tokens of the fact. An end is common to all
    answers, and with ``all`` retained answers do not end any more. Without a retain term only the rate holds the rest.
    A port in use lowers the label -100, the hundredth last token of the vocabulary, at prompts and padding, and
    averages over these.
    """
    loss = adjusted("forget", beta, ends=focus == "all")
    return Descent(
        loss + alpha * fit("retain") if alpha else loss,
        opt=common(optimiser, lr),
        over="forget",
        epochs=epochs,
        batch=batch,
    )
