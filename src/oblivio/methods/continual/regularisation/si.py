"""SI: weights whose moves lowered the loss of earlier experiences are held, measured while these were learned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.where import How
from oblivio.methods.continual.regularisation._held import Form, held
from oblivio.registry import method
from oblivio.terms.anchor import Anchor


class path(How):
    """Adds up w_i = -sum over steps of g_i times the change of theta_i, and gives an Anchor its importance of that.

    Omega_i = max(w_i, 0) / ((theta_i - theta_i at the start)^2 + xi). The change is the real one, pulls and momentum
    in it; g is the gradient that the optimiser was given and ``plus`` times the slope of what the anchor holds.
    """

    motion = True

    def __init__(self, anchor: Anchor, xi: float, plus: float = 0.0) -> None:
        self.anchor, self.xi, self.plus = anchor, xi, plus

    def prepare(self, problem: Problem) -> None:
        self.state.update(start={}, work={})

    def after(self, step: Step) -> None:
        slope = self.anchor.slope(step.was) if self.plus else {}
        for name, was in step.was.items():
            if name not in step.grads:
                continue
            if name not in self.state["work"]:
                self.state["start"][name], self.state["work"][name] = was, was.new_zeros(was.shape)
            g = step.grads[name]
            g = g.add(slope[name], alpha=self.plus) if name in slope else g
            self.state["work"][name].addcmul_(g, was - step.weights[name])

    def consolidate(self, problem: Problem) -> None:
        weights, start = problem.weights(), self.state["start"]
        self.anchor.add(problem, {
            name: work.clamp(min=0) / ((weights[name].detach() - start[name]).square() + self.xi)
            for name, work in self.state["work"].items()
        })  # fmt: skip


@method(
    kind="continual",
    paper="Zenke et al., Continual Learning Through Synaptic Intelligence, ICML 2017",
    needs=("new",),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("synaptic_intelligence",),
    cost="no more passes; four copies of the weights while an experience is learned, two between",
)
def si(
    c: Annotated[float, Field(gt=0)] = 100.0,
    xi: Annotated[float, Field(gt=0)] = 0.1,
    gradient: Literal["task", "total"] = "task",
    form: Form = "proximal",
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 10,
) -> Stage:
    """Hold every weight at its latest value, as stiff as its moves lowered the loss of earlier experiences.

    Equation: min CE(new) + c sum_i Omega_i (theta_i - theta*_i)^2. In every step w_i <- w_i - g_i (change of theta_i);
    when an experience ends Omega_i <- Omega_i + max(w_i, 0) / ((move of theta_i in it)^2 + xi), theta* <- theta and
    w <- 0. No factor 1/2. g is the gradient of the new rows' loss (``task``, as published), or of it and the penalty
    (``total``, as van de Ven's code has it).
    ``proximal`` pulls the weights after every step; ``explicit`` adds the penalty to the loss, and diverges where
    lr c Omega exceeds 1.
    Needs: rows of the new experience with labels, and to be told where experiences end.
    Fails: in class-incremental streams, as ``ewc``. Noise in g makes w too large, the more the smaller the batch.
    """
    anchor = Anchor(None, latest=True)
    plus = {("explicit", "task"): -2 * c, ("proximal", "total"): 2 * c}.get((form, gradient), 0.0)
    also = [path(anchor, xi, plus)]
    return held(anchor, 2 * c, form, lr=lr, momentum=momentum, epochs=epochs, batch=batch, also=also)
