"""Refresh learning: a piece that unlearns each batch a little before it is learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from oblivio import terms
from oblivio.core.importance import importance
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.seeds import seed_device
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.where import How
from oblivio.methods.pieces._learning import learning
from oblivio.registry import method


@method(
    kind="piece",
    paper="Wang et al., A Unified and General Framework for Continual Learning, ICLR 2024",
    needs=("new|retain|train",),
    on="er",
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("refresh",),
    cost="one more forward and backward a step, over the new batch; a pass over the rows of each experience, with "
    "squared gradients per example; one copy of the weights",
)
def refresh_learning(
    delta: Annotated[float, Field(ge=0)] = 1e-5,
    noise: Annotated[float, Field(ge=0)] = 1e-3,
    damping: Annotated[float, Field(ge=0)] = 1e-3,
    tau: Annotated[float, Field(ge=0)] = 1e-5,
) -> Callable[[Stage], Stage]:
    """Before every update take a small noisy step up the loss of the new batch; the update then learns it again.

    Equation: theta <- theta + delta (|theta| g / |g| + noise xi) / (1 + damping F), tensor by tensor, with g the
    gradient of CE(new) at theta and xi standard normal; then the plan's own update, from there. After an experience
    F <- tau F + mean_i p_i (grad CE_i)^2, p_i the probability of row i's label.
    Needs: a plan that learns new rows by descent: er, der_pp, ... Every tensor moves by delta times its own length, so
    that a tensor of zeros stays but for the noise. The step is scaled to the weights, so the rate of the ascent (0.01
    in the published code) has no effect and is left out.
    Fails: delta 0.01 destroys learning. A deleted row's part in F stays.
    """

    def put(plan: Stage) -> Stage:
        plan, found = learning(plan, "refresh_learning")
        for descent, on in found:
            descent.how = [*descent.how, Refresh(on, delta, noise, damping, tau)]
        return plan

    return put


class Refresh(How):
    """Displaces the weights that may move before the forward; ``F`` is kept by the weight's name."""

    def __init__(self, on: str, delta: float, noise: float, damping: float, tau: float) -> None:
        self.delta, self.noise, self.damping, self.tau = delta, noise, damping, tau
        self.on, self.learned = on, terms.fit(on)

    def before(self, step: Step) -> None:
        seed_device(step.rng("refresh/layers").initial_seed(), step.device)  # dropout, which a resumed run must repeat
        away = self.learned.grad(step.at(step.weights))  # at substituted weights, so that no statistics move
        with torch.no_grad():
            for name, weight in step.weights.items():
                weight += self._displacement(step, name, weight, away.get(name))

    def _displacement(self, step: Step, name: str, weight: Tensor, g: Tensor | None) -> Tensor:
        xi = torch.randn(weight.shape, generator=step.rng(f"refresh/{name}"), device=weight.device, dtype=weight.dtype)
        d = self.noise * xi
        if g is not None:
            d = d + weight.norm() * g / (g.norm() + 1e-20)
        if name in self.state and self.state[name].shape == weight.shape:
            d = d / (1 + self.damping * self.state[name])
        mask = step.selection[name]
        return self.delta * (d if mask is None else d * mask)

    def consolidate(self, problem: Problem) -> None:
        if not self.damping:
            return
        for name, value in importance(problem, self.on, recognised).items():
            before = self.state.get(name, torch.zeros_like(value))
            self.state[name] = self.tau * before + value if before.shape == value.shape else value


def recognised(problem: Problem, out: Tensor, batch: Batch) -> Tensor:
    """A value whose squared gradient is exp(-l) times that of each row's loss l."""
    loss = problem.task.each(out, batch)
    return loss * (-loss.detach() / 2).exp()
