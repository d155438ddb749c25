"""Influence approximation: forgetting as one step of learning taken backwards, from a model trained to allow it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import adam, sgd
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import Term, term
from oblivio.registry import method
from oblivio.terms import fit

CHUNK = 512  # rows in memory at once; the gradient is that of all


@term(whole=True)
def slope(step: Step, of: Term) -> Tensor:
    """The sum over weight tensors of the norms of their gradients of ``of``, by a second backward pass."""
    return torch.stack([g.square().sum().add(1e-24).sqrt() for g in step.grad(of, graph=True).values()]).sum()


def iau_training(
    alpha: float = 0.005, lr: float = 1e-3, epochs: float = 200, batch: int = 64, on: str = "train"
) -> Stage:
    """A plan to train by, so that one step of ``iau`` suffices: the loss and ``alpha`` times the size of its slope.

    Equation: min CE + alpha sum over weight tensors |grad CE|, both of the batch. About twice the cost of training.
    Run it on a problem with the training rows as source ``on``; the paper stops when validation accuracy has not
    risen for nine epochs.
    """
    return Descent(fit(on) + alpha * slope(fit(on)), opt=adam(lr), epochs=epochs, batch=batch)


@method(
    paper="Efficient Machine Unlearning via Influence Approximation, 2025",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("influence_approximation",),
    cost="one pass over forget and retain, one step",
)
def iau(
    step: Literal["adam", "sgd"] = "adam",
    lr: Annotated[float, Field(gt=0)] = 3e-3,
    correction: bool = True,
) -> Stage:
    """Take one step away from the forgotten rows and towards the retained ones, each by its whole gradient.

    Equation: theta <- theta - lr step(grad CE(retain) - grad CE(forget)), both means over complete sets; without
    ``correction`` the retained rows' part is left out. A first step of Adam is lr times the sign.
    Needs: forgotten and retained rows with labels. The paper's full effect needs a model trained by ``iau_training``
    of this module; of any other it is one step of gradient ascent. lr is the larger of the card's two.
    Fails: with Adam the correction can only turn signs; with SGD near convergence the step is tiny, and lr must be
    far larger.
    """
    loss = fit("retain") - fit("forget") if correction else -fit("forget")
    opt = adam(lr) if step == "adam" else sgd(lr)
    return Descent(loss, opt=opt, steps=1, batch=None, chunk=CHUNK)
