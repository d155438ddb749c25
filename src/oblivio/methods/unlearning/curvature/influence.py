"""Influence unlearning: the one Newton step that takes the forgotten rows out of the fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from oblivio.core.grads import Grads, add, dot, norm
from oblivio.core.importance import fisher
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem, moving
from oblivio.core.source import Batch
from oblivio.core.term import On
from oblivio.registry import method
from oblivio.terms import fit

CLOSE = 1e-3  # the share of the right-hand side that conjugate gradients may leave


def curved(problem: Problem, on: On, vector: Grads, chunk: int) -> Grads:
    """The Gauss-Newton matrix of the mean loss over ``on``, in evaluation mode, times ``vector``; its shapes.

    J^T H J by row, J the slope of the outputs in the weights and H the Hessian of the loss in the outputs: never
    indefinite where the loss is convex in the outputs, which the true Hessian is not.
    """
    source, total = problem.source(on), {n: torch.zeros_like(v) for n, v in vector.items()}
    weights = {n: w.detach() for n, w in problem.weights().items() if n in vector}
    problem.count(source.name, len(source))
    with torch.enable_grad(), problem.evaluating(), moving(problem.nets, ()), sdpa_kernel(SDPBackend.MATH):
        for batch in source.batches(chunk):
            total = add(total, _of_batch(problem, batch, weights, vector), 1 / len(source))
    return {n: v.detach() for n, v in total.items()}


def _of_batch(problem: Problem, batch: Batch, weights: Grads, vector: Grads) -> Grads:
    def outputs(values: Grads) -> Tensor:
        forward: Callable[..., Tensor] = lambda nets: problem.task.forward(nets, "model", batch)  # noqa: E731
        return functional_call(problem.nets, values, (forward,))

    def slope(out: Tensor) -> Tensor:
        losses: Callable[[Tensor], Tensor] = lambda o: problem.task.each(o, batch).sum()  # noqa: E731
        return grad(losses)(out)

    out, moved = cast("tuple[Tensor, Tensor]", jvp(outputs, (weights,), (vector,)))
    _, bent = cast("tuple[Tensor, Tensor]", jvp(slope, (out.detach(),), (moved.detach(),)))
    product: Grads = vjp(outputs, weights)[1](bent)[0]
    return product


def conjugate(times: Callable[[Grads], Grads], right: Grads, most: int) -> Grads:
    """The x of ``times(x) = right``, positive definite, by at most ``most`` steps of conjugate gradients."""
    x, residual, direction = {n: torch.zeros_like(v) for n, v in right.items()}, right, right
    end, now = CLOSE * norm(right), dot(right, right)
    for _ in range(most):
        if now.sqrt() <= end:
            break
        image = times(direction)
        step = now / dot(direction, image)
        x, residual = add(x, direction, step), add(residual, image, -step)
        now, before = dot(residual, residual), now
        direction = add(residual, direction, now / before)
    return x


@edit
def remove(problem: Problem, solver: str, damping: float, strength: float, steps: int, chunk: int) -> None:
    """Add strength (1 / n) (H + damping I)^-1 times the sum of the forgotten rows' gradients; n retained rows."""
    n = len(problem.source("retain"))
    slope = {k: g * len(problem.source("forget")) / n for k, g in problem.gradient(fit("forget"), chunk=chunk).items()}
    if solver == "cg":
        step = conjugate(lambda v: add(curved(problem, "retain", v, chunk), v, damping), slope, steps)
    else:
        step = {k: slope[k] / (f + damping) for k, f in fisher(problem, "retain").items() if k in slope}
    for name, weight in problem.weights("model.*").items():
        weight.add_(strength * step[name] if name in step else 0)


@method(
    paper="Koh and Liang, Understanding Black-box Predictions via Influence Functions, ICML 2017; as removal: Guo et "
    "al., Certified Data Removal from Machine Learning Models, ICML 2020",
    needs=("forget", "retain"),
    tasks=("classification", "binary", "multilabel", "regression"),
    aliases=("influence_unlearning", "iu", "newton"),
    passes=21,
    cost="one pass over forget; with cg at most ``steps`` times two passes over retain, with diagonal one",
)
def influence(
    solver: Literal["cg", "diagonal"] = "cg",
    damping: Annotated[float, Field(gt=0)] = 0.1,
    strength: Annotated[float, Field(gt=0)] = 1.0,
    steps: Annotated[int, Field(gt=0)] = 20,
    chunk: Annotated[int, Field(gt=0)] = 512,
) -> Stage:
    """Take one Newton step on the retained rows' loss, along the forgotten rows' gradient.

    Equation: theta <- theta + strength (1 / n) (H + damping I)^-1 sum over forget of grad CE, n the number of retained
    rows and H their mean Gauss-Newton matrix (``cg``: ``steps`` conjugate gradients at most, or until a thousandth is
    left) or diagonal Fisher (``diagonal``). Where the gradients of all rows sum to zero it is the Newton step that
    minimises the retained loss. ``strength`` other than 1 is the alpha of Jia et al., who approximate the inverse.
    Needs: forgotten and retained rows with labels; outputs that can be differentiated forwards.
    Fails: the step is exact for a quadratic loss; on a network it is good for few rows, and with a damping below the
    curvature that the step itself changes it harms everything. At the default damping, chosen for ``cg``, the
    diagonal does that: the claim records it.
    """
    return remove(solver, damping, strength, steps, chunk)
