"""MAS: weights to which the size of the outputs is sensitive are held; no labels are needed to know which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.grads import Grads
from oblivio.core.importance import importance
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.source import Batch
from oblivio.core.term import On
from oblivio.methods.continual.regularisation._held import Form, held
from oblivio.registry import method
from oblivio.terms.anchor import SIZE, Anchor


@dataclass(frozen=True)
class Sensitivity:
    """The measure of MAS: the mean over the rows of ``on`` of |d |f(x)|^2 / d theta|, from inputs alone."""

    on: On = "new"

    def __call__(self, problem: Problem) -> Grads:
        return importance(problem, self.on, squared_norm, power=torch.abs, size=SIZE)


def squared_norm(problem: Problem, out: Tensor, batch: Batch) -> Tensor:
    """|f(x)|^2 over the outputs that count; those that do not are constant, and add no gradient."""
    return problem.task.view(out, batch, "train").flatten(1).square().sum(1)


@method(
    kind="continual",
    paper="Aljundi et al., Memory Aware Synapses: Learning what (not) to forget, ECCV 2018",
    needs=("new",),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("memory_aware_synapses",),
    cost="one more pass over the inputs of every experience; two copies of the weights",
)
def mas(
    lam: Annotated[float, Field(gt=0)] = 0.3,
    decay: Annotated[float, Field(ge=0, le=1)] | None = None,
    form: Form = "proximal",
    lr: Annotated[float, Field(gt=0)] = 0.05,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    epochs: Annotated[float, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 10,
) -> Stage:
    """Hold every weight at its latest value, as stiff as the outputs reacted to it on earlier experiences' inputs.

    Equation: min CE(new) + lam sum_i Omega_i (theta_i - theta*_i)^2; when an experience ends theta* <- theta and
    Omega <- Omega + Omega_t, or with ``decay`` a the moving average a Omega + (1 - a) Omega_t. Omega_t is the mean over
    rows of |d |f(x)|^2 / d theta|, the absolute value taken of each row, f the logits that count. No factor 1/2.
    The paper's code sums gradients over a batch before the absolute value, which cancels signs; rows here never mix.
    Needs: inputs of the new experience, with labels for the loss alone; to be told where experiences end.
    Fails: in class-incremental streams, as ``ewc``. Omega grows with the logits, so that lam must be chosen anew where
    these are normalised.
    """
    anchor = Anchor(Sensitivity(), 1.0 if decay is None else decay, latest=True, average=decay is not None)
    return held(anchor, 2 * lam, form, lr=lr, momentum=momentum, epochs=epochs, batch=batch)
