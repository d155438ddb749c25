"""WAGLE: a piece that lets any unlearning method move only the weights that matter to what is forgotten."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads, top
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.term import On, source_name
from oblivio.core.where import Selection, Where
from oblivio.registry import method
from oblivio.terms import fit

SMALLEST = 1e-12  # of mu: retained rows that are known by heart have no gradient


@method(
    kind="piece",
    paper="Jia et al., WAGLE: Strategic Weight Attribution for Effective and Modular Unlearning in Large Language "
    "Models, NeurIPS 2024",
    needs=("forget", "retain"),
    on="grad_diff",
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links", "causal_lm", "vision_language"),
    aliases=("weight_attribution",),
    cost="one pass over forget and over retain for the mask; two gradients while it is made",
)
def wagle(
    rho: Annotated[float, Field(gt=0, le=1)] = 0.1,
    mu: Annotated[float, Field(gt=0)] | None = 0.01,
) -> Callable[[Stage], Stage]:
    """Only the share ``rho`` of weights moves whose removal would change the forget loss most, retained rows adapting.

    Equation: S = |(theta - g_r / mu) g_f|, g_f and g_r the gradients of the mean loss on forgotten and on retained rows
    at the start, in evaluation mode; the ``rho`` share of all entries with the largest S moves, the rest keeps its
    bits, under momentum and weight decay too. g_f is taken of what the plan presses on, so of the refusals where it
    trains these. mu None makes g_r / mu and theta equal in their medians: mu has the scale of a gradient, and the
    paper's 1e-6 is for gradients that are summed over 400 batches. Retained rows that are known by heart have small
    ones: on the tiny language model 0.01, at which little is left of the correction, kept more than equal medians.
    Needs: a method by descent with forgotten and retained rows.
    Fails: with a large share there is nothing that it holds; the published ones are 0.6 to 0.95.
    """

    def put(plan: Stage) -> Stage:
        plan = copy.deepcopy(plan)
        where = attribution(pressed(plan), "retain", rho, mu)
        for _, part in walk(plan):
            if isinstance(part, Descent):
                part.change(None, where, None, None)
        return plan

    return put


def pressed(plan: Stage) -> list[On]:
    """The sources that the losses of a plan read beside the retained rows. Raises BadInput where there is none."""
    read = {source_name(on): on for _, d in walk(plan) if isinstance(d, Descent) for on in d.loss.reads}
    found = [on for name, on in read.items() if name != "retain"]
    if not found:
        raise BadInput(f"wagle: {plan!r} reads no rows to forget, by which weights could be chosen")
    return found


class attribution(Where):
    """The ``rho`` share of entries with the largest |(theta - g_r / mu) g_f| at the weights the stage starts from."""

    def __init__(self, forget: list[On], retain: On, rho: float, mu: float | None = None) -> None:
        self.forgotten, self.retained, self.rho, self.mu = forget, retain, rho, mu

    def prepare(self, problem: Problem) -> None:
        away = problem.gradient(sum(fit(on) for on in self.forgotten))
        kept = problem.gradient(fit(self.retained))
        weights = {n: w.detach() for n, w in problem.weights("model.*").items() if n in away and n in kept}
        mu = self.mu if self.mu is not None else max(_median(kept, weights) / _median(weights, weights), SMALLEST)
        self.state["mu"] = mu
        self.state["mask"] = top({n: scores(w, away[n], kept[n], mu) for n, w in weights.items()}, self.rho)

    def select(self, problem: Problem) -> Selection:
        return dict(self.state["mask"])

    def __repr__(self) -> str:
        return f"attribution({[source_name(on) for on in self.forgotten]}, rho={self.rho:g}, mu={self.mu})"


def scores(weight: Tensor, away: Tensor, kept: Tensor, mu: float) -> Tensor:
    """|(theta - g_r / mu) g_f|, entry by entry."""
    return ((weight - kept / mu) * away).abs()


def _median(values: Grads, names: Grads) -> float:
    """The median size of all entries of these names."""
    return float(torch.cat([values[n].flatten().abs() for n in names]).median())
