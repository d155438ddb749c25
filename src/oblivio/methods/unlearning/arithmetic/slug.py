"""SLUG: one gradient, one weight tensor, one step whose length is found by bisection."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.registry import method
from oblivio.terms import fit


def front(importance: dict[str, float], alignment: dict[str, float]) -> list[str]:
    """The names for which no other is both strictly more important and strictly less aligned, in their order."""
    return [
        n for n in importance
        if not any(importance[o] > importance[n] and alignment[o] < alignment[n] for o in importance)
    ]  # fmt: skip


def candidates(problem: Problem, forget: Grads, retain: Grads) -> list[str]:
    """Matrices and kernels on the front; biases, norms, embeddings and learned positions never are."""
    owners = dict(problem.nets.named_modules())
    weights = {
        n: w.detach() for n, w in problem.weights("model.*").items()
        if n.endswith("weight") and w.dim() > 1 and not isinstance(owners[n.rpartition(".")[0]], nn.Embedding)
        and n in forget and float(forget[n].norm()) > 0
    }  # fmt: skip
    if not weights:
        raise BadInput("no matrix or kernel of the model has a gradient on the forgotten rows; check their labels")
    importance = {n: float(forget[n].norm() / w.norm()) for n, w in weights.items()}
    alignment = {n: abs(float(cosine(forget[n], retain[n]))) for n in weights}
    return front(importance, alignment)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of the angle between two tensors as vectors; 0 where one is zero."""
    return (a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-30)


@edit
def single_layer(problem: Problem, initial: float, trials: int, target: float) -> None:
    """Move the one tensor, by the one step, that brings ``forget`` to the target and keeps ``retain`` best.

    Where no trial reaches the target, the one with the lowest figure on ``forget``.
    """
    forget, retain = (problem.gradient(fit(on)) for on in ("forget", "retain"))
    best: tuple[tuple[float, float], Tensor, Tensor] | None = None
    for name in candidates(problem, forget, retain):
        weight, slope = problem.weights("model.*")[name].detach(), forget[name]
        start = weight.clone()
        low, high, step = 0.0, math.inf, initial * float(start.norm() / slope.norm())
        for _ in range(trials):
            weight.copy_(start + step * slope)
            left = problem.score("forget")
            rank = (min(target - left, 0.0), problem.score("retain"))
            if best is None or rank > best[0]:
                best = (rank, weight, weight.clone())
            low, high = (low, step) if left <= target else (step, high)
            step = 2 * low if high == math.inf else (low + high) / 2
        weight.copy_(start)
    if best is not None:
        best[1].copy_(best[2])


@method(
    paper="Cai et al., Targeted Unlearning with Single Layer Unlearning Gradient, ICML 2025",
    needs=("forget", "retain"),
    tasks=("classification",),
    serves=("class",),
    refusal="its target is an accuracy near zero, where a model retrained without random rows still gets most right",
    aliases=("single_layer_unlearning_gradient", "single_layer_gradient"),
    passes=20,
    cost="one gradient pass over forget and one over retain, then trials evaluations of both for each candidate",
)
def slug(
    target: Annotated[float, Field(ge=0, lt=1)] = 0.01,
    initial: Annotated[float, Field(gt=0)] = 0.1,
    trials: Annotated[int, Field(gt=0)] = 10,
) -> Stage:
    """Move one weight tensor along its forget gradient, by a step that bisection finds; all else keeps its bits.

    Equation: W_l <- W_l + s grad_l CE(forget); l from the Pareto front of |grad_l CE(forget)| / |W_l| (high) and
    |cos(grad_l CE(forget), grad_l CE(retain))| (low); s doubles from ``initial`` |W_l| / |grad_l| until the accuracy on
    the forgotten rows is ``target`` or less, then halves the gap, ``trials`` times for each l; of all (l, s) at the
    target that with the best accuracy on the retained rows.
    Needs: forgotten and retained rows with labels. Defaults are the paper's, with top-1 accuracy as the figure.
    Fails: one tensor is moved, mostly the head, so the features still tell the class; audit the features. Where no
    trial reaches the target the nearest one is kept.
    """
    return single_layer(initial, trials, target)
