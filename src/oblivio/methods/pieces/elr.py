"""ELR: a piece that keeps a model from learning wrong labels of the rows it trains on by heart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from oblivio import terms
from oblivio.core.descent import RETAINED
from oblivio.core.errors import BadInput
from oblivio.core.plan import Stage
from oblivio.core.term import Term, source_name
from oblivio.registry import method


@method(
    kind="piece",
    paper="Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels, NeurIPS 2020",
    needs=("retain|train",),
    tasks=("classification",),
    aliases=("early_learning_regularization", "early_learning_regularisation"),
    cost="a table of rows times classes; no pass",
)
def elr(
    lam: Annotated[float, Field(gt=0)] = 3.0,
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.7,
) -> Callable[[Stage], Stage]:
    """Hold the answers on rows that stay near those the model gave while it was learning what they have in common.

    Equation: L + lam mean log(1 - <t_i, p_i>), t_i <- beta t_i + (1 - beta) p_i at each visit of row i; no gradient
    through t. Defaults are the paper's for CIFAR-10.
    Needs: a plan that trains on the rows (of source ``retain`` or ``train``) from early on: training, or retraining.
    Fails: too small a lam only delays the learning by heart; labels that the model already knows by heart stay, since
    t then repeats them.
    """

    def guard(total: Term) -> Term:
        kept = [on for on in total.reads if source_name(on) in RETAINED]
        return sum((lam * terms.elr(on, beta) for on in kept), start=total)

    def put(plan: Stage) -> Stage:
        guarded = plan.but(loss=guard)
        if repr(guarded) == repr(plan):
            raise BadInput(
                f"elr guards rows that are trained on, and {plan!r} reads none of {', '.join(RETAINED)}; put it on a "
                "plan that does, such as finetune or retrain"
            )
        return guarded

    return put
