"""Fisher forgetting: noise in the weights, most where the retained rows would not notice."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from oblivio.core.importance import fisher
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem, rng
from oblivio.registry import method

TINY = 1e-8  # added to the Fisher, as in the paper's code


@edit
def scrub(problem: Problem, alpha: float, most: float) -> None:
    """Add normal noise of variance alpha min(1 / F, most)^(1/2), F the diagonal Fisher of the retained rows."""
    importance = fisher(problem, "retain")
    for name, weight in problem.weights("model.*").items():
        variance = alpha * (1 / (importance[name] + TINY)).clamp(max=most).sqrt()
        noise = torch.randn(weight.shape, generator=rng(problem, "scrub", name), device=weight.device)
        weight.add_(variance.sqrt() * noise)


@method(
    paper="Golatkar et al., Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks, CVPR 2020",
    needs=("retain",),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("ff", "fisher", "eternal_sunshine"),
    cost="one pass over retain",
)
def fisher_forgetting(
    alpha: Annotated[float, Field(gt=0)] = 3e-5,
    most: Annotated[float, Field(gt=0)] = 1e5,
) -> Stage:
    """Add noise to every weight, the more the less the retained rows' loss is curved along it.

    Equation: theta <- theta + n, n normal with variance alpha min(1 / F, most)^(1/2), F the diagonal Fisher of the
    retained rows. alpha stands for the paper's (lambda sigma^2)^(1/2).
    Needs: retained rows with labels.
    Fails: it pays in accuracy on all rows for what it hides.
    Paper and code: the paper's exponent is used. Its code has variance alpha / F, with 1 / F at most 1e3 (1e2 in the
    last layer), averaged over each unit's inputs, tenfold in the last layer and in vectors, and draws a forgotten
    class's outputs anew; the code of Jia et al. bounds the standard deviation at 1e-3. F is here that of the data's
    labels, in the paper's code that of the model's, which is larger after training; hence another ``most``.
    """
    return scrub(alpha, most)
