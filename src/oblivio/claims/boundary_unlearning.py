"""Boundary unlearning: a class goes by its own rows alone, into a shadow class or over to its neighbours."""

from __future__ import annotations

from oblivio import methods
from oblivio.claims.claim import Changed, Claim, Figures, Method
from oblivio.claims.problems import CLASS, Case, accuracy, class_three, first, nothing, unstopped
from oblivio.core.plan import Stage

TARGET = 0.05  # accuracy on the class at which shrinking and ascent stop


def to_target(case: Case, plan: Stage) -> dict[str, float]:
    """Accuracy on the class and on the others at the first step where the class is at the target, else at the end."""
    return first(case.path(unstopped(plan), forget=accuracy("forget"), kept=accuracy("kept")), "forget", TARGET)


def ascent(case: Case) -> dict[str, float]:
    """The same of gradient ascent, at the smallest rate from 1e-3 doubled that gets there in one epoch."""
    points = (to_target(case, methods.grad_ascent(lr=1e-3 * 2**i, epochs=1, most=1e9)) for i in range(12))
    return next(point for point in points if point["forget"] <= TARGET)


def measure(method: Method, seed: int) -> Figures:
    """Accuracy on training rows of the class that goes, and on test rows of the others."""
    case = class_three(seed)
    expanded = case.after(unstopped(method(variant="expand", lr=1e-3, epochs=10)))
    shrunk = to_target(case, method(variant="shrink", lr=1e-3, epochs=10, bound=0.3))
    short = method(variant="shrink", lr=1e-3, epochs=10, bound=0.1)
    climbed = ascent(case)
    return {
        "before": case.start.score("forget"),
        "before_others": case.start.score("kept"),
        "retrained": case.retrained.score("forget"),
        "retrained_others": case.retrained.score("kept"),
        "expand": expanded.score("forget"),
        "expand_others": expanded.score("kept"),
        "shrink": shrunk["forget"],
        "shrink_others": shrunk["kept"],
        "narrow": to_target(case, short)["forget"],
        "narrow_end": case.after(unstopped(short)).score("forget"),
        "ascent_others": climbed["kept"],
    }


CLAIM = Claim(
    says="A shadow class takes the class away in ten epochs. Shrinking does with a bound of 0.3, stopped at an "
    "accuracy of 0.05, with less harm than one epoch of gradient ascent to the same target; with a bound of 0.1 "
    "(narrow) it does not get there.",
    trained=CLASS,
    method=methods.boundary_unlearning,
    controls={"the method as a no-op": nothing},
    measure=measure,
    tolerance=0.02,
    holds=(
        "expand <= 0.02",
        "abs(expand_others - before_others) <= 0.03",
        "shrink <= 0.05",
        "shrink_others >= before_others - 0.04",
        "narrow > 0.05",
        "ascent_others < shrink_others",
    ),
    because={
        "narrow > 0.05": "It passes the target on the way and is back above it at the end (narrow_end): the rows whose "
        "step crosses no boundary keep their own class as the target, and pull the others along",
    },
    changed=(
        Changed("when shrinking is stopped", "after an epoch", "after a step", "an epoch is two steps of 64 rows here"),
        Changed("rate of gradient ascent", "not given", "the smallest of 0.001 * 2^i that gets there in an epoch",
                "a rate must be chosen; the smallest harms least"),
    ),
)  # fmt: skip
