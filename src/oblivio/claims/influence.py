"""Influence unlearning: one Newton step takes memorised labels out where ascent costs the rest."""

from __future__ import annotations

from typing import Any

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import ROWS, accuracy, first, memorised, nothing, unstopped
from oblivio.core.plan import Stage, edit
from oblivio.core.problem import Problem
from oblivio.terms import fit


@edit
def uncurved(problem: Problem, damping: float) -> None:
    """The same step without a Hessian: the gradient over the damping."""
    share = len(problem.source("forget")) / len(problem.source("retain"))
    slope = problem.gradient(fit("forget"))
    for name, weight in problem.weights("model.*").items():
        weight.add_(share / damping * slope[name])


def straight(damping: float = 0.1, **settings: Any) -> Stage:
    """The method with no curvature."""
    return uncurved(damping)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on memorised wrong labels and on the rest; ascent stopped where it has forgotten as much."""
    case = memorised(seed)
    done, diagonal = case.after(method()), case.after(methods.influence(solver="diagonal"))
    forget = done.score("forget")
    looks = {"forget": accuracy("forget"), "retain": accuracy("retain")}
    ascent = first(case.path(unstopped(methods.grad_ascent(lr=2e-3, epochs=30)), **looks), "forget", forget)
    return {
        "before": case.start.score("forget"),
        "before_test": case.start.score("test"),
        "retrained": case.retrained.score("forget"),
        "retrained_test": case.retrained.score("test"),
        "influence": forget,
        "influence_retain": done.score("retain"),
        "influence_test": done.score("test"),
        "diagonal": diagonal.score("forget"),
        "diagonal_retain": diagonal.score("retain"),
        "ascent": ascent["forget"],
        "ascent_retain": ascent["retain"],
    }


CLAIM = Claim(
    says="One Newton step takes memorised wrong labels away, leaves the retained rows, and moves test accuracy towards "
    "that of retraining; gradient ascent that has forgotten as much has lost more of the retained rows, and so has the "
    "same step without the curvature.",
    trained=ROWS,
    method=methods.influence,
    controls={"the method as a no-op": nothing, "the step without a Hessian": straight},
    measure=measure,
    holds=(
        "influence <= before - 0.2",
        "influence_retain >= 0.99",
        "influence_retain >= ascent_retain + 0.01",
        "influence_test >= before_test",
    ),
    changed=(
        Changed("the whole check", "none: the method has no card", "shipped defaults, chosen on seed 100",
                "the papers' headline: close to retraining at the cost of one step"),
    ),
)  # fmt: skip
