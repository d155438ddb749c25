"""Gradient difference on texts: it keeps what it is given, and loses what it is not. People who do not exist."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from oblivio import methods
from oblivio.claims import language
from oblivio.claims.claim import Claim, Figures, Method
from oblivio.claims.grad_ascent_text import settings
from oblivio.claims.language import Mini
from oblivio.claims.problems import nothing, unstopped
from oblivio.core.plan import Stage

STEPS = 120
PARTS = ("forget", "retain", "world")
GIVEN = settings(STEPS, gamma=1.0, alpha=1.0)


def ascent(gamma: float, alpha: float, **given: Any) -> Stage:
    """The same without the retain term."""
    plan: Stage = methods.grad_ascent(**given)
    return plan


def measure(method: Method, seed: int) -> Figures:
    """Probabilities of forgotten, retained and unrelated answers after the method, and after ascent alone."""
    mini = language.mini(seed)
    done = language.after(unstopped(method(**GIVEN)), mini.problem())
    return {**others(seed), **probabilities(mini, "grad_diff", done.model)}


@functools.cache
def others(seed: int) -> Figures:
    """The same of the model before, of a retrained one, and after ascent."""
    mini = language.mini(seed)
    climbed = language.after(unstopped(ascent(**GIVEN)), mini.problem())
    models = {"before": mini.model, "retrained": mini.retrained(), "ascent": climbed.model}
    return {what: value for name, model in models.items() for what, value in probabilities(mini, name, model).items()}


def probabilities(mini: Mini, name: str, model: nn.Module) -> Figures:
    """Mean probabilities of the answers of all parts, under the name of a model."""
    return {f"{name}_{part}": language.probability(model, mini.tokens(part)) for part in PARTS}


CLAIM = Claim(
    says="After 120 steps the probability of forgotten answers is gone while that of retained ones stays, where ascent "
    "alone takes both; answers about the world, which are not among the retained data, lose more than these.",
    trained=language.TRAINED,
    method=methods.grad_diff,
    controls={"gradient ascent": ascent, "the method as a no-op": nothing},
    measure=measure,
    holds=(
        "grad_diff_forget < 0.05",
        "grad_diff_retain > 0.8",
        "grad_diff_retain > ascent_retain",
        "grad_diff_world < grad_diff_retain",
    ),
)
