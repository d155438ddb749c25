"""Refusals in place of the true answers: by fine-tuning (PO), or by a preference for them (IdkDPO)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from oblivio.core.descent import Descent
from oblivio.core.opt import common
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import On, Term
from oblivio.how import clip
from oblivio.registry import method
from oblivio.sources.answers import Answers
from oblivio.sources.replies import refusals
from oblivio.terms import distill, fit
from oblivio.until import unseen


@method(
    paper="Maini et al., TOFU: A Task of Fictitious Unlearning for LLMs, COLM 2024; the preference loss: Zhang et al., "
    "Negative Preference Optimization, COLM 2024",
    needs=("forget", "retain", "refusals"),
    tasks=("causal_lm", "vision_language"),
    aliases=("idk", "idk_dpo", "po", "dpo"),
    cost="po: two passes a step, over forgotten questions and retained rows; dpo: four, one of them at the start's "
    "weights, after one pass over forget",
)
def pref_opt_idk(
    loss: Literal["dpo", "po"] = "dpo",
    keep: Literal["nll", "kl"] = "nll",
    beta: Annotated[float, Field(gt=0)] = 0.1,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
    lr: Annotated[float, Field(gt=0)] = 3e-4,
    epochs: Annotated[float, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 12,
) -> Stage:
    """Teach the model to refuse on the forgotten questions; every time each is met, another refusal is drawn.

    Equation: po: min NLL(refusal) + alpha R; dpo: min -(2 / beta) log sigmoid(beta (d_refusal - d_true)) + alpha R with
    d = log p(answer) - log p_start(answer), sums over the answer's tokens; R = NLL(retain), or with ``keep="kl"`` the
    divergence from the start's predictions there. Gradients are clipped to norm 1; it stops as soon as the forgotten
    rows do no better than unseen ones would, if the problem has ``valid`` rows to tell.
    Needs: forgotten and retained rows, and the record ``refusals``; scores of the start on true answers are cached,
    those of refusals come from the snapshot, and no second model is held.
    Fails: it hides more than it removes: the true answer stays the likeliest of the candidates on many rows, and truth
    ratios are far from a retrained model's. Where a model has never refused before, refusals spread to all questions,
    and without retained rows they do so on any model.
    """
    refused = Answers("forget", refusals, "refused")
    forget = fit(refused) if loss == "po" else prefer("forget", refused, beta)
    rest = fit("retain") if keep == "nll" else distill("retain")
    return Descent(
        forget + alpha * rest,
        how=clip(1.0),
        opt=common("adamw", lr),
        over="forget",
        epochs=epochs,
        batch=batch,
        until=unseen(),
        every=5,
    )


class prefer(Term):
    """-(2 / beta) log sigmoid(beta (d_preferred - d_on)), d the gain of log p over the start (Rafailov et al., 2023).

    ``preferred`` has the rows of ``on`` with other answers, in the same order.
    """

    frozen = ("score",)

    def __init__(self, on: On, preferred: On, beta: float) -> None:
        self.on, self.preferred, self.beta = on, preferred, beta

    @property
    def reads(self) -> tuple[On, ...]:
        return self.on, self.preferred

    def __call__(self, step: Step) -> Tensor:
        margin = self._gain(step, self.preferred) - self._gain(step, self.on)
        return -2 / self.beta * logsigmoid(self.beta * margin).sum() / step.count(self.on)

    def _gain(self, step: Step, on: On) -> Tensor:
        now: Tensor = step.task.score(step.out(on), step.batch(on))
        return now - step.frozen(on, "score")
