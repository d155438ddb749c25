"""Gradient ascent on texts: it erases quickly, and destroys the model on the way. People who do not exist."""

from __future__ import annotations

import functools
from typing import Any

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.problems import nothing, unstopped
from oblivio.core.plan import Stage

STEPS, PER_EPOCH = 60, 3  # an epoch over the 36 facts that go is three batches of 12


def settings(steps: int, **others: Any) -> dict[str, Any]:
    """What all methods of these claims are called with, to make so many steps."""
    return {**language.UNLEARN, "optimiser": "adamw", "epochs": steps / PER_EPOCH, **others}


def difference(**given: Any) -> Stage:
    """The same run with a retain term."""
    plan: Stage = methods.grad_diff(gamma=1.0, alpha=1.0, **given)
    return plan


def measure(method: Method, seed: int) -> Figures:
    """Probabilities of answers along the way, beside a retrained model and gradient difference."""
    mini = language.mini(seed)
    sets = {name: mini.tokens(name) for name in ("forget", "retain")}
    measures = {name: language.of(tokens) for name, tokens in sets.items()}
    course = language.path(unstopped(method(**settings(STEPS))), mini.problem(), every=5, **measures)
    crossing = language.first(course, "forget", 0.25)
    return {
        **others(seed),
        "before": course[0]["forget"],
        "before_retain": course[0]["retain"],
        "crossing": crossing["forget"],
        "crossing_retain": crossing["retain"],
        "end": list(course.values())[-1]["forget"],
        "end_retain": list(course.values())[-1]["retain"],
    }


@functools.cache
def others(seed: int) -> Figures:
    """Of a retrained model, and after gradient difference at the same steps."""
    mini = language.mini(seed)
    held = language.after(unstopped(difference(**settings(STEPS))), mini.problem())
    return {
        "retrained": language.probability(mini.retrained(), mini.tokens("forget")),
        "retrained_retain": language.probability(mini.retrained(), mini.tokens("retain")),
        "grad_diff_retain": language.probability(held, mini.tokens("retain")),
    }


CLAIM = Claim(
    says="After 60 steps the probability of forgotten and of retained answers is gone; already where that of forgotten "
    "ones first falls below 0.25 (the crossing), retained ones have lost. With a retain term the same run keeps them.",
    trained=language.TRAINED,
    method=methods.grad_ascent,
    controls={"the method as a no-op": nothing, "gradient difference": difference},
    measure=measure,
    holds=(
        "end < 0.05",
        "end_retain < 0.05",
        "crossing_retain < 0.85",
        "retrained_retain > 0.95",
        "grad_diff_retain > 0.8",
    ),
)
