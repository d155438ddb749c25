"""ProtoCL: a Gaussian a class over a learned embedding, its mean counted up, the embedding descended."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field

from oblivio import terms
from oblivio.core.descent import Descent
from oblivio.core.opt import adam
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.core.seeds import mix
from oblivio.core.source import Source
from oblivio.core.step import Step
from oblivio.core.term import On
from oblivio.core.where import How
from oblivio.modules.features import features
from oblivio.modules.gaussian_head import GaussianHead, gaussian_head
from oblivio.modules.heads import last_linear, linear_layer
from oblivio.registry import method
from oblivio.sources import Exemplars, Joined, Memory
from oblivio.sources.repeated import Repeated

ALPHA = math.exp(0.78)  # Dirichlet count of a class before any row


class Conjugate(How):
    """Counts each batch, as the objective saw it, into the Gaussians of the head; nothing is done to the gradient.

    A deletion makes the Gaussians anew from what ``memory`` still holds, so it stands behind the memory in a plan.
    """

    taps = ("features",)

    def __init__(self, on: On, memory: Memory, decay: float) -> None:
        self.on, self.memory, self.decay = on, memory, decay

    def after(self, step: Step) -> None:
        z = step.gathered(self.on, step.seen(self.on, layer="features"))
        _head(step.problem).add(z, step.drawn(self.on)["y"].to(z.device), self.decay)

    def forget(self, rows: Source, problem: Problem) -> str:
        head = linear_layer(problem.model, last_linear(problem.model))
        if not isinstance(head, GaussianHead):
            return ""
        with torch.no_grad():
            head.clear(0.0)
            if len(self.memory):
                head.add(features(problem, self.memory), self.memory.batch(torch.arange(len(self.memory)))["y"])
        return f"class statistics made anew from the {len(self.memory)} rows that are stored"


def _head(problem: Problem) -> GaussianHead:
    head = linear_layer(problem.model, last_linear(problem.model))
    assert isinstance(head, GaussianHead)
    return head


@edit
def gaussians(problem: Problem, dim: int, s: float) -> None:
    """The surgery, once in the life of a model."""
    layer = last_linear(problem.model)
    if not isinstance(linear_layer(problem.model, layer), GaussianHead):
        seed = mix(problem.seed, "protocl")
        problem.operate(gaussian_head, layer=layer, dim=dim, s=s, alpha=ALPHA, seed=seed)


@method(
    kind="continual",
    paper="Kessler et al., On Sequential Bayesian Inference for Continual Learning, Entropy 2023",
    needs=("new",),
    tasks=("classification",),
    aliases=("bayesian_nearest_class_mean",),
    cost="about twice the new rows; the stored rows, and dim + 2 numbers a class",
)
def protocl(
    buffer: Annotated[int, Field(gt=0)] = 1000,
    sigma_eps: Annotated[float, Field(gt=0)] = 0.05,
    dim: Annotated[int, Field(gt=0)] = 128,
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9,
    lr: Annotated[float, Field(gt=0)] = 1e-4,
    wd: Annotated[float, Field(ge=0)] = 1e-4,
    epochs: Annotated[float, Field(gt=0)] = 50,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Train the embedding by the posterior of the class, and keep the class means by Bayes' rule.

    Equation: log p(z, k) = log N(z; q_k / l_k, (1 / l_k + s) I) + log(a_k / sum a), s = ``sigma_eps``; min -log
    softmax_k log p(z, k)[y] by descent in the embedding z alone. After each batch q_k <- decay q_k + sum z / s, l_k <-
    1 + decay (l_k - 1) + n_k / s, a_k <- a_k + n_k, sums over all its rows of class k; 1 is the precision of the prior.
    New rows are shuffled with buffer / t stored ones of every experience, repeated floor(new / stored) times.
    The public code keeps a posterior a batch row and counts test rows in; here sums are over the batch, and predicting
    only reads. There the noise and the Dirichlet counts may be learned too. A deletion makes the statistics anew from
    the stored rows; a class of which none is left is served no longer, and the weights still depend on the rows.
    Needs: labels, boundaries, a model that ends in a linear layer, in whose place come the embedding and the Gaussians.
    Fails: with few stored rows the embedding moves away under old classes; with decay = 1 their stale rows weigh more
    and more. A method of unlearning that changes the embedding leaves the statistics as they were.
    """
    memory = Exemplars(buffer, by="turn")
    pool = Joined("new", Repeated(memory, "new"))
    count = Conjugate(pool, memory, decay)
    opt = adam(lr, wd=wd)
    train = Descent(terms.fit(pool), how=count, over=pool, epochs=epochs, batch=batch, opt=opt, moves=(pool.name,))
    return gaussians(dim, sigma_eps) >> train
