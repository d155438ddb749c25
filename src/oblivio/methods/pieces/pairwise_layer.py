"""The pairwise layer: a piece that learns from products of pairs of winners, with a rate that falls with importance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.grads import Grads
from oblivio.core.opt import adagrad, sgd
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.term import On, term
from oblivio.core.where import How
from oblivio.methods.pieces._learning import learning
from oblivio.modules.pairwise import Pairwise, make_pairwise
from oblivio.registry import method

FLOOR = 1e-6  # under the root of the accumulated importance


@method(
    kind="piece",
    paper="Keskinen, Task agnostic continual learning with Pairwise layer architecture, 2024",
    needs=("new|retain|train",),
    on="er",
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("pw_layer", "s_mas", "pairwise"),
    cost="m weights in the head; S-MAS: one more forward and backward a batch, and a second number a weight",
)
def pairwise_layer(
    update: Literal["s_mas", "adagrad"] = "s_mas",
    lr: Annotated[float, Field(gt=0)] = 1e-4,
    lam: Annotated[float, Field(gt=0)] = 0.01,
    beta: Annotated[float, Field(gt=0)] = 0.8,
    m: Annotated[int, Field(ge=1)] = 250000,
    p: Annotated[float, Field(gt=0, le=1)] = 0.15,
) -> Callable[[Stage], Stage]:
    """A weight of the head moves only where both its units win, and all the less the more it has mattered before.

    Equation: a = relu(h - v), v the floor(p n)-th largest of h; logit_c = sum_q w_qc a_i a_j over m fixed random
    pairs; theta <- theta - lr g / sqrt(omega + 1e-6), where omega grows by lam |grad mean(logits^2)| (s_mas: no labels)
    or by beta g^2 (adagrad), from 0 and never reset.
    Needs: a chain (``modules.chain``) with a linear head that has learned nothing, since the layer before the head is
    drawn anew; as many outputs as there will ever be; inputs with mean 0 and deviation 1. No memory, no boundaries. It
    takes the place of the plan's own optimiser.
    Fails: omega starts at 0, so that the first steps are near 1000 lr g: keep lr small. Many epochs forget.
    """

    def put(plan: Stage) -> Stage:
        plan, found = learning(plan, "pairwise_layer")
        if update == "adagrad":  # omega = beta (S + FLOOR / beta), with S the sum of squares that torch keeps
            return pairs(m, p) >> plan.but(opt=adagrad(lr / beta**0.5, initial=FLOOR / beta, eps=0.0, carry=True))
        for descent, on in found:
            descent.how = [*descent.how, SMAS(on, lam)]
        return pairs(m, p) >> plan.but(opt=sgd(lr))

    return put


@edit
def pairs(problem: Problem, m: int, p: float) -> None:
    """The surgery, once in the life of a model."""
    if not any(isinstance(module, Pairwise) for module in problem.model.modules()):
        problem.operate(make_pairwise, m=m, p=p, seed=mix(problem.seed, "pairwise_layer"))


@term
def magnitude(step: Step, on: On) -> Tensor:
    """The mean of the squared outputs."""
    return step.out(on).flatten(1).square().mean(1)


class SMAS(How):
    """Divide each gradient by the root of its weight's importance so far, of which ``omega`` is the sum by name."""

    def __init__(self, on: str, lam: float) -> None:
        self.lam, self.outputs = lam, magnitude(on)

    def __call__(self, grads: Grads, step: Step) -> Grads:
        matters = self.outputs.grad(step.at(step.weights))
        scaled = {}
        for name, g in grads.items():
            omega = self.state.get(name, torch.zeros_like(g))
            self.state[name] = omega + self.lam * matters[name].abs() if name in matters else omega
            scaled[name] = g / (self.state[name] + FLOOR).sqrt()
        return scaled

    def forget(self, rows: Source, problem: Problem) -> str:
        """Importance is a sum over all rows so far: it cannot be taken apart, so it goes."""
        held = bool(self.state)
        self.state.clear()
        return "importance dropped" if held else ""
