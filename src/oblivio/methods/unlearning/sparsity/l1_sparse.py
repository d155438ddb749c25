"""Fine-tuning with a fading l1 penalty, from a model that may be pruned first."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.opt import linear, sgd
from oblivio.core.plan import Stage
from oblivio.core.step import Step
from oblivio.core.term import term
from oblivio.edits import prune as prune_
from oblivio.registry import method
from oblivio.terms import fit
from oblivio.where import surviving


@term
def l1(step: Step) -> Tensor:
    """The sum of sizes of all moving weights."""
    return torch.stack([w.abs().sum() for w in step.weights.values()]).sum()


@method(
    paper="Jia et al., Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023",
    needs=("retain",),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links"),
    aliases=("l1", "sparse", "prune_first"),
    cost="epochs over retain",
)
def l1_sparse(
    gamma: Annotated[float, Field(ge=0)] = 3e-4,
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    lr: Annotated[float, Field(gt=0)] = 0.05,
    epochs: Annotated[float, Field(gt=0)] = 3,
    batch: Annotated[int, Field(gt=0)] = 64,
) -> Stage:
    """Go on training on the retained rows, paying for the size of the weights at first and no more at the end.

    Equation: min CE(retain) + gamma (1 - progress) |theta|_1; with ``prune`` the share of smallest weights goes to
    zero first and stays there.
    Needs: retained rows. gamma is not scaled by the number of weights: choose it anew for another size of model.
    Fails: without the fading the model ends underfitted; memorised rows can survive a small gamma.
    """
    loss = fit("retain") + gamma * (linear * l1())
    descent = Descent(loss, opt=sgd(lr, 0.9, schedule=linear), epochs=epochs, batch=batch)
    return prune_(prune) >> descent.but(where=surviving()) if prune else descent
