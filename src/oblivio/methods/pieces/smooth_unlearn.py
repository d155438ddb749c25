"""Smooth unlearning: a piece that flattens what forgets in any method, in one of five ways, against relearning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from oblivio import terms
from oblivio.core.grads import Grads, add, norm
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import Rule, Term, rule, term
from oblivio.core.where import How
from oblivio.methods.pieces import _forgetting
from oblivio.registry import method

RHO = {"sam": 0.1, "rs": 0.03, "cr": 0.1}
LAM = {"gp": 0.03, "cr": 0.03}


@rule
class blurred(Rule):
    """The mean over ``draws`` of grad L(theta + rho e), e standard normal over the entries that may move (RS)."""

    term: Term
    rho: float
    draws: int

    def grad(self, step: Step, graph: bool = False) -> Grads:
        total: Grads = {}
        for i in range(self.draws):
            total = add(total, self.term.grad(step.at(self._near(step, i)), graph), 1 / self.draws)
        return total

    def _near(self, step: Step, i: int) -> Grads:
        near = {}
        with torch.no_grad():
            for name, weight in step.weights.items():
                noise = torch.randn(weight.shape, generator=step.rng(f"blur/{i}/{name}"), device=weight.device)
                mask = step.selection[name]
                near[name] = weight + self.rho * (noise if mask is None else noise * (mask != 0)).to(weight.dtype)
        return near


@term(whole=True)
def slope(step: Step, of: Term, rho: float = 0.0) -> Tensor:
    """|grad L(theta)|; with rho |grad L(theta + d) - grad L(theta)|, d = rho grad L / |grad L| held fixed."""
    g = step.grad(of, graph=True)
    if rho:
        scale = rho / (norm(g).detach() + 1e-12)
        ahead = {k: w + scale * g[k].detach() if k in g else w for k, w in step.weights.items()}
        g = add(step.at(ahead, graph=True).grad(of, graph=True), g, -1)
    if not g:  # nothing to forget at this step
        return torch.zeros((), device=step.device)
    return torch.stack([v.square().sum() for v in g.values()]).sum().add(1e-24).sqrt()


@rule
class penalised(Rule):
    """grad (L + lam slope(L)): the penalty stays in the graph, so that it has a gradient (GP; with ``rho`` CR)."""

    whole = True  # a norm over the whole batch
    term: Term
    lam: float
    rho: float = 0.0

    def grad(self, step: Step, graph: bool = False) -> Grads:
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
            return step.differentiate(self.term + self.lam * slope(self.term, self.rho), graph)


class mean(How):
    """End with the mean of the weights after every ``every``-th step of the last part of a run, from ``start`` on (WA).

    ``state`` holds the mean so far by weight, and the number of weights in it.
    """

    def __init__(self, start: float, every: int) -> None:
        self.start, self.every = start, every

    def prepare(self, problem: Problem) -> None:
        self.state.clear()

    def after(self, step: Step) -> None:
        late = step.t + 1 - max(1, math.ceil(self.start * step.end))
        if late < 0:  # the first part, of a further visit too
            self.state.clear()
        elif late % self.every == 0:
            n, known = self.state.get("count", 0) + 1, self.state.get("mean", {})
            self.state["mean"] = {k: known.get(k, w).lerp(w, 1 / n) for k, w in step.weights.items()}
            self.state["count"] = n

    def consolidate(self, problem: Problem) -> None:
        weights = problem.weights()
        with torch.no_grad():
            for name, value in self.state.get("mean", {}).items():
                weights[name].copy_(value)
        self.state.clear()


@method(
    kind="piece",
    paper="Fan et al., Towards LLM Unlearning Resilient to Relearning Attacks: A Sharpness-Aware Minimization "
    "Perspective and Beyond, ICML 2025",
    needs=("forget",),
    tasks=("classification", "binary", "multilabel", "regression", "graph", "links", "causal_lm", "vision_language"),
    aliases=("sam_unlearning", "smoothness"),
    cost="more passes over each forget batch: sam 1, rs draws - 1, gp and cr about 2 and 4; wa none, but a second copy "
    "of what moves",
)
def smooth_unlearn(
    smoother: Literal["sam", "rs", "gp", "cr", "wa"] = "sam",
    rho: Annotated[float | None, Field(gt=0)] = None,
    draws: Annotated[int, Field(ge=1)] = 3,
    lam: Annotated[float | None, Field(gt=0)] = None,
    start: Annotated[float, Field(ge=0, lt=1)] = 0.8,
    every: Annotated[int, Field(ge=1)] = 5,
) -> Callable[[Stage], Stage]:
    """Make what forgets flat in the weights, so that training on some forgotten rows brings fewer of the others back.

    Equation: with L the terms that read forget and g = grad L, in place of g
    sam: grad L(theta + d), d = rho g / |g| over all moving weights; rs: the mean over ``draws`` of grad L(theta +
    rho e), e standard normal; gp: grad (L + lam |g|); cr: grad (L + lam |grad L(theta + d) - g|), d held fixed;
    wa: g, and in the end the mean of the weights after every ``every``-th step from the share ``start`` of the run on.
    Needs: a method with a forget term; an edit such as ssd has none and is refused. gp and cr differentiate twice:
    attention runs on its plain kernel meanwhile, and a batch cannot be chunked.
    Fails: a large rho weakens the forgetting itself. wa leaves batch-norm statistics as those of the last weights, and
    a run that is stopped before ``start`` as it is.
    Published code of gp and cr makes a number of the norm, so that the penalty has no gradient, and their lam of 10
    there no meaning; rho and lam are None for what was chosen for each smoother.
    """
    wide, strong = rho or RHO.get(smoother, 0.0), lam or LAM.get(smoother, 0.0)
    changes: dict[str, Callable[[Term], Term]] = {
        "sam": lambda t: terms.sam(t, wide),
        "rs": lambda t: blurred(t, wide, draws),
        "gp": lambda t: penalised(t, strong),
        "cr": lambda t: penalised(t, strong, wide),
        "wa": lambda t: t,
    }

    def put(plan: Stage) -> Stage:
        smooth = _forgetting.put(plan, changes[smoother], "smooth_unlearn")
        return smooth.but(how=mean(start, every)) if smoother == "wa" else smooth

    return put
